"""Central moments up to the fourth, of each feature and of each group: serves skew and kurtosis.

Joined by the formulas of Pébay, "Formulas for robust, one-pass parallel computation of covariances
and arbitrary-order statistical moments" (Sandia report SAND2008-6212, 2008), in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import anchored, columns_of, mean_along
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


# A few units in the last place of float64, which is what the means of blocks are good for.
ROUNDING = 1e-15


class HigherMoments:
    """Running mean and sums of the second, third and (order 4) fourth powers of deviations.

    Serves what ``Moments`` serves too, so that mean, std and skew of a site share one of these.
    """

    def __init__(self, order: int = 4, grouped: bool = False) -> None:
        self.order = order
        self.states = States(grouped)
        self._names = ("mean", "m2", "m3", "m4")[:order]

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes), each into its group."""
        import torch

        states = self.states
        before = len(states.count)
        layout = dict.fromkeys(self._names, (rows.shape[1:], torch.float64, 0.0))
        states.prepare(rows.shape[1:], rows.device, layout, before)
        old = states.counts(columns_of(states["mean"]))
        index = states.rows(rows, groups, layout)
        if not len(rows):
            return
        x = columns_of(rows.detach())
        if groups is None or index is None:
            shift, present = anchored(x[:1]), None
            counts = shift.new_full((1, 1), len(x))
        else:
            shift = anchored(x.index_select(0, groups.firsts_on(x.device)))
            counts = groups.counts_on(x.device).double().unsqueeze(1)
            present = groups.present_on(x.device)
            index = groups.within(x.device)
        r = x - _of_rows(shift, index)
        off = _sums(r, index, len(counts)) / counts
        r -= _of_rows(off, index)
        block, power = [shift + off], r
        for _ in range(self.order - 1):
            power = power * r
            block.append(_sums(power, index, len(counts)))
        if present is not None:  # groups that are new have had no rows
            old = torch.cat([old, old.new_zeros(len(states.count) - len(old), 1)])
            old = old.index_select(0, present)
        self._join(present, old, counts, block)

    def merge(self, other: Self) -> None:
        """Take in what another one of the same order and axes has seen."""
        import torch

        if self.order != other.order:
            raise ValueError(f"cannot merge order {other.order} into order {self.order}")
        mine, theirs = self.states, other.states
        number = len(theirs.count)
        if mine.match(theirs):
            block = [columns_of(theirs[name]).to(mine["mean"].device) for name in self._names]
            old, new = mine.counts(block[0])[:number], theirs.counts(block[0])
            self._join(torch.arange(number, device=block[0].device), old, new, block)
        mine.count[:number] += theirs.count

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        states = self.states
        if states.axes is None:
            return self._of(states.without({}))
        means = states["mean"]
        n = states.counts(means)
        mean = mean_along(means, axis + 1)
        d = means - mean.unsqueeze(axis + 1)
        m2 = states["m2"]
        m3 = states["m3"] + 3 * d * m2 + n * d**3
        tensors = {"mean": mean, "m2": (m2 + n * d**2).sum(axis + 1), "m3": m3.sum(axis + 1)}
        if self.order > 3:
            m4 = states["m4"] + 4 * d * states["m3"] + 6 * d**2 * m2 + n * d**4
            tensors["m4"] = m4.sum(axis + 1)
        return self._of(states.without(tensors, axis))

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

    def result_mean(self) -> Tensor:
        """The mean, float64 ([groups,] \\*axes); NaN where nothing was seen."""
        return self._read(lambda n: self.states["mean"], 0)

    def result_sum(self) -> Tensor:
        """The sum, float64 ([groups,] \\*axes); NaN where nothing was seen."""
        return self._read(lambda n: self.states["mean"] * n, 0)

    def result_var(self, ddof: int | float) -> Tensor:
        """The variance, float64 ([groups,] \\*axes); NaN where count <= ddof."""
        return self._read(lambda n: self.states["m2"] / (n - ddof), ddof)

    def result_standardised(self, order: int) -> Tensor:
        """The mean of ((x - mean) / std) ** order; NaN where nothing spreads beyond rounding.

        That is a std of less than ``ROUNDING`` of the mean.
        """

        def read(n: Tensor) -> Tensor:
            var = self.states["m2"] / n
            flat = var <= (self.states["mean"] * ROUNDING).square()
            scaled = self.states[f"m{order}"] / n / var ** (order / 2)
            return scaled.masked_fill(flat, float("nan"))

        return self._read(read, 0)

    def _read(self, read: Callable[[Tensor], Tensor], least: int | float) -> Tensor:
        if self.states.axes is None:
            return self.states.nothing()
        n = self.states.counts(self.states["mean"])
        return self.states.result(read(n).masked_fill(n <= least, float("nan")))

    def _join(self, index: Tensor | None, old: Tensor, new: Tensor, block: list[Tensor]) -> None:
        """Join blocks (g, columns) of ``new`` rows to those groups, which have had ``old``."""
        total = (old + new).clamp_min(1)
        mine = [columns_of(self.states[name]) for name in self._names]
        if index is not None:
            mine = [tensor.index_select(0, index) for tensor in mine]
        d = block[0] - mine[0]
        a, b = old / total, new / total
        mean = mine[0] + d * b
        # Two infinite means have no difference (NaN): weigh them instead.
        joined = [mean.where(mean == mean, mine[0] * a + block[0] * b)]
        joined.append(mine[1] + block[1] + d**2 * (old * b))
        joined.append(
            mine[2] + block[2] + d**3 * (old * b * (a - b)) + 3 * d * (a * block[1] - b * mine[1])
        )
        if self.order > 3:
            joined.append(
                mine[3]
                + block[3]
                + d**4 * (old * b * (a * a - a * b + b * b))
                + 6 * d**2 * (a * a * block[1] + b * b * mine[1])
                + 4 * d * (a * block[2] - b * mine[2])
            )
        for name, was, block_, now in zip(self._names, mine, block, joined, strict=True):
            now = now.where(old > 0, block_).where(new > 0, was)
            state = columns_of(self.states[name])
            if index is None:
                state.copy_(now)
            else:
                state.index_copy_(0, index, now)

    def _of(self, states: States) -> Self:
        made = type(self)(self.order)
        made.states = states
        return made


def _of_rows(block: Tensor, index: Tensor | None) -> Tensor:
    """What is each group's (number, columns), for each row."""
    return block if index is None else block.index_select(0, index)


def _sums(x: Tensor, index: Tensor | None, number: int) -> Tensor:
    """The sums of the rows of each group: (number, columns)."""
    if index is None:
        return x.sum(0, keepdim=True)
    return x.new_zeros(number, x.shape[1]).index_add_(0, index, x)
