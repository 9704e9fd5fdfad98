"""What rows of a batch do to each other: does padding, or another sample, change a sample's rows?

Differences are measured feature by feature against that feature's own spread, so that one massive
activation does not hide a leak in all the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

from hookql.models.layout import Layout

# Beyond ten times the noise of batching, and this many standard deviations, rows differ.
_TOLERANCE = {torch.float64: 5e-4, torch.float32: 5e-4}
_LOW_TOLERANCE = 0.5
# A sample beside its own copy that moves more than this has been changed, not rounded.
_NOISIEST = {torch.float64: 1e-2, torch.float32: 1e-2}
_LOW_NOISIEST = 0.5


class Mixing(Enum):
    """How far samples may share a batch without changing each other's rows."""

    NONE = "none"  # right padding with a mask changes nothing
    PADDING = "padding"  # only equal lengths may share a batch
    SAMPLES = "samples"  # every sample runs alone


def scale(rows: Tensor) -> Tensor:
    """For each feature of rows (n, *axes), what a difference is measured by, float64 (F,).

    Its standard deviation; at least a tenth of the median one, and what the dtype resolves. A
    feature that never moves is measured by the largest value of all.
    """
    flat = rows.reshape(len(rows), -1)
    resolution = torch.finfo(flat.dtype).eps if flat.is_floating_point() else 0.0
    flat = flat.double().nan_to_num(0, 0, 0)
    spread = flat.std(0, unbiased=False)
    moving = spread > 0
    if not moving.any():
        return flat.abs().amax().clamp(min=1e-30).expand_as(spread)
    floor = torch.maximum(0.1 * spread[moving].median(), 64 * resolution * flat.abs().amax(0))
    return torch.where(moving, torch.maximum(spread, floor), flat.abs().amax().clamp(min=1e-30))


def distance(a: Tensor, b: Tensor, by: Tensor) -> float:
    """The largest difference of two sets of rows (n, *axes), in units of each feature's scale."""
    if not a.numel():
        return 0.0
    a, b = a.reshape(len(a), -1).double(), b.reshape(len(b), -1).double()
    # Equal infinities and NaNs on both sides are no difference.
    same = (a == b) | (a.isnan() & b.isnan())
    return float(((a - b).abs() / by).masked_fill(same, 0).nan_to_num(1e30).max())


def differs(moved: float, noise: float, dtype: torch.dtype) -> bool:
    """Whether rows moved by more than batching's own noise explains."""
    return moved > 10 * noise + _TOLERANCE.get(dtype, _LOW_TOLERANCE)


def copies(lengths: Sequence[int], number: int) -> int:
    """How many copies of a sample make a batch about as large as all samples padded."""
    return 1 if number == 0 else max(1, len(lengths) * lengths[0] // lengths[number])


def judge(
    layout: Layout,
    lengths: Sequence[int],
    repeats: Sequence[int],
    alone: Sequence[Tensor],
    padded: Tensor,
    twice: Tensor,
    beside: Tensor,
    *,
    exact: torch.dtype | None = None,
) -> Mixing:
    """What one hook point's tensors say.

    ``lengths``: of the samples, in the stream that the layout follows, the first being the longest;
    ``alone``: each sample beside as many copies of itself as ``repeats`` says, which make a batch
    about as large as ``padded``, for kernels round by the size of their input; ``padded``: all in
    one batch, padded to the longest; ``twice``: the first beside itself; ``beside``: the first
    beside another of its length. ``exact`` is the dtype that the numbers are as exact as, if it is
    not their own.

    Of a pattern, keys in the padding must be 0 as if they were not there.
    """
    width = lengths[0]
    single = [
        _as_wide(layout, layout.rows(tensor, copies, length)[:length], width)
        for tensor, copies, length in zip(alone, repeats, lengths, strict=True)
    ]
    by = scale(torch.cat(single))
    first, dtype = single[0], exact or alone[0].dtype
    noise = distance(first, layout.rows(twice, 2, width)[:width], by)
    if noise > _NOISIEST.get(dtype, _LOW_NOISIEST):
        return Mixing.SAMPLES
    if differs(distance(first, layout.rows(beside, 2, width)[:width], by), noise, dtype):
        return Mixing.SAMPLES
    rows = layout.rows(padded, len(lengths), width)
    for number, (mine, length) in enumerate(zip(single, lengths, strict=True)):
        among = rows[number * width : number * width + length]
        if differs(distance(mine, among, by), noise, dtype):
            return Mixing.PADDING
    return Mixing.NONE


def _as_wide(layout: Layout, rows: Tensor, width: int) -> Tensor:
    """Rows of a pattern with keys up to the width, those that were not there 0."""
    missing = width - rows.shape[-1] if layout.ragged else 0
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows
