"""``mean``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.moments import Moments

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "mean", key="moments", order=1, accumulator=partial(Moments, order=1), cell_method="mean"
)
def mean(state: Moments) -> Tensor:
    """Arithmetic mean, ``sum(x) / n``; merged as in Chan, Golub and LeVeque (1983)."""
    return state.result_mean()
