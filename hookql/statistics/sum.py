"""``sum``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.grouped_moments import GroupedMoments
from hookql.statistics.moments import Moments

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "sum",
    key="moments",
    order=1,
    accumulator=partial(Moments, order=1),
    grouped=partial(GroupedMoments, order=1),
    cell_method="sum",
)
def sum_(state: Moments | GroupedMoments) -> Tensor:
    """Sum, ``sum(x)``, as ``n * mean``; of no rows NaN, like every statistic, and not 0."""
    return state.result_sum()
