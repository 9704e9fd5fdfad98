"""Every statistic by its formula, and how far a right answer may be from it.

An answer is right between ``low`` and ``high``; where both are NaN it must be NaN. The margins are
those of docs/language.md: moments to 1e-5 of the feature's standard deviation, sums to that times
n, extremes and rows to 1e-5 of the largest |x|, quantiles within the sketch's relative bound of the
neighbouring order statistics. What float32 does to the model's own numbers is added: ``err``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from tests.reference.values import DISCRETE, Array

QUANTILE_ERROR = 0.01
"""The largest relative error that a quantile may have; a result says its own, which is smaller."""

FEATURE_BY_FEATURE = ("cov", "corr", "gram")
EXTRA = {"quantile": "quantile", "hist": "bin", "top": "top", "bottom": "top"}


@frozen(eq=False)
class Expected:
    """What one variable must be for one site and one group."""

    low: Array
    high: Array
    dims: tuple[str, ...]
    cumulative: bool = False
    """Whether the bounds are of the running sum along the last axis: a histogram's."""
    rows: Ranked | None = None
    """What `top` chose from."""


@frozen(eq=False)
class Ranked:
    """The rows of `top` and `bottom`: values (n, *axes), their errors, and where each was."""

    values: Array
    err: Array
    places: Sequence[tuple[int, int, int, int]]
    """(sample, chunk, position, token id), in the order of the data."""
    k: int
    largest: bool


def expected(
    name: str,
    parameters: Mapping[str, Any],
    values: Array,
    err: Array,
    dims: tuple[str, ...],
    places: Sequence[tuple[int, int, int, int]] = (),
) -> Expected:
    """A statistic of rows ``values`` (n, *axes), where ``dims`` names the axes."""
    if name in ("top", "bottom"):
        ranked = Ranked(values, err, places, parameters["k"], name == "top")
        empty = np.zeros(0)
        return Expected(empty, empty, (*dims, "top"), rows=ranked)
    with np.errstate(all="ignore"):
        if name in FEATURE_BY_FEATURE:
            low, high = _matrix(name, values, err, parameters)
            return Expected(low, high, (*dims, f"{dims[-1]}_2"))
        if not len(values) and name != "hist":
            shape = values.shape[1:] + ((len(parameters["q"]),) if name == "quantile" else ())
            low = high = np.full(shape, np.nan)
        else:
            low, high = _FORMULAS[name](values, err, **parameters)
        unknown = np.isinf(err).any(0)
        while unknown.ndim < low.ndim:
            unknown = unknown[..., None]
        low, high = np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high)
    dims += (EXTRA[name],) if name in EXTRA else ()
    return Expected(low, high, dims, name == "hist")


def _margin(values: Array, err: Array) -> Array:
    """How far the mean may be: 1e-5 of the standard deviation, or what float32 resolves."""
    return np.maximum(1e-5 * values.std(0), err.mean(0)) + 1e-13 * np.abs(values).max(0)


def _about(center: Array, margin: Array) -> tuple[Array, Array]:
    margin = np.where(np.isfinite(margin) | ~np.isfinite(center), margin, np.inf)
    margin = np.where(np.isfinite(center), margin, 0.0)
    return center - margin, center + margin


def _mean(values: Array, err: Array) -> tuple[Array, Array]:
    return _about(values.mean(0), _margin(values, err))


def _sum(values: Array, err: Array) -> tuple[Array, Array]:
    return _about(values.sum(0), len(values) * _margin(values, err))


def _spread(values: Array, err: Array) -> Array:
    """How far the standard deviation may be."""
    return np.maximum(_margin(values, err), np.sqrt((err**2).mean(0)))


def _var(values: Array, err: Array, ddof: float = 0) -> tuple[Array, Array]:
    if len(values) <= ddof:
        nan = np.full(values.shape[1:], np.nan)
        return nan, nan
    bessel = len(values) / (len(values) - ddof)
    margin = _spread(values, err)
    return _about(values.var(0) * bessel, (2 * values.std(0) * margin + margin**2) * bessel)


def _std(values: Array, err: Array, ddof: float = 0) -> tuple[Array, Array]:
    if len(values) <= ddof:
        return _var(values, err, ddof)
    bessel = math.sqrt(len(values) / (len(values) - ddof))
    low, high = _about(values.std(0) * bessel, _spread(values, err) * bessel)
    return np.maximum(low, np.where(np.isnan(low), low, 0.0)), high


def _rms(values: Array, err: Array) -> tuple[Array, Array]:
    return _about(np.sqrt((values**2).mean(0)), _spread(values, err))


def _extreme(choose: Callable[..., Array]) -> Callable[[Array, Array], tuple[Array, Array]]:
    def formula(values: Array, err: Array) -> tuple[Array, Array]:
        finite = np.abs(values[np.isfinite(values)])
        largest = finite.max() if finite.size else 0.0
        return _about(choose(values, axis=0), np.maximum(1e-5 * largest, err.max(0)))

    return formula


def _standardised(power: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    """The third or fourth moment of (x - mean) / std, of the population; kurtosis less 3."""

    def formula(values: Array, err: Array) -> tuple[Array, Array]:
        std = values.std(0)
        z = (values - values.mean(0)) / std
        relative = _spread(values, err) / std
        margin = 10 * relative * (1 + (np.abs(z) ** power).mean(0)) + 1e-9
        low, high = _about((z**power).mean(0) - (3 if power == 4 else 0), margin)
        # Rows that differ by noise alone have no shape.
        noise = (relative > 0.05) | (std <= 1e-12 * np.abs(values).max(0)) & (std > 0)
        return np.where(noise, -np.inf, low), np.where(noise, np.inf, high)

    return formula


def _quantile(values: Array, err: Array, q: Sequence[float]) -> tuple[Array, Array]:
    ordered = np.sort(values, 0)
    slack = DISCRETE * err.max(0)
    lows, highs = [], []
    for one in q:
        place = one * (len(values) - 1)
        # 2.0000000000000004 is 2: 0.1 * 20 is none of the page's concern.
        place = round(place) if abs(place - round(place)) < 1e-9 else place
        below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
        lows.append(below - QUANTILE_ERROR * np.abs(below) - slack)
        highs.append(above + QUANTILE_ERROR * np.abs(above) + slack)
    low, high = np.stack(lows, -1), np.stack(highs, -1)
    odd = ~np.isfinite(values).all(0)[..., None]
    return np.where(odd, -np.inf, low), np.where(odd, np.inf, high)


def _median(values: Array, err: Array) -> tuple[Array, Array]:
    low, high = _quantile(values, err, (0.5,))
    return low[..., 0], high[..., 0]


def _hist(values: Array, err: Array, bins: int, lo: float, hi: float) -> tuple[Array, Array]:
    """Bounds of the running sum: below ``lo``, the bins, and from ``hi`` on."""
    edges = lo + (hi - lo) * np.arange(bins + 1) / bins
    slack = DISCRETE * err
    # What lies on an edge within rounding may fall on either side.
    slack = slack + np.where(err > 0, 0.0, 1e-12 * np.abs(values))
    least = [(values < edge - slack).sum(0) for edge in edges]
    most = [(values <= edge + slack).sum(0) for edge in edges]
    # A NaN falls into no bin.
    whole = [(~np.isnan(values)).sum(0)]
    return np.stack([*least, *whole], -1) * 1.0, np.stack([*most, *whole], -1) * 1.0


def _matrix(
    name: str, values: Array, err: Array, parameters: Mapping[str, Any]
) -> tuple[Array, Array]:
    """Feature by feature along the last axis: (*axes, feature, feature_2)."""
    n, shape = len(values), (*values.shape[1:], values.shape[-1])
    ddof = parameters.get("ddof", 0)
    if not n or (name == "cov" and n <= ddof):
        nan = np.full(shape, np.nan)
        return nan, nan
    if name == "gram":
        centre, margin = values, np.maximum(_spread(values, err), 1e-5 * values.std(0))
        size = np.sqrt((values**2).mean(0))
    else:
        centre, margin, size = values - values.mean(0), _spread(values, err), values.std(0)
    product = np.einsum("n...i,n...j->...ij", centre, centre)
    slack = _outer(margin, size) + _outer(size, margin) + _outer(margin, margin)
    if name == "cov":
        return _about(product / (n - ddof), slack * n / (n - ddof))
    if name == "gram":
        return _about(product, n * slack)
    scale = _outer(size, size)
    relative = margin / size
    low, high = _about(product / n / scale, slack / scale + 1e-12)
    noise = (relative > 0.05) | (size <= 1e-12 * np.abs(values).max(0)) & (size > 0)
    noise = noise[..., :, None] | noise[..., None, :]
    return np.where(noise, -np.inf, low), np.where(noise, np.inf, high)


def _outer(a: Array, b: Array) -> Array:
    return np.asarray(a[..., :, None] * b[..., None, :])


_FORMULAS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "std": _std,
    "rms": _rms,
    "min": _extreme(np.min),
    "max": _extreme(np.max),
    "skew": _standardised(3),
    "kurtosis": _standardised(4),
    "median": _median,
    "quantile": _quantile,
    "hist": _hist,
}
NAMES = ("count", *_FORMULAS, "top", "bottom", *FEATURE_BY_FEATURE)
