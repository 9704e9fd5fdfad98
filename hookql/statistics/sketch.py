"""A table of counts that quantiles are read off, of each feature and of each group.

The bins do not depend on the data, so that merging in any order gives the very same table. Each
octave [2 ** e, 2 ** (e + 1)) of either sign has 64 bins of equal width, which are the sign, the
exponent and the first six bits of the mantissa of a floating-point number; below 2 ** -30
(9.3e-10) in size everything is one bin, zero. So a bin's middle is off by at most 1/128 of any
value in it, or by 2 ** -30. The table has the octaves that occurred, from zero up.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from hookql.statistics.blocks import columns_of, scratch
from hookql.statistics.extremes import reduce_groups
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups

RELATIVE_ERROR = 1 / 128
FLOOR = -30  # the exponent below which there is nothing but zero
_OCTAVE = 64  # bins
_INT32 = 2**31 - 1
_CELLS = 1 << 16  # values counted together on a CPU


class Sketch:
    """How many values fell into each bin; infinities apart; the smallest and largest exactly."""

    def __init__(self, grouped: bool = False) -> None:
        self.states = States(grouped)
        self.first = 0  # the key of the table's first bin: a multiple of 64, or 0; never above 0

    def update(self, rows: Tensor, groups: Groups | None = None) -> None:
        """Take in rows (n, \\*axes), each into its group. On a GPU this waits for its range."""
        import torch

        columns = rows.shape[1:].numel()
        layout = {
            "low": ((columns,), torch.float64, float("inf")),
            "high": ((columns,), torch.float64, float("-inf")),
            "minus": ((columns,), torch.int64, 0),
            "plus": ((columns,), torch.int64, 0),
            "table": ((columns, 1), torch.int32, 0),
        }
        index = self.states.rows(rows, groups, layout)
        if not rows.numel():
            return
        self._room()
        x = columns_of(rows.detach())
        finite = self._bounds(x, index)
        known = None
        if not finite:
            self._count(x == float("-inf"), "minus", index)
            self._count(x == float("inf"), "plus", index)
            known = x.isfinite()
            x = x.nan_to_num(0.0, 0.0, 0.0)
        self._widen(*_keys(torch.stack([x.amin(), x.amax()])).tolist())
        table = self.states["table"]
        bins = table.shape[2]
        starts = torch.arange(columns, device=x.device) * bins - self.first
        # Some columns at a time, and column by column, so that all of it stays in the cache.
        step = min(columns, max(1, _CELLS // len(x))) if x.is_cpu else columns
        ones = torch.ones(step * len(x), dtype=table.dtype, device=x.device)
        for start in range(0, columns, step):
            part = slice(start, start + step)
            keys = _keys_by_column(x[:, part])
            # A GPU has its own ways of reusing memory.
            cells = scratch(keys, torch.int64).copy_(keys) if x.is_cpu else keys.long()
            cells += starts[part].unsqueeze(1)
            if index is not None:
                cells += index * (columns * bins)
            if known is None:
                weights = ones[: cells.numel()]
            else:
                weights = known[:, part].T.to(table.dtype).reshape(-1)
            table.view(-1).scatter_add_(0, cells.view(-1), weights)

    def merge(self, other: Self) -> None:
        """Take in another one of the same axes: the same numbers in any order."""
        mine, theirs = self.states, other.states
        number = len(theirs.count)
        if mine.axes is None:
            self.first = other.first
        matched = mine.match(theirs)
        mine.count[:number] += theirs.count
        if not matched:
            return
        self._room()
        self._widen(other.first, other.first + theirs["table"].shape[2] - 1)
        device = mine["table"].device
        low, high = mine["low"][:number], mine["high"][:number]
        low.copy_(low.minimum(theirs["low"].to(device)))
        high.copy_(high.maximum(theirs["high"].to(device)))
        for name in ("minus", "plus"):
            mine[name][:number] += theirs[name].to(device)
        start = other.first - self.first
        part = mine["table"][:number, :, start : start + theirs["table"].shape[2]]
        part += theirs["table"].to(device)

    def pool(self, axis: int) -> Self:
        """A new one, that axis merged away as if its numbers had been rows."""
        states = self.states
        if states.axes is None:
            return self._of(states.without({}))
        number, axes = len(states.count), states.axes
        size = axes[axis]
        left = math.prod((*axes[:axis], *axes[axis + 1 :]))

        def summed(name: str, *more: int) -> Tensor:
            tensor = states[name].reshape(number, *axes, *more)
            along = 1 + axis
            if name in ("low", "high") and size:
                return tensor.amin(along) if name == "low" else tensor.amax(along)
            large = name == "table" and int(states.count.sum()) * size < _INT32
            return tensor.sum(along, dtype=tensor.dtype if large else None)

        tensors = {name: summed(name).reshape(number, left) for name in ("low", "high")}
        tensors |= {name: summed(name).reshape(number, left) for name in ("minus", "plus")}
        bins = states["table"].shape[2]
        tensors["table"] = summed("table", bins).reshape(number, left, bins)
        return self._of(states.without(tensors, axis))

    def select(self, index: Tensor) -> Self:
        """Those groups alone."""
        return self._of(self.states.select(index))

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        self.states.grow(number)

    @property
    def nbytes(self) -> int:
        """The memory of the table and what stands beside it."""
        return self.states.nbytes

    def result(self, q: Sequence[float]) -> Tensor:
        """Quantiles, float64 ([groups,] \\*axes, quantile); NaN where nothing or a NaN was seen.

        Of n values the one of rank ceil(q * n), the smallest that q of all do not exceed
        (``inverted_cdf`` in NumPy), within the bins' error; the first and last rank exactly.
        """
        import torch

        states = self.states
        if states.axes is None:
            none = torch.full((len(states.count), len(q)), float("nan"), dtype=torch.float64)
            return states.result(none)
        values = states["low"].new_empty((*states["low"].shape, len(q)))
        middles = _middles(self.first, states["table"].shape[2]).to(values.device)
        for group, n in enumerate(states.count.tolist()):
            below = states["table"][group].cumsum(1, dtype=torch.int64)
            minus, plus = states["minus"][group], states["plus"][group]
            low, high = states["low"][group], states["high"][group]
            for place, each in enumerate(q):
                rank = min(max(math.ceil(each * n), 1), n)
                bins = torch.searchsorted(below, (rank - minus).unsqueeze(1)).squeeze(1)
                bins = bins.clamp_max(len(middles) - 1)
                value = middles[bins].clamp(low, high)
                value = value.masked_fill(minus >= rank, float("-inf"))
                value = value.masked_fill(n - plus < rank, float("inf"))
                value = low if rank <= 1 else high if rank == n else value
                unknown = low.isnan() | (n == 0)
                values[group, :, place] = value.masked_fill(unknown, float("nan"))
        return states.result(values.reshape(len(values), *states.axes, len(q)))

    def _bounds(self, x: Tensor, index: Tensor | None) -> bool:
        """Take in the extremes; whether all of x is finite, which no GPU is asked."""
        low, high = self.states["low"], self.states["high"]
        if index is None:
            least, most = x.amin(0), x.amax(0)
            low.copy_(low.minimum(least))
            high.copy_(high.maximum(most))
            return x.is_cpu and bool((least.isfinite() & most.isfinite()).all())
        reduce_groups(low, index, x, largest=False)
        reduce_groups(high, index, x, largest=True)
        return x.is_cpu and bool(x.sum().isfinite())

    def _count(self, mask: Tensor, name: str, index: Tensor | None) -> None:
        if index is None:
            self.states[name].add_(mask.sum(0))
        else:
            self.states[name].index_add_(0, index, mask.long())

    def _room(self) -> None:
        """Count in int64 before int32 can overflow."""
        if int(self.states.count.max()) >= _INT32:
            self.states["table"] = self.states["table"].long()

    def _widen(self, low: int, high: int) -> None:
        """Have bins for the keys from ``low`` to ``high``, by whole octaves."""
        table = self.states["table"]
        first = min(self.first, low // _OCTAVE * _OCTAVE)
        last = max(self.first + table.shape[2] - 1, -(-high // _OCTAVE) * _OCTAVE)
        if first == self.first and last - first + 1 == table.shape[2]:
            return
        wide = table.new_zeros(*table.shape[:2], last - first + 1)
        start = self.first - first
        wide[..., start : start + table.shape[2]] = table
        self.states["table"], self.first = wide, first

    def _of(self, states: States) -> Self:
        made = type(self)()
        made.states, made.first = states, self.first
        return made


def _keys(x: Tensor) -> Tensor:
    """The bin of each finite number: 0 for zero, 1 and on for positive ones, -1 and on below."""
    import torch

    whole, drop, bias = (
        (torch.int32, 17, 127) if x.dtype == torch.float32 else (torch.int64, 46, 1023)
    )
    bits = x.contiguous().view(whole)
    keys = bits & torch.iinfo(whole).max
    keys >>= drop
    keys -= (bias + FLOOR) * _OCTAVE - 1
    keys.clamp_min_(0)
    sign = bits >> (torch.iinfo(whole).bits - 1)  # 0, or -1 for negative ones
    keys ^= sign
    keys -= sign
    return keys


def _keys_by_column(x: Tensor) -> Tensor:
    """The bins of finite numbers (n, columns), as (columns, n)."""
    import torch

    if x.dtype != torch.float32 or not x.is_cpu:
        return _keys(x.T)
    # The upper half of a float32 has all that counts, and half the memory is half the time.
    upper = 1 if sys.byteorder == "little" else 0
    bits = x.unsqueeze(-1).view(torch.int16)[..., upper].T
    keys = scratch(bits, torch.int16).copy_(bits)
    sign = keys >> 15  # 0, or -1 for negative ones
    keys &= 0x7FFF
    keys >>= 1
    keys -= (127 + FLOOR) * _OCTAVE - 1
    keys.clamp_min_(0)
    keys ^= sign
    keys -= sign
    return keys


def _middles(first: int, number: int) -> Tensor:
    """The middle of each bin from a key on, float64 (number,)."""
    import torch

    keys = torch.arange(first, first + number)
    place = keys.abs() - 1
    octave = torch.div(place, _OCTAVE, rounding_mode="floor") + FLOOR
    within = 1 + (place % _OCTAVE + 0.5) / _OCTAVE
    return torch.ldexp(within.double(), octave) * keys.sign()
