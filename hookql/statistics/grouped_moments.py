"""Count, mean and sum of squared deviations of each group's features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import columns_of, mean_along, scratch
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


class GroupedMoments:
    """Sums of deviations from a shift, and of their squares, for each group, in float64.

    A group's shift is its first row: a value that it has, so that what cancels later is what
    spreads anyway. With ``n`` rows, sums ``s1`` and ``s2``: mean = shift + s1 / n, and
    m2 = s2 - s1 ** 2 / n.
    """

    def __init__(self, order: int = 2) -> None:
        self.order = order
        self.states = States(grouped=True)

    def update(self, rows: Tensor, groups: Groups) -> None:
        """Take in rows (n, \\*axes), each into its group."""
        import torch

        states = self.states
        states.grow(groups.number)
        fresh = states.count[groups.present_on(states.count.device)] == 0
        layout = dict.fromkeys(self._names, (rows.shape[1:], torch.float64, 0.0))
        index = states.rows(rows, groups, layout)
        if not len(rows) or index is None:
            return
        x = columns_of(rows.detach())
        shift, s1 = self._columns("shift"), self._columns("s1")
        if fresh.any():
            firsts = groups.firsts[fresh.numpy()]
            new = torch.from_numpy(groups.index[firsts]).to(x.device, non_blocking=True)
            row = x.index_select(0, torch.from_numpy(firsts).to(x.device, non_blocking=True))
            shift.index_copy_(0, new, row.double().nan_to_num_(0.0, 0.0, 0.0))
        if x.is_cpu:
            at = torch.index_select(shift, 0, index, out=scratch(x, torch.float64, "at"))
            r = scratch(x, torch.float64).copy_(x).sub_(at)
        else:  # a GPU has its own ways of reusing memory
            r = x.double() - shift.index_select(0, index)
        s1.index_add_(0, index, r)
        if self.order > 1:
            self._columns("s2").index_add_(0, index, r.square_())

    def merge(self, other: Self) -> None:
        """Take in another one of the same order and axes."""
        if self.order != other.order:
            raise ValueError(f"cannot merge order {other.order} into order {self.order}")
        mine, theirs = self.states, other.states
        number = len(theirs.count)
        if mine.match(theirs):
            own, new = mine.counts(mine["s1"])[:number], theirs.counts(mine["s1"])
            device = own.device
            mean, other_mean = self._mean()[:number], other._mean().to(device)
            total = (own + new).clamp_min(1)
            delta = other_mean - mean
            joined = mean + delta * (new / total)
            weighed = mean * (own / total) + other_mean * (new / total)
            joined = joined.where(joined == joined, weighed)
            joined = joined.where(new > 0, mean).where(own > 0, other_mean)
            if self.order > 1:
                m2 = self._m2()[:number], other._m2().to(device)
                between = (delta.square() * (own * new / total)).where((own > 0) & (new > 0), 0.0)
                mine["s2"][:number] = m2[0] + m2[1] + between
            self._settle(joined, number, own + new)
        mine.count[:number] += theirs.count

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        pooled = type(self)(self.order)
        states = self.states
        if states.axes is None:
            pooled.states = states.without({})
            return pooled
        means = self._mean()
        mean = mean_along(means, axis + 1)
        tensors = {"shift": mean.nan_to_num(0.0, 0.0, 0.0), "s1": mean, "s2": mean}
        if self.order > 1:
            between = (means - mean.unsqueeze(axis + 1)).square() * states.counts(means)
            tensors["s2"] = (self._m2() + between).sum(axis + 1)
        pooled.states = states.without({name: tensors[name] for name in self._names}, axis)
        total = pooled.states.counts(mean)
        pooled._settle(mean.where(total > 0, 0.0), len(total), total)
        return pooled

    def select(self, index: Tensor) -> Self:
        """Those groups alone."""
        chosen = type(self)(self.order)
        chosen.states = self.states.select(index)
        return chosen

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states.grow(number)

    @property
    def count(self) -> Tensor:
        """The number of each group's rows, int64 (G,)."""
        return self.states.count

    @property
    def nbytes(self) -> int:
        """The memory of the states."""
        return self.states.nbytes

    def result_mean(self) -> Tensor:
        """The means, float64 (G, \\*axes); NaN where nothing was seen."""
        if self.states.axes is None:
            return self.states.nothing()
        mean = self._mean()
        return mean.masked_fill(self.states.counts(mean) == 0, float("nan"))

    def result_sum(self) -> Tensor:
        """The sums, float64 (G, \\*axes); NaN where nothing was seen."""
        mean = self.result_mean()
        return mean * self.states.counts(mean)

    def result_var(self, ddof: int | float) -> Tensor:
        """The variances, float64 (G, \\*axes); NaN where count <= ddof."""
        if self.states.axes is None:
            return self.states.nothing()
        m2 = self._m2()
        rest = self.states.counts(m2) - ddof
        return (m2 / rest).masked_fill(rest <= 0, float("nan"))

    @property
    def _names(self) -> tuple[str, ...]:
        return ("shift", "s1", "s2") if self.order > 1 else ("shift", "s1")

    def _columns(self, name: str) -> Tensor:
        return columns_of(self.states[name])

    def _mean(self) -> Tensor:
        s1 = self.states["s1"]
        return self.states["shift"] + s1 / self.states.counts(s1).clamp_min(1)

    def _m2(self) -> Tensor:
        s1, s2 = self.states["s1"], self.states["s2"]
        return (s2 - s1 * (s1 / self.states.counts(s1).clamp_min(1))).clamp_min(0.0)

    def _settle(self, mean: Tensor, number: int, total: Tensor) -> None:
        """Say the first groups' sums relative to their own means; s2 must be the m2 already."""
        shift = mean.nan_to_num(0.0, 0.0, 0.0)
        self.states["shift"][:number] = shift
        # Zero, but for means that are not finite.
        self.states["s1"][:number] = (mean - shift) * total
