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

    def rank_on(self, device: torch.device) -> Tensor:
        """How many rows of its group stand before each row here, int64 (n,)."""
        return self._tensor("rank", device)

    @cached_property
    def rank(self) -> np.ndarray[Any, Any]:
        """What ``rank_on`` gives."""
        import numpy as np

        rank = np.empty_like(self.order)
        starts = self.counts.cumsum() - self.counts
        rank[self.order] = np.arange(len(rank)) - np.repeat(starts, self.counts)
        return rank

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
        starts = self.counts.cumsum() - self.counts
        firsts: np.ndarray[Any, Any] = self.order[starts]
        return firsts

    def _tensor(self, name: str, device: torch.device) -> Tensor:
        import torch

        if (name, device) not in self._moved:
            tensor = torch.from_numpy(getattr(self, name))
            if device.type == "cuda":  # only from pinned memory does a copy not wait
                tensor = tensor.pin_memory()
            self._moved[name, device] = tensor.to(device, non_blocking=True)
        return self._moved[name, device]
