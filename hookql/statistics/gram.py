"""``gram``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.gram_sums import GramSums

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "gram",
    key="gram",
    accumulator=GramSums,
    grouped=partial(GramSums, grouped=True),
    cell_method="sum",
    dims=("feature_2",),
    poolable=False,
    needs="feature",
)
def gram(state: GramSums) -> Tensor:
    """Gram matrix, ``sum(x[i] * x[j])`` over rows: neither centred nor divided by n.

    Of no rows NaN, like ``sum``. What GPTQ (Frantar and others, 2022) calls H, without its factor.
    """
    return state.result()
