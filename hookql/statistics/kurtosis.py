"""``kurtosis``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.higher import HigherMoments

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "kurtosis",
    key="moments",
    order=4,
    accumulator=partial(HigherMoments, order=4),
    grouped=partial(HigherMoments, order=4, grouped=True),
    cell_method="kurtosis",
)
def kurtosis(state: HigherMoments) -> Tensor:
    """Excess kurtosis (Fisher), ``mean(((x - mean) / std) ** 4) - 3``: 0 for normal numbers.

    NaN where nothing spreads; no correction for small samples, as ``scipy.stats.kurtosis`` has it.
    Merged by the formulas of Pébay (2008).
    """
    return state.result_standardised(4) - 3
