"""``skew``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.higher import HigherMoments

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "skew",
    key="moments",
    order=3,
    accumulator=partial(HigherMoments, order=3),
    grouped=partial(HigherMoments, order=3, grouped=True),
    cell_method="skewness",
)
def skew(state: HigherMoments) -> Tensor:
    """Skewness of the rows seen, ``mean(((x - mean) / std) ** 3)``; NaN where nothing spreads.

    No correction for small samples. Merged by the formulas of Pébay (2008).
    """
    return state.result_standardised(3)
