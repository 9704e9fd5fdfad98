"""``std``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.grouped_moments import GroupedMoments
from hookql.statistics.moments import Moments
from hookql.statistics.var import DDOF

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "std",
    key="moments",
    order=2,
    accumulator=partial(Moments, order=2),
    grouped=partial(GroupedMoments, order=2),
    cell_method="standard_deviation",
    parameters=(DDOF,),
)
def std(state: Moments | GroupedMoments, ddof: int | float = 0) -> Tensor:
    """Standard deviation, ``sqrt(sum((x - mean) ** 2) / (n - ddof))``; NaN where n <= ddof."""
    return state.result_var(ddof).sqrt()
