"""``max``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.extremes import Extreme

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "max",
    key="max",
    accumulator=partial(Extreme, largest=True),
    grouped=partial(Extreme, largest=True, grouped=True),
    cell_method="maximum",
)
def max_(state: Extreme) -> Tensor:
    """Largest value, ``max(x)``; NaN where one was seen."""
    return state.result()
