"""``cov``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hookql.statistics.comoments import Comoments
from hookql.statistics.core import statistic
from hookql.statistics.var import DDOF

if TYPE_CHECKING:
    from torch import Tensor


@statistic(
    "cov",
    key="comoments",
    accumulator=Comoments,
    grouped=partial(Comoments, grouped=True),
    cell_method="covariance",
    parameters=(DDOF,),
    dims=("feature_2",),
    poolable=False,
    needs="feature",
)
def cov(state: Comoments, ddof: int | float = 0) -> Tensor:
    """Covariances, ``sum((x[i] - mean[i]) * (x[j] - mean[j])) / (n - ddof)``; NaN if n <= ddof.

    Merged as in Chan, Golub and LeVeque (1983), with products in the squares' place.
    """
    return state.result_cov(ddof)
