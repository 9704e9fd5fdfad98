"""``min``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.extremes import Extreme

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "min",
    key="min",
    accumulator=partial(Extreme, largest=False),
    grouped=partial(Extreme, largest=False, grouped=True),
    cell_method="minimum",
)
def min_(state: Extreme) -> Tensor:
    """Smallest value, ``min(x)``; NaN where one was seen."""
    return state.result()
