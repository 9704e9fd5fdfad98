"""Sums of products of features over the rows of one block.

On a CPU float32 rows are multiplied in float32 and added up in float64; where their squares
overflow or underflow, and everywhere else, all is float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hookql.statistics.blocks import FAINT, FEW

if TYPE_CHECKING:
    from torch import Tensor

    from hookql.statistics.groups import Groups

# So many rows are added up in float32, and those sums in float64.
ROWS = 256


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
    index, place = groups.within(x.device), groups.rank_on(x.device)
    most = int(groups.counts.max())
    padded = x.new_zeros(len(groups.present), most, *x.shape[1:])
    padded[index, place] = x
    part = padded.double().transpose(1, 2)
    return part.mT @ part
