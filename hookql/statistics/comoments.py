"""Means and sums of products of deviations of every two features: serves cov and corr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import anchored, mean_along, shift_for
from hookql.statistics.higher import ROUNDING
from hookql.statistics.products import fast, grouped_products, products, sound, stacked
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups


class Comoments:
    """Running count, means and co-moments ``sum((x[i] - mean[i]) * (x[j] - mean[j]))``, float64.

    Blocks are joined as in Chan, Golub and LeVeque (1983), with products in the squares' place.
    Features cannot be pooled.
    """

    def __init__(self, grouped: bool = False) -> None:
        self.states = States(grouped)

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes, feature), each into its group."""
        import torch

        x, states = stacked(rows.detach()), self.states
        shape = rows.shape[1:]
        layout = {
            "mean": (shape, torch.float64, 0.0),
            "c": ((*shape, shape[-1]), torch.float64, 0.0),
        }
        index = states.rows(rows, groups, layout)
        if not rows.numel():
            return
        if groups is None or index is None:
            mean, c = _block(x)
            present, new = torch.zeros(1, dtype=torch.int64), torch.tensor([len(x)])
        else:
            device = x.device
            counts = groups.counts_on(device).reshape(-1, 1, 1)
            shift = anchored(x.index_select(0, groups.firsts_on(device)))
            r = x - shift.index_select(0, groups.within(device))
            off = torch.zeros_like(shift).index_add_(0, groups.within(device), r) / counts
            r -= off.index_select(0, groups.within(device))
            mean, c = shift + off, grouped_products(r, groups)
            present, new = groups.present_on(device), groups.counts_on(states.count.device)
        old = states.count[present.to(states.count.device)] - new
        self._join(present.to(x.device), old, new, mean.reshape(-1, *shape), c)

    def merge(self, other: Self) -> None:
        """Take in another one of the same axes."""
        import torch

        mine, theirs = self.states, other.states
        number = len(theirs.count)
        if mine.match(theirs):
            device = mine["c"].device
            mean, c = theirs["mean"].to(device), theirs["c"].to(device)
            every = torch.arange(number, device=device)
            self._join(every, mine.count[:number].clone(), theirs.count, mean, c)
        mine.count[:number] += theirs.count

    def pool(self, axis: int) -> Self:
        """Not possible for the feature; another axis merged away as if its numbers were rows."""
        states = self.states
        if states.axes is None:
            return self._of(states.without({}))
        if axis == len(states.axes) - 1:
            raise ValueError("a covariance has no meaning without its features")
        means = states["mean"]
        mean = mean_along(means, axis + 1)
        d = means - mean.unsqueeze(axis + 1)
        between = d.unsqueeze(-1) * d.unsqueeze(-2) * states.counts(means).unsqueeze(-1)
        c = (states["c"] + between).sum(axis + 1)
        return self._of(states.without({"mean": mean, "c": c}, axis))

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

    def result_cov(self, ddof: int | float) -> Tensor:
        """Covariances, float64 ([groups,] \\*axes, feature, feature); NaN where count <= ddof."""
        states = self.states
        if states.axes is None:
            return states.nothing()
        rest = states.counts(states["c"]) - ddof
        return states.result((states["c"] / rest).masked_fill(rest <= 0, float("nan")))

    def result_corr(self) -> Tensor:
        """Correlations, alike; NaN where a feature does not spread beyond rounding."""
        states = self.states
        if states.axes is None:
            return states.nothing()
        c, n = states["c"], states.counts(states["mean"])
        m2 = c.diagonal(dim1=-2, dim2=-1)
        flat = m2 <= (states["mean"] * ROUNDING).square() * n
        std = m2.sqrt().masked_fill(flat | (n == 0), float("nan"))
        corr = (c / std.unsqueeze(-1) / std.unsqueeze(-2)).clamp(-1, 1)
        return states.result(corr)

    def _join(self, index: Tensor, old: Tensor, new: Tensor, mean: Tensor, c: Tensor) -> None:
        """Join blocks (g, ...) of ``new`` rows to those groups, which have had ``old``."""
        states = self.states
        mine = states["mean"].index_select(0, index)
        shape = (-1, *[1] * (mine.dim() - 1))
        old = old.to(mine.device).double().reshape(shape)
        new = new.to(mine.device).double().reshape(shape)
        total = (old + new).clamp_min(1)
        d = mean - mine
        joined = mine + d * (new / total)
        joined = joined.where(joined == joined, mine * (old / total) + mean * (new / total))
        joined = joined.where(old > 0, mean).where(new > 0, mine)
        d = d.masked_fill((old == 0) | (new == 0), 0.0)
        c = c.reshape(len(index), *states["c"].shape[1:])
        c = c + (d * (old * new / total)).unsqueeze(-1) * d.unsqueeze(-2)
        states["mean"].index_copy_(0, index, joined)
        states["c"].index_add_(0, index, c)

    def _of(self, states: States) -> Self:
        made = type(self)()
        made.states = states
        return made


def _block(x: Tensor) -> tuple[Tensor, Tensor]:
    """The means (others, feature) and co-moments of rows (n, others, feature), n > 0."""
    n = len(x)
    if fast(x):
        shift = shift_for(x.reshape(n, -1)).reshape(x.shape[1:])
        r = x - shift
        c = products(r)
        if sound(c, r):
            s1 = r.sum(0).double()
            mean = s1 / n
            return mean + shift, c - mean.unsqueeze(-1) * s1.unsqueeze(-2)
    shift = anchored(x[0])
    r = x - shift
    off = r.mean(0)
    return shift + off, products(r - off)
