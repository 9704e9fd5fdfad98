"""``top``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import Parameter, statistic
from hookql.statistics.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor


def check_k(value: int | float) -> str | None:
    """What a k must be, or None for one that will do."""
    return None if 1 <= value <= 10_000 else "between 1 and 10000"


def ranks(k: int) -> dict[str, tuple[str, tuple[float, ...]]]:
    """The ranks, 0 for the best."""
    return {"top": ("top", tuple(range(k)))}


K = Parameter("k", 10, check_k, kind="whole")


@statistic(
    "top",
    key="top",
    accumulator=Ranking,
    grouped=partial(Ranking, grouped=True),
    cell_method="maximum",
    parameters=(K,),
    state_parameters=("k",),
    dims=("top",),
    variables=("", "order", "token"),
    coordinates=ranks,
)
def top(state: Ranking, k: int = 10) -> dict[str, Tensor]:
    """The k largest values of each feature, the largest first, and where they stand.

    Of equal values the one of lower (sample, position) comes first. A NaN does not rank. Where
    there were fewer than k rows the value is NaN and the place -1.
    """
    return state.result()
