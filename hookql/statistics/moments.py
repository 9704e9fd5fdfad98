"""Count, mean and sum of squared deviations of each feature: serves sum, mean, var and std."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import (
    FEW,
    Left,
    SoFar,
    columns_of,
    is_quick,
    mean_along,
    nan_like,
    shift_for,
    shifted_sums,
)

if TYPE_CHECKING:
    from torch import Tensor


class Moments:
    """Running count, mean and (order 2) sum of squared deviations ``m2``, in float64.

    Rows are summed relative to a shift, which a few operations a block do. When as many rows as
    these sums rest on have come several times over, or when something is read off, the sums are
    settled: joined to the mean and m2 so far by the formula of Chan, Golub and LeVeque (1983),
    which no order of merging and no large mean upsets. The settled mean is the next shift.
    """

    def __init__(self, order: int = 2) -> None:
        self.order = order
        # Whether every value so far is known to be finite; on a GPU that is not known.
        self.proves_finite = True
        self._axes: tuple[int, ...] | None = None
        self._count = 0  # settled rows, their mean and m2, float64 of shape axes
        self._mean: Tensor | None = None
        self._m2: Tensor | None = None
        self._pending = 0  # rows summed since, relative to the shift
        self._due = 0
        self._shift: Tensor | None = None
        self._s1: Tensor | None = None
        self._s2: Tensor | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes)."""
        self._check(rows.shape[1:])
        n = rows.shape[0]
        if not n:
            if self._mean is None:
                zeros = rows.new_zeros(rows.shape[1:]).double()
                self._mean, self._m2 = zeros, zeros.clone() if self.order > 1 else None
            return
        x = columns_of(rows.detach())
        self._add(x, self._shift_of(x, n), n, None)

    def update_but(self, rows: Tensor, left: Left) -> None:
        """Take in rows (n, \\*axes) but for some, without a copy where that can be."""
        x, n = columns_of(rows.detach()), len(left.kept)
        if not is_quick(x) or n <= FEW or self.count * 16 < n:
            self.update(rows.index_select(0, left.kept))
            return
        self._check(rows.shape[1:])
        self._add(x, self._shift_of(x, n), n, left)

    def _add(self, x: Tensor, shift: Tensor, n: int, left: Left | None) -> None:
        m2 = None if self._m2 is None else self._m2.reshape(-1)
        before = SoFar(self._pending, self._s1, self._s2, self._count, m2)
        s1, s2, finite = shifted_sums(x, shift, self.order, before, left)
        self.proves_finite &= finite
        self._s1 = s1.double() if self._s1 is None else self._s1.add_(s1)
        if s2 is not None:
            self._s2 = s2.double() if self._s2 is None else self._s2.add_(s2)
        self._pending += n
        if self._pending >= self._due:
            self._settle()

    def merge(self, other: Self) -> None:
        """Take in what another one of the same order and axes has seen."""
        if self.order != other.order:
            raise ValueError(f"cannot merge order {other.order} into order {self.order}")
        self.proves_finite &= other.proves_finite
        if other._axes is None:
            return
        self._check(other._axes)
        self._settle()
        if other.mean is not None:
            self._take(other.count, other.mean, other.m2)

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        pooled = type(self)(self.order)
        pooled.proves_finite = self.proves_finite
        if self.mean is None or self._axes is None:
            return pooled
        pooled._axes = self._axes[:axis] + self._axes[axis + 1 :]
        pooled._count = self.count * self._axes[axis]
        pooled._mean = mean_along(self.mean, axis)
        if self.m2 is not None:
            between = (self.mean - pooled._mean.unsqueeze(axis)).square().sum(axis)
            pooled._m2 = self.m2.sum(axis) + between * self.count
        return pooled

    @property
    def count(self) -> int:
        """The number of rows."""
        return self._count + self._pending

    @property
    def mean(self) -> Tensor | None:
        """The mean, float64 of shape axes; None where these are not known."""
        self._settle()
        return self._mean

    @property
    def m2(self) -> Tensor | None:
        """The sum of squared deviations from the mean; None in order 1."""
        self._settle()
        return self._m2

    @property
    def nbytes(self) -> int:
        """The memory of the state."""
        parts = (self._mean, self._m2, self._shift, self._s1, self._s2)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def result_mean(self) -> Tensor:
        """The mean, float64 of shape axes; NaN where nothing was seen."""
        return self.mean.clone() if self.count and self.mean is not None else nan_like(self.mean)

    def result_sum(self) -> Tensor:
        """The sum, float64 of shape axes; NaN where nothing was seen."""
        return self.result_mean() * self.count

    def result_var(self, ddof: int | float) -> Tensor:
        """The variance, float64 of shape axes; NaN where count <= ddof."""
        if self.m2 is None or self.count <= ddof:
            return nan_like(self.mean)
        return self.m2 / (self.count - ddof)

    def _shift_of(self, x: Tensor, n: int) -> Tensor:
        """The shift for n rows of x; a new one where there is none, or it rests on few rows."""
        shift = self._shift
        few = self.count * 16 < n
        if shift is not None and (few or (x.is_cpu and shift.dtype != x.dtype)):
            self._settle()
            shift = None
        if shift is None:
            if few or self._mean is None:
                shift = shift_for(x)
            else:
                dtype = x.dtype if x.is_cpu else self._mean.dtype
                shift = self._mean.reshape(-1).to(x.device, dtype).nan_to_num(0.0, 0.0, 0.0)
            self._shift, self._due = shift, max(4 * n, 3 * self._count)
        return shift

    def _settle(self) -> None:
        """Join the sums since the last time to the mean and m2."""
        n, shift, s1, s2 = self._pending, self._shift, self._s1, self._s2
        self._pending, self._shift, self._s1, self._s2 = 0, None, None, None
        if not n or shift is None or s1 is None or self._axes is None:
            return
        mean = s1 / n
        m2 = None if s2 is None else (s2 - mean * s1).clamp_min_(0.0).reshape(self._axes)
        self._take(n, (mean + shift).reshape(self._axes), m2)

    def _take(self, n: int, mean: Tensor, m2: Tensor | None) -> None:
        if self._mean is None or not self._count:
            self._mean, self._m2 = mean.clone(), None if m2 is None else m2.clone()
        elif n:
            total = self._count + n
            mean = mean.to(self._mean.device)
            delta = mean - self._mean
            joined = self._mean + delta * (n / total)
            # Two infinite means have no difference (NaN): weigh them instead.
            weighed = self._mean * (self._count / total) + mean * (n / total)
            self._mean = joined.where(joined == joined, weighed)
            if self._m2 is not None and m2 is not None:
                between = delta.square() * (self._count / total * n)
                self._m2 = self._m2 + m2.to(self._m2.device) + between
        self._count += n

    def _check(self, axes: Sequence[int]) -> None:
        """Refuse to join a state with one of other axes, which broadcasting would do silently."""
        if self._axes is None:
            self._axes = tuple(axes)
        elif self._axes != tuple(axes):
            raise ValueError(f"rows of axes {tuple(axes)} do not fit axes {self._axes}")
