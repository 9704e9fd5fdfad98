"""``rms``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import statistic
from hookql.statistics.squares import Squares

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "rms",
    key="squares",
    accumulator=Squares,
    grouped=partial(Squares, grouped=True),
    cell_method="root_mean_square",
)
def rms(state: Squares) -> Tensor:
    """Root mean square, ``sqrt(sum(x ** 2) / n)``."""
    return state.result().sqrt()
