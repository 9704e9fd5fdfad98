"""``hist``."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from hookql.statistics.core import Parameter, statistic
from hookql.statistics.histogram import Histogram, edges_of

if TYPE_CHECKING:
    from torch import Tensor


def check_bins(value: int | float) -> str | None:
    """What a number of bins must be, or None for one that will do."""
    return None if 1 <= value <= 100_000 else "between 1 and 100000"


def check_edge(value: int | float) -> str | None:
    """What an edge must be, or None for one that will do."""
    return None if math.isfinite(value) else "finite"


def check_order(bins: int, lo: float, hi: float) -> str | None:
    """What is wrong with the edges together, or None."""
    if lo >= hi:
        return "`lo` of `hist` must be less than `hi`"
    if not math.isfinite((hi - lo) * bins):
        return "the range from `lo` to `hi` of `hist` is too wide for 64-bit numbers"
    edges = edges_of(bins, lo, hi)
    if math.isinf(bins / (hi - lo)) or any(a >= b for a, b in pairwise(edges)):
        return f"the range from `lo` to `hi` of `hist` is too narrow for {bins} bins"
    return None


def coordinates(bins: int, lo: float, hi: float) -> dict[str, tuple[str, tuple[float, ...]]]:
    """Where each bin begins and ends; those outside begin and end at infinity."""
    edges = (-math.inf, *edges_of(bins, lo, hi), math.inf)
    return {"bin_lo": ("bin", edges[:-1]), "bin_hi": ("bin", edges[1:])}


@statistic(
    "hist",
    key="histogram",
    accumulator=Histogram,
    grouped=partial(Histogram, grouped=True),
    cell_method="count",
    parameters=(
        Parameter("bins", None, check_bins, kind="whole"),
        Parameter("lo", None, check_edge),
        Parameter("hi", None, check_edge),
    ),
    state_parameters=("bins", "lo", "hi"),
    dims=("bin",),
    coordinates=coordinates,
    check=check_order,
)
def hist(state: Histogram, bins: int, lo: float, hi: float) -> Tensor:
    """How many values fell into each of ``bins`` equal bins from lo to hi: int64.

    A bin has its lower edge, the last one its upper edge too (as in ``numpy.histogram``). Before
    the bins stands the count of what is below lo, behind them of what is above hi, infinities
    included; a NaN falls into no bin. Of no rows all counts are 0.
    """
    return state.result()
