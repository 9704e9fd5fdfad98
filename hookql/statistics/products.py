"""Sums of products of features over the rows of one block.

On a CPU float32 rows are multiplied in float32 and added up in float64; where their squares
overflow or underflow, and everywhere else, all is float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hookql.statistics.blocks import FAINT, FEW

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from hookql.statistics.groups import Groups

# So many rows are added up in float32, and those sums in float64.
ROWS = 256
# Rows sorted by group are padded in batches of so many float64 numbers: 32 MB.
SCRATCH = 1 << 22


def stacked(rows: Tensor) -> Tensor:
    """Rows (n, \\*axes, feature) as (n, others, feature). Raises ValueError without a feature."""
    if rows.dim() < 2:
        raise ValueError("rows must have a feature axis")
    return rows.reshape(rows.shape[0], rows.shape[1:-1].numel(), rows.shape[-1])


def fast(x: Tensor) -> bool:
    """Whether these rows may be multiplied in float32."""
    import torch

    # A user may have allowed products of bfloat16, which are off by 1e-3.
    exact = torch.get_float32_matmul_precision() == "highest"
    return exact and x.is_cpu and x.dtype == torch.float32 and len(x) > FEW


def products(x: Tensor) -> Tensor:
    """``sum(x[i] * x[j])`` over rows (n, others, feature): float64 (others, feature, feature)."""
    total: Tensor | None = None
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS].transpose(0, 1)
        product = (part.mT @ part).double()
        total = product if total is None else total + product
    assert total is not None
    return total


def sound(product: Tensor, x: Tensor) -> bool:
    """Whether no square overflowed or underflowed in the product of float32 rows."""
    diagonal = product.diagonal(dim1=-2, dim2=-1)
    good = (diagonal >= FAINT * len(x)) & (diagonal < math.inf)
    # Columns of zeros, such as those of dead features, look faint but are right.
    return bool(good.all()) or bool((good | ((x.amax(0) == 0) & (x.amin(0) == 0))).all())


def grouped_products(x: Tensor, groups: Groups) -> Tensor:
    """The same of each group that has rows, as float64 (g, others, feature, feature)."""
    import torch

    others, width = x.shape[1:]
    total = torch.zeros(
        len(groups.present), others, width, width, dtype=torch.float64, device=x.device
    )
    by_size = groups.by_size_on(x.device)
    starts, counts = groups.starts_on(x.device), groups.counts_on(x.device)
    for first, last, most in _batches(groups.counts[groups.by_size], others, width):
        some = by_size[first:last]
        # One group too large for a batch is taken in several.
        step = max(1, SCRATCH // max(1, (last - first) * others * width))
        for begin in range(0, most, step):
            place = torch.arange(begin, min(begin + step, most), device=x.device)
            absent = place >= counts[some].unsqueeze(1)
            rows = (starts[some].unsqueeze(1) + place).masked_fill_(absent, 0)
            part = x[groups.sorted(x.device)[rows]].double()  # (some, rows, others, feature)
            part.masked_fill_(absent[..., None, None], 0.0)
            part = part.transpose(1, 2)
            total.index_add_(0, some, part.mT @ part)
    return total


def _batches(
    counts: np.ndarray[Any, Any], others: int, width: int
) -> Iterator[tuple[int, int, int]]:
    """Runs of ascending counts, as first, last and largest, to be padded to the largest.

    The rows of each and their products take ``SCRATCH`` numbers at most, unless it is one group,
    and its rows are at most half padding.
    """
    import numpy as np

    first = 0
    while first < len(counts):
        rest = counts[first:]
        numbers = np.arange(1, len(rest) + 1) * np.maximum(rest, width) * (others * width)
        fitting = numbers <= SCRATCH
        # Both ascend, so that what fits comes first.
        last = first + max(1, int((fitting & (rest <= 2 * rest[0])).sum()))
        yield first, last, int(counts[last - 1])
        first = last
