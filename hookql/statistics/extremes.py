"""The smallest or largest value of each feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import check_axes, nan_like

if TYPE_CHECKING:
    from torch import Tensor


class Extreme:
    """The smallest (or largest) value seen; NaN wherever one was seen, as NumPy has it."""

    def __init__(self, largest: bool) -> None:
        self.largest = largest
        self.count = 0
        self.value: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes)."""
        n = rows.shape[0]
        # Of no rows only the shape and the device count: the zeros are never looked at.
        block = rows.new_zeros(rows.shape[1:])
        if n:
            block = rows.amax(0) if self.largest else rows.amin(0)
        self._take(n, block.double())

    def merge(self, other: Self) -> None:
        """Take in what another one of the same axes has seen."""
        if other.value is not None:
            self._take(other.count, other.value)

    def pool(self, axis: int) -> Self:
        """The extreme along an axis too."""
        pooled = type(self)(self.largest)
        if self.value is not None:
            size = self.value.shape[axis]
            pooled.count = self.count * size
            # An axis of length 0 has no extreme; then the count is 0 and the value unused.
            along = self.value if size else self.value.sum(axis, keepdim=True)
            pooled.value = along.amax(axis) if self.largest else along.amin(axis)
        return pooled

    def result(self) -> Tensor:
        """The extremes, float64 of shape axes; NaN where nothing was seen."""
        return self.value.clone() if self.count and self.value is not None else nan_like(self.value)

    def _take(self, n: int, block: Tensor) -> None:
        check_axes(self.value, block.shape)
        if self.value is None or not self.count:
            self.value = block.clone()
        elif n:
            block = block.to(self.value.device)
            self.value = self.value.maximum(block) if self.largest else self.value.minimum(block)
        self.count += n
