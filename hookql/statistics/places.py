"""Where in the data rows stand, for statistics that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor


@frozen(eq=False)
class Places:
    """Where the rows of one update stand, int64 (n,) each, on the rows' device.

    ``order`` sorts as (sample, chunk, position) does and differs from row to row of a corpus;
    ``token`` is the id of the token there.
    """

    order: Tensor
    token: Tensor

    def __getitem__(self, index: Any) -> Places:
        """The places of some of the rows."""
        return Places(self.order[index], self.token[index])
