"""``var``."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import Parameter, statistic
from hookql.statistics.grouped_moments import GroupedMoments
from hookql.statistics.moments import Moments

if TYPE_CHECKING:
    from torch import Tensor


def check_ddof(value: int | float) -> str | None:
    """What a ddof must be, or None for one that will do."""
    return None if math.isfinite(value) and value >= 0 else "0 or more"


DDOF = Parameter("ddof", 0, check_ddof)


@statistic(
    "var",
    key="moments",
    order=2,
    accumulator=partial(Moments, order=2),
    grouped=partial(GroupedMoments, order=2),
    cell_method="variance",
    parameters=(DDOF,),
)
def var(state: Moments | GroupedMoments, ddof: int | float = 0) -> Tensor:
    """Variance, ``sum((x - mean) ** 2) / (n - ddof)``; NaN where n <= ddof.

    Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.
    """
    return state.result_var(ddof)
