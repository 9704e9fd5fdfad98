"""Count, mean and sum of squared deviations of each feature: serves sum, mean, var and std."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import check_axes, columns_of, moments, nan_like

if TYPE_CHECKING:
    from torch import Tensor


class Moments:
    """Running count, mean and (order 2) sum of squared deviations ``m2``, in float64.

    Blocks are joined by the formula of Chan, Golub and LeVeque (1983), which no order of merging
    and no large mean upsets.
    """

    def __init__(self, order: int = 2) -> None:
        self.order = order
        self.count = 0
        self.mean: Tensor | None = None
        self.m2: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes)."""
        axes, n = rows.shape[1:], rows.shape[0]
        check_axes(self.mean, axes)
        if n == 0:
            zeros = rows.new_zeros(axes).double()
            self._take(0, zeros, zeros if self.order > 1 else None)
            return
        # The mean so far spares a pass, unless it rests on few rows beside these.
        known = self.mean is not None and self.count * 16 >= n
        shift = self.mean.reshape(-1) if known and self.mean is not None else None
        mean, m2 = moments(columns_of(rows), self.order, shift)
        self._take(n, mean.reshape(axes), None if m2 is None else m2.reshape(axes))

    def merge(self, other: Self) -> None:
        """Take in what another one of the same order and axes has seen."""
        if self.order != other.order:
            raise ValueError(f"cannot merge order {other.order} into order {self.order}")
        if other.mean is not None:
            self._take(other.count, other.mean, other.m2)

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        pooled = type(self)(self.order)
        if self.mean is None:
            return pooled
        pooled.count = self.count * self.mean.shape[axis]
        pooled.mean = self.mean.mean(axis)
        if self.m2 is not None:
            between = (self.mean - pooled.mean.unsqueeze(axis)).square().sum(axis)
            pooled.m2 = self.m2.sum(axis) + between * self.count
        return pooled

    def result_mean(self) -> Tensor:
        """The mean, float64 of shape axes; NaN where nothing was seen."""
        return self.mean.clone() if self.count and self.mean is not None else nan_like(self.mean)

    def result_var(self, ddof: int | float) -> Tensor:
        """The variance, float64 of shape axes; NaN where count <= ddof."""
        if self.m2 is None or self.count <= ddof:
            return nan_like(self.mean)
        return self.m2 / (self.count - ddof)

    def _take(self, n: int, mean: Tensor, m2: Tensor | None) -> None:
        check_axes(self.mean, mean.shape)
        if self.mean is None or not self.count:
            self.mean, self.m2 = mean.clone(), None if m2 is None else m2.clone()
        elif n:
            total = self.count + n
            mean = mean.to(self.mean.device)
            delta = mean - self.mean
            joined = self.mean + delta * (n / total)
            # Two infinite means have no difference (NaN): weigh them instead.
            weighed = self.mean * (self.count / total) + mean * (n / total)
            self.mean = joined.where(joined == joined, weighed)
            if self.m2 is not None and m2 is not None:
                between = delta.square() * (self.count / total * n)
                self.m2 = self.m2 + m2.to(self.m2.device) + between
        self.count += n
