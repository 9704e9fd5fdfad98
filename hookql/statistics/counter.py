"""How many rows there were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from torch import Tensor


class Counter:
    """The number of rows; an axis pooled away changes nothing, for rows are tokens."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, rows: Tensor) -> None:
        """Count rows (n, \\*axes)."""
        self.count += rows.shape[0]

    def merge(self, other: Self) -> None:
        """Add another's rows."""
        self.count += other.count

    def pool(self, axis: int) -> Self:
        """The same count."""
        pooled = type(self)()
        pooled.count = self.count
        return pooled
