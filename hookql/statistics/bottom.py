"""``bottom``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.ranking import Ranking
from hookql.statistics.top import K, ranks

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "bottom",
    key="bottom",
    accumulator=partial(Ranking, largest=False),
    grouped=partial(Ranking, largest=False, grouped=True),
    cell_method="minimum",
    parameters=(K,),
    state_parameters=("k",),
    dims=("top",),
    variables=("", "order", "token"),
    coordinates=ranks,
)
def bottom(state: Ranking, k: int = 10) -> dict[str, Tensor]:
    """The k smallest values of each feature, the smallest first, and where they stand.

    Of equal values the one of lower (sample, position) comes first. A NaN does not rank. Where
    there were fewer than k rows the value is NaN and the place -1.
    """
    return state.result()
