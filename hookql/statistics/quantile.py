"""``quantile``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.core import Parameter, statistic
from hookql.statistics.median import error_bound
from hookql.statistics.sketch import Sketch

if TYPE_CHECKING:
    from torch import Tensor


def check_q(value: int | float) -> str | None:
    """What a q must be, or None for one that will do."""
    return None if 0 <= value <= 1 else "between 0 and 1"


def coordinates(q: tuple[float, ...]) -> dict[str, tuple[str, tuple[float, ...]]]:
    """The quantiles asked for."""
    return {"quantile": ("quantile", tuple(map(float, q)))}


@statistic(
    "quantile",
    key="sketch",
    accumulator=Sketch,
    grouped=partial(Sketch, grouped=True),
    cell_method="quantile",
    parameters=(Parameter("q", None, check_q, kind="rest"),),
    dims=("quantile",),
    coordinates=coordinates,
    attributes=error_bound,
)
def quantile(state: Sketch, q: tuple[float, ...]) -> Tensor:
    """Quantiles: of n values the one of rank ``ceil(q * n)``, within 1/128 of its size.

    That is ``inverted_cdf`` in NumPy, read off bins that do not depend on the data: each octave of
    either sign has 64 of equal width, and all below 2 ** -30 in size is zero. The smallest (q = 0)
    and the largest value (q = 1) are exact; others of 2 ** 128 (3.4e38) or more in size are
    infinite. NaN where one was seen. A fixed set of such bins is in
    Masson, Rim and Lee, "DDSketch", 2019, with another spacing.
    """
    return state.result(q)
