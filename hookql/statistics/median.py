"""``median``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.bins import FLOOR, RELATIVE_ERROR
from hookql.statistics.core import statistic
from hookql.statistics.sketch import Sketch

if TYPE_CHECKING:
    from torch import Tensor


def error_bound(**parameters: object) -> dict[str, int | float | str]:
    """How far off a quantile may be: the greater of the two."""
    return {"relative_error": RELATIVE_ERROR, "absolute_error": 2.0**FLOOR}


@statistic(
    "median",
    key="sketch",
    accumulator=Sketch,
    grouped=partial(Sketch, grouped=True),
    cell_method="median",
    attributes=error_bound,
)
def median(state: Sketch) -> Tensor:
    """Median: the value of rank ``ceil(n / 2)``, within 1/128 of its size (see ``quantile``)."""
    return state.result((0.5,)).squeeze(-1)
