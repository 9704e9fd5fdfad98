"""``corr``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.comoments import Comoments
from hookql.statistics.core import statistic

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "corr",
    key="comoments",
    accumulator=Comoments,
    grouped=partial(Comoments, grouped=True),
    cell_method="correlation",
    dims=("feature_2",),
    poolable=False,
    needs="feature",
)
def corr(state: Comoments) -> Tensor:
    """Pearson correlations, ``cov[i, j] / (std[i] * std[j])``; NaN where a feature is constant.

    Read off what ``cov`` accumulates.
    """
    return state.result_corr()
