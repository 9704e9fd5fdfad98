"""The smallest or largest value of each feature, and of each group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.states import Layout, States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


class Extreme:
    """The smallest (or largest) value seen; NaN wherever one was seen, as NumPy has it."""

    def __init__(self, largest: bool, grouped: bool = False) -> None:
        self.largest = largest
        self.states = States(grouped)

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes), each into its group."""
        index = self.states.rows(rows, groups, self._layout(rows))
        if not len(rows):
            return
        value = self.states["value"]
        if index is None:
            self._join(value, rows.amax(0) if self.largest else rows.amin(0))
        elif rows.shape[1:].numel():
            reduce_groups(value, index, rows, self.largest)

    def merge(self, other: Self) -> None:
        """Take in what another one of the same axes has seen."""
        if self.states.match(other.states):
            number = len(other.states.count)
            self._join(self.states["value"][:number], other.states["value"])
        self.states.count[: len(other.states.count)] += other.states.count

    def pool(self, axis: int) -> Self:
        """The extreme along an axis too."""
        states = self.states
        if states.axes is None:
            return self._of(states.without({}))
        value = states["value"]
        if states.axes[axis]:
            value = value.amax(axis + 1) if self.largest else value.amin(axis + 1)
        else:  # no extreme along an axis of length 0; then the count is 0 and the value unused
            value = value.sum(axis + 1)
        return self._of(states.without({"value": value}, axis))

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
        """The extremes, float64 of shape ([groups,] \\*axes); NaN where nothing was seen."""
        if self.states.axes is None:
            return self.states.nothing()
        value = self.states["value"]
        none = self.states.counts(value) == 0
        return self.states.result(value.masked_fill(none, float("nan")))

    def _join(self, value: Tensor, block: Tensor) -> None:
        block = block.to(value.device, value.dtype)
        value.copy_(value.maximum(block) if self.largest else value.minimum(block))

    def _layout(self, rows: Tensor) -> Layout:
        import torch

        fill = float("-inf") if self.largest else float("inf")
        return {"value": (rows.shape[1:], torch.float64, fill)}

    def _of(self, states: States) -> Self:
        made = type(self)(self.largest)
        made.states = states
        return made


def reduce_groups(value: Tensor, index: Tensor, rows: Tensor, largest: bool) -> None:
    """Take rows (n, ...) into the extremes (groups, ...) of their groups, int64 (n,)."""
    index = index.reshape(-1, *[1] * (rows.dim() - 1)).expand_as(rows)
    value.scatter_reduce_(0, index, rows.to(value.dtype), "amax" if largest else "amin")
