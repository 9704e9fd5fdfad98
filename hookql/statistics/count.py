"""``count``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.counter import Counter

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "count",
    key="count",
    accumulator=Counter,
    grouped=partial(Counter, grouped=True),
    cell_method="count",
)
def count(state: Counter) -> Tensor:
    """The number of rows (tokens) seen: one int64."""
    return state.count.clone()
