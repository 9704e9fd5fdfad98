"""The sum of squares of each feature: serves rms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import check_axes, columns_of, nan_like, squares

if TYPE_CHECKING:
    from torch import Tensor


class Squares:
    """Running count and sum of squares, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes)."""
        axes, n = rows.shape[1:], rows.shape[0]
        if n:
            self._take(n, squares(columns_of(rows)).reshape(axes))
        else:
            self._take(0, rows.new_zeros(axes).double())

    def merge(self, other: Self) -> None:
        """Take in what another one of the same axes has seen."""
        if other.total is not None:
            self._take(other.count, other.total)

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        pooled = type(self)()
        if self.total is not None:
            pooled.count = self.count * self.total.shape[axis]
            pooled.total = self.total.sum(axis)
        return pooled

    def result(self) -> Tensor:
        """The mean of the squares, float64 of shape axes; NaN where nothing was seen."""
        if not self.count or self.total is None:
            return nan_like(self.total)
        return self.total / self.count

    def _take(self, n: int, block: Tensor) -> None:
        if self.total is None:
            self.total = block.clone()
        else:
            check_axes(self.total, block.shape)
            self.total = self.total + block.to(self.total.device)
        self.count += n
