"""A table of counts that quantiles are read off, of each feature and of each group.

The bins do not depend on the data, so that merging in any order gives the very same table. Each
octave [2 ** e, 2 ** (e + 1)) of either sign has 64 bins of equal width, which are the sign, the
exponent and the first six bits of the mantissa of a floating-point number; below 2 ** -30
(9.3e-10) in size everything is one bin, zero. So a bin's middle is off by at most 1/128 of any
value in it, or by 2 ** -30. The table has the octaves that occurred, from zero up: at most those of
float32, which take 81 kB for each feature of each group (twice that from 2 ** 31 rows on). Numbers
of 2 ** 128 (3.4e38) or more in size, which only float64 has, count as infinite; only the smallest
and the largest of all are exact there too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from hookql.statistics.bins import CEILING, OCTAVE, find, keys_by_column, keys_of, middles_from
from hookql.statistics.blocks import columns_of, scratch
from hookql.statistics.extremes import reduce_groups
from hookql.statistics.states import States

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups

_HUGE = 2.0**CEILING
_INT32 = 2**31 - 1
_CELLS = 1 << 16  # values counted together on a CPU
_READ = 1 << 22  # bins looked at together: 32 MB


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
        bounds = self._bounds(x, index)
        known = None
        # No GPU is asked whether all is finite.
        if not x.is_cpu or not all(-_HUGE < bound < _HUGE for bound in bounds.tolist()):
            self._count(x <= -_HUGE, "minus", index)
            self._count(x >= _HUGE, "plus", index)
            known = x.abs() < _HUGE
            x = x.where(known, 0.0)
            bounds = torch.stack([x.amin(), x.amax()])
        self._widen(*keys_of(bounds).tolist())
        table = self.states["table"]
        bins = table.shape[2]
        starts = torch.arange(columns, device=x.device) * bins - self.first
        # Some columns at a time, and column by column, so that all of it stays in the cache.
        step = min(columns, max(1, _CELLS // len(x))) if x.is_cpu else columns
        ones = torch.ones(step * len(x), dtype=table.dtype, device=x.device)
        for start in range(0, columns, step):
            part = slice(start, start + step)
            keys = keys_by_column(x[:, part])
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

        Infinite where the number is 2 ** 128 or more in size, unless it is the first or last. Of n
        values the one of rank ceil(q * n), the smallest that q of all do not exceed
        (``inverted_cdf`` in NumPy), within the bins' error; the first and last rank exactly.
        """
        import torch

        states = self.states
        if states.axes is None:
            none = torch.full((len(states.count), len(q)), float("nan"), dtype=torch.float64)
            return states.result(none)
        count = states.count.unsqueeze(1)
        wanted = (count * torch.tensor(q, dtype=torch.float64)).ceil().long()
        ranks = wanted.minimum(count).clamp_min(1).to(states["low"].device)
        columns, bins = states["table"].shape[1:]
        values = states["low"].new_empty(len(count) * columns, len(q))
        step = max(1, _READ // max(bins, OCTAVE * len(q)))
        for start in range(0, len(values), step):
            self._read(ranks, values, slice(start, start + step))
        return states.result(values.reshape(len(count), *states.axes, len(q)))

    def _read(self, ranks: Tensor, values: Tensor, part: slice) -> None:
        """Fill in the values (cells, quantile) of some cells (groups x columns)."""
        import torch

        def cells(name: str, *more: int) -> Tensor:
            return self.states[name].reshape(len(values), *more)[part]

        columns, bins = self.states["table"].shape[1:]
        cell = torch.arange(part.start, min(part.stop, len(values)), device=values.device)
        group = cell // columns
        rank = ranks[group]
        n = self.states.count.to(values.device)[group].unsqueeze(1)
        minus, plus = cells("minus", 1), cells("plus", 1)
        low, high = cells("low", 1), cells("high", 1)
        found = find(cells("table", bins), rank - minus)
        value = middles_from(self.first, bins).to(values.device)[found].clamp(low, high)
        value = value.masked_fill(minus >= rank, float("-inf"))
        value = value.masked_fill(n - plus < rank, float("inf"))
        value = torch.where(rank <= 1, low, torch.where(rank == n, high, value))
        values[part] = value.masked_fill(low.isnan() | (n == 0), float("nan"))

    def _bounds(self, x: Tensor, index: Tensor | None) -> Tensor:
        """Take in the extremes; those of all of x, like x (2,), NaN where one is NaN."""
        import torch

        low, high = self.states["low"], self.states["high"]
        if index is None:
            least, most = x.amin(0), x.amax(0)
            low.copy_(low.minimum(least))
            high.copy_(high.maximum(most))
            return torch.stack([least.amin(), most.amax()])
        reduce_groups(low, index, x, largest=False)
        reduce_groups(high, index, x, largest=True)
        return torch.stack([x.amin(), x.amax()])

    def _count(self, mask: Tensor, name: str, index: Tensor | None) -> None:
        if index is None:
            self.states[name].add_(mask.sum(0))
        else:
            self.states[name].index_add_(0, index, mask.long())

    def _room(self) -> None:
        """Count in int64 before int32 can overflow."""
        count = self.states.count
        if len(count) and int(count.max()) >= _INT32:
            self.states["table"] = self.states["table"].long()

    def _widen(self, low: int, high: int) -> None:
        """Have bins for the keys from ``low`` to ``high``, by whole octaves."""
        table = self.states["table"]
        first = min(self.first, low // OCTAVE * OCTAVE)
        last = max(self.first + table.shape[2] - 1, -(-high // OCTAVE) * OCTAVE)
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
