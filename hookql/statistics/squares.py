"""The sum of squares of each feature, and of each group: serves rms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import columns_of, squares
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


class Squares:
    """Running count and sum of squares, in float64."""

    def __init__(self, grouped: bool = False) -> None:
        self.states = States(grouped)

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes), each into its group."""
        import torch

        layout = {"total": (rows.shape[1:], torch.float64, 0.0)}
        index = self.states.rows(rows, groups, layout)
        if not len(rows):
            return
        total = self.states["total"]
        if index is None:
            total += squares(columns_of(rows)).reshape(rows.shape[1:])
        else:
            total.index_add_(0, index, rows.double().square())

    def merge(self, other: Self) -> None:
        """Take in what another one of the same axes has seen."""
        number = len(other.states.count)
        if self.states.match(other.states):
            total = self.states["total"][:number]
            total += other.states["total"].to(total.device)
        self.states.count[:number] += other.states.count

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        if self.states.axes is None:
            return self._of(self.states.without({}))
        total = self.states["total"].sum(axis + 1)
        return self._of(self.states.without({"total": total}, axis))

    def select(self, index: Tensor) -> Self:
        """Those groups alone."""
        return self._of(self.states.select(index))

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states.grow(number)

    @property
    def nbytes(self) -> int:
        """The memory of the state."""
        return self.states.nbytes

    def result(self) -> Tensor:
        """The mean of the squares, float64 ([groups,] \\*axes); NaN where nothing was seen."""
        if self.states.axes is None:
            return self.states.nothing()
        total = self.states["total"]
        return self.states.result(total / self.states.counts(total))

    def _of(self, states: States) -> Self:
        made = type(self)()
        made.states = states
        return made
