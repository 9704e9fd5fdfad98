"""``values``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.counter import Counter

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "values",
    key="values",
    accumulator=Counter,
    cell_method="point",
    poolable=False,
    raw=True,
)
def values(state: Counter) -> Tensor:
    """Every row itself, in the order of the data."""
    raise NotImplementedError("rows are kept as they are: there is nothing to read off")
