"""The bins of a sketch, which do not depend on the data: keys of numbers, and middles of bins.

A key is 0 for zero, 1 and on for positive numbers and -1 and on for negative ones, ascending in
size: the exponent above ``FLOOR`` and the first six bits of the mantissa.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hookql.statistics.blocks import scratch

if TYPE_CHECKING:
    from torch import Tensor

RELATIVE_ERROR = 1 / 128
FLOOR = -30  # the exponent below which there is nothing but zero
CEILING = 128  # and the one from which on everything is infinite
OCTAVE = 64  # bins


def find(table: Tensor, rank: Tensor) -> Tensor:
    """The bin of the value of each rank (cells, quantile), 1 and on: its octave first, then in it.

    Of a rank beyond what is in the table (cells, bins), any.
    """
    import torch

    bins = table.shape[1]
    whole = table[:, :-1].view(len(table), bins // OCTAVE, OCTAVE)
    # No sum here exceeds the count, which the table's own dtype is made for; int64 is slow.
    octaves = torch.cat([whole.sum(-1, dtype=table.dtype), table[:, -1:]], 1).long()
    below = octaves.cumsum(1)
    octave = torch.searchsorted(below, rank).clamp_max(octaves.shape[1] - 1)
    rest = rank - (below - octaves).gather(1, octave)
    start = octave.unsqueeze(-1) * OCTAVE
    place = (start + torch.arange(OCTAVE, device=table.device)).clamp_max(bins - 1)
    within = table.gather(1, place.flatten(1)).reshape(place.shape).cumsum(-1, dtype=torch.int64)
    found = start + torch.searchsorted(within, rest.unsqueeze(-1))
    return found.squeeze(-1).clamp_max(bins - 1)


def keys_of(x: Tensor) -> Tensor:
    """The bin of each finite number: 0 for zero, 1 and on for positive ones, -1 and on below."""
    import torch

    whole, drop, bias = (
        (torch.int32, 17, 127) if x.dtype == torch.float32 else (torch.int64, 46, 1023)
    )
    bits = x.contiguous().view(whole)
    keys = bits & torch.iinfo(whole).max
    keys >>= drop
    keys -= (bias + FLOOR) * OCTAVE - 1
    keys.clamp_min_(0)
    sign = bits >> (torch.iinfo(whole).bits - 1)  # 0, or -1 for negative ones
    keys ^= sign
    keys -= sign
    return keys


def keys_by_column(x: Tensor) -> Tensor:
    """The bins of finite numbers (n, columns), as (columns, n)."""
    import torch

    if x.dtype != torch.float32 or not x.is_cpu:
        return keys_of(x.T)
    # The upper half of a float32 has all that counts, and half the memory is half the time.
    upper = 1 if sys.byteorder == "little" else 0
    bits = x.unsqueeze(-1).view(torch.int16)[..., upper].T
    keys = scratch(bits, torch.int16).copy_(bits)
    sign = keys >> 15  # 0, or -1 for negative ones
    keys &= 0x7FFF
    keys >>= 1
    keys -= (127 + FLOOR) * OCTAVE - 1
    keys.clamp_min_(0)
    keys ^= sign
    keys -= sign
    return keys


def middles_from(first: int, number: int) -> Tensor:
    """The middle of each bin from a key on, float64 (number,)."""
    import torch

    keys = torch.arange(first, first + number)
    place = keys.abs() - 1
    octave = torch.div(place, OCTAVE, rounding_mode="floor") + FLOOR
    within = 1 + (place % OCTAVE + 0.5) / OCTAVE
    return torch.ldexp(within.double(), octave) * keys.sign()
