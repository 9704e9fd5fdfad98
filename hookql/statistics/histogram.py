"""Counts of values in bins of equal width, of each feature and of each group."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from hookql.statistics.blocks import columns_of
from hookql.statistics.states import Layout, States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


def edges_of(bins: int, lo: float, hi: float) -> tuple[float, ...]:
    """The edges between bins, lo first and hi last."""
    return (*(lo + (hi - lo) * i / bins for i in range(bins)), float(hi))


@lru_cache(16)
def _edges_on(bins: int, lo: float, hi: float, device: Any) -> Tensor:
    """The edges on a device, copied to it once: the host would wait for every copy."""
    import torch

    return torch.tensor(edges_of(bins, lo, hi), dtype=torch.float64, device=device)


class Histogram:
    """How many values fell below ``lo``, into each of ``bins`` bins, and above ``hi``."""

    def __init__(self, bins: int, lo: float, hi: float, grouped: bool = False) -> None:
        self.bins, self.lo, self.hi = bins, lo, hi
        self.states = States(grouped)

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes), each into its group."""
        import torch

        index = self.states.rows(rows, groups, self._layout(rows))
        if not rows.numel():
            return
        x = columns_of(rows.detach()).contiguous()
        slots = self._slots(x)
        columns, width = x.shape[1], self.bins + 2
        cells = slots.add_(torch.arange(0, columns * width, width, device=x.device))
        if index is not None:
            cells += (index * (columns * width)).unsqueeze(1)
        seen = (x == x).long()  # a NaN falls into no bin
        self.states["table"].view(-1).scatter_add_(0, cells.view(-1), seen.view(-1))

    def merge(self, other: Self) -> None:
        """Take in another one of the same bins and axes."""
        if (self.bins, self.lo, self.hi) != (other.bins, other.lo, other.hi):
            raise ValueError("histograms of other bins do not merge")
        number = len(other.states.count)
        if self.states.match(other.states):
            table = self.states["table"][:number]
            table += other.states["table"].to(table.device)
        self.states.count[:number] += other.states.count

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        if self.states.axes is None:
            return self._of(self.states.without({}))
        table = self.states["table"].sum(axis + 1)
        return self._of(self.states.without({"table": table}, axis))

    def select(self, index: Tensor) -> Self:
        """Those groups alone."""
        return self._of(self.states.select(index))

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states.grow(number)

    @property
    def nbytes(self) -> int:
        """The memory of the table."""
        return self.states.nbytes

    def result(self) -> Tensor:
        """The counts, int64 ([groups,] \\*axes, bins + 2); 0 where nothing was seen."""
        import torch

        if self.states.axes is None:
            empty = torch.zeros(len(self.states.count), self.bins + 2, dtype=torch.int64)
            return self.states.result(empty)
        return self.states.result(self.states["table"]).clone()

    def _slots(self, x: Tensor) -> Tensor:
        """0 for below lo, 1 and on for the bins, bins + 1 for above hi: int64 like x."""
        edges = _edges_on(self.bins, self.lo, self.hi, x.device)
        x = x.double()
        near = (x - self.lo) * (self.bins / (self.hi - self.lo))
        guess = near.nan_to_num_(0.0, float(self.bins), 0.0).clamp_(0, self.bins - 1).long()
        # The division may be off by one at an edge; the edges decide.
        last = self.bins - 1
        guess -= ((x < edges.take(guess)) & (guess > 0)).long()
        guess += ((x >= edges[1:].take(guess)) & (guess < last)).long()
        guess += 1
        return guess.masked_fill_(x < self.lo, 0).masked_fill_(x > self.hi, self.bins + 1)

    def _layout(self, rows: Tensor) -> Layout:
        import torch

        return {"table": ((*rows.shape[1:], self.bins + 2), torch.int64, 0)}

    def _of(self, states: States) -> Self:
        made = type(self)(self.bins, self.lo, self.hi)
        made.states = states
        return made
