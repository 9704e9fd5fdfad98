"""Sums of products of every two features, of each group: serves gram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.products import fast, grouped_products, products, sound, stacked
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


class GramSums:
    """Running ``sum(x[i] * x[j])``, in float64. Features cannot be pooled."""

    def __init__(self, grouped: bool = False) -> None:
        self.states = States(grouped)

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes, feature), each into its group."""
        import torch

        x = stacked(rows.detach())
        shape = (*rows.shape[1:], rows.shape[-1])
        index = self.states.rows(rows, groups, {"total": (shape, torch.float64, 0.0)})
        if not rows.numel():
            return
        total = self.states["total"]
        if groups is not None and index is not None:
            block = grouped_products(x, groups).reshape(-1, *shape)
            total.index_add_(0, groups.present_on(x.device), block)
            return
        block = products(x) if fast(x) else products(x.double())
        if fast(x) and not sound(block, x):
            block = products(x.double())
        total += block.reshape(shape)

    def merge(self, other: Self) -> None:
        """Take in another one of the same axes."""
        number = len(other.states.count)
        if self.states.match(other.states):
            total = self.states["total"][:number]
            total += other.states["total"].to(total.device)
        self.states.count[:number] += other.states.count

    def pool(self, axis: int) -> Self:
        """Not possible for the feature; another axis merged away as if its numbers were rows."""
        states = self.states
        if states.axes is None:
            return self._of(states.without({}))
        if axis == len(states.axes) - 1:
            raise ValueError("a Gram matrix has no meaning without its features")
        total = states["total"].sum(axis + 1)
        return self._of(states.without({"total": total}, axis))

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
        """The sums, float64 ([groups,] \\*axes, feature, feature); NaN where nothing was seen."""
        if self.states.axes is None:
            return self.states.nothing()
        total = self.states["total"]
        none = self.states.counts(total) == 0
        return self.states.result(total.masked_fill(none, float("nan")))

    def _of(self, states: States) -> Self:
        made = type(self)()
        made.states = states
        return made
