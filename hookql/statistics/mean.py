"""``mean``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.grouped_moments import GroupedMoments
from hookql.statistics.moments import Moments

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "mean",
    key="moments",
    order=1,
    accumulator=partial(Moments, order=1),
    grouped=partial(GroupedMoments, order=1),
    cell_method="mean",
)
def mean(state: Moments | GroupedMoments) -> Tensor:
    """Arithmetic mean, ``sum(x) / n``; merged as in Chan, Golub and LeVeque (1983)."""
    return state.result_mean()
