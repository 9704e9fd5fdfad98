"""Which group each row of one batch falls into, and what all sites make of that, made once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


class Groups:
    """The group of each row, numbered from 0; what is asked of it is computed once a batch."""

    def __init__(self, index: np.ndarray[Any, Any], number: int) -> None:
        """index int64 (n,), the group of each row; number: how many groups there are so far."""
        self.index = index
        self.number = number
        self._moved: dict[tuple[str, torch.device], Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The group of each row, int64 (n,)."""
        return self._tensor("index", device)

    def sorted(self, device: torch.device) -> Tensor:
        """The rows by group, int64 (n,): group by group, and within a group as they came."""
        return self._tensor("order", device)

    def present_on(self, device: torch.device) -> Tensor:
        """The groups that have rows here, ascending, int64 (g,)."""
        return self._tensor("present", device)

    def counts_on(self, device: torch.device) -> Tensor:
        """How many rows each of them has, int64 (g,)."""
        return self._tensor("counts", device)

    def within(self, device: torch.device) -> Tensor:
        """The number of each row's group among those that are present, int64 (n,)."""
        return self._tensor("place", device)

    @cached_property
    def place(self) -> np.ndarray[Any, Any]:
        """What ``within`` gives."""
        import numpy as np

        place: np.ndarray[Any, Any] = np.searchsorted(self.present, self.index)
        return place

    def firsts_on(self, device: torch.device) -> Tensor:
        """The first row of each group that is present, int64 (g,)."""
        return self._tensor("firsts", device)

    def starts_on(self, device: torch.device) -> Tensor:
        """Where the rows of each of them start in ``sorted``, int64 (g,)."""
        return self._tensor("starts", device)

    def by_size_on(self, device: torch.device) -> Tensor:
        """Their places in ``present``, the group of the fewest rows first, int64 (g,)."""
        return self._tensor("by_size", device)

    @cached_property
    def starts(self) -> np.ndarray[Any, Any]:
        """What ``starts_on`` gives."""
        starts: np.ndarray[Any, Any] = self.counts.cumsum() - self.counts
        return starts

    @cached_property
    def by_size(self) -> np.ndarray[Any, Any]:
        """What ``by_size_on`` gives."""
        import numpy as np

        return np.argsort(self.counts, kind="stable")

    @cached_property
    def order(self) -> np.ndarray[Any, Any]:
        """The rows by group, as ``sorted`` has them."""
        import numpy as np

        return np.argsort(self.index, kind="stable")

    @cached_property
    def present(self) -> np.ndarray[Any, Any]:
        """The groups that have rows here, ascending, int64 (g,)."""
        import numpy as np

        return np.flatnonzero(np.bincount(self.index, minlength=self.number))

    @cached_property
    def counts(self) -> np.ndarray[Any, Any]:
        """How many rows each of ``present`` has, int64 (g,)."""
        import numpy as np

        counts: np.ndarray[Any, Any] = np.bincount(self.index, minlength=self.number)
        present: np.ndarray[Any, Any] = counts[self.present]
        return present

    @cached_property
    def firsts(self) -> np.ndarray[Any, Any]:
        """The first row of each of ``present``, int64 (g,)."""
        firsts: np.ndarray[Any, Any] = self.order[self.starts]
        return firsts

    def _tensor(self, name: str, device: torch.device) -> Tensor:
        import torch

        if (name, device) not in self._moved:
            tensor = torch.from_numpy(getattr(self, name))
            if device.type == "cuda":  # only from pinned memory does a copy not wait
                tensor = tensor.pin_memory()
            self._moved[name, device] = tensor.to(device, non_blocking=True)
        return self._moved[name, device]
