"""Two results of one query: exactly the same counts, labels and places, and numbers but for noise.

A number may differ by a share of its feature's standard deviation, where the result has that, or
of the largest number of all. In a ranking, rows of values nearer than that may change places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray

TOLERANCE = 1e-5
"""In standard deviations; where there is none, of the largest number."""

_EPS = {"float64": 2.0**-52, "float32": 2.0**-23}
_LIKE_STD = ("mean", "std", "rms", "min", "max", "median", "quantile")
_OF_NOISE = ("skew", "kurtosis", "corr")
"""They divide by the standard deviation: where that is noise, so are they."""

Array = np.ndarray[Any, Any]


def agree(
    one: xarray.DataTree,
    other: xarray.DataTree,
    tolerance: float = TOLERANCE,
    zero: float = 0.0,
    wider: xarray.DataTree | None = None,
) -> None:
    """Hold every variable of every node to its twin.

    What is below ``zero`` is noise. ``wider`` is ``other`` with rankings of larger k: it says who
    else could stand in the last ranks.
    """
    assert [n.path for n in other.subtree] == [n.path for n in one.subtree]
    for node in one.subtree:
        twin = other[node.path]
        assert isinstance(twin, xarray.DataTree)
        assert list(twin.data_vars) == list(node.data_vars)
        assert set(twin.coords) == set(node.coords)
        for key in ("tokens_kept", "tokens_undefined"):
            assert twin.attrs.get(key) == node.attrs.get(key), key
        ranked = {str(v) for v in node.data_vars if _labels(node, str(v))}
        apart = {name for v in ranked for name in (v, *_labels(node, v))}
        for name in sorted(map(str, {*node.coords, *node.data_vars} - apart)):
            a, b = node[name].values, twin[name].values
            assert b.shape == a.shape, name
            if a.dtype.kind == "f" and name not in node.coords:
                _near(name, a, b, allowed(node, name, tolerance, zero), _certain(node, name, zero))
            else:
                same = (a == b) | ((a != a) & (b != b))
                assert same.all(), f"{name}:\n{a[~same][:9]}\n{b[~same][:9]}"
        for name in sorted(ranked):
            broad = None if wider is None else wider[node.path]
            _rankings(name, node, twin, broad, allowed(node, name, tolerance, zero))


def allowed(node: Any, name: str, tolerance: float, zero: float) -> Array:
    """How far each number of a variable may be from its twin."""
    data = node[name]
    finite = np.where(np.isfinite(data.values), np.abs(data.values), 0)
    largest = finite.max(initial=0)
    std, statistic = _std(node, name), data.attrs.get("statistic")
    if std is None or statistic not in (*_LIKE_STD, "sum", "var"):
        floor = 1.0 if statistic in _OF_NOISE else 0.0
        return np.full(data.shape, max(tolerance * max(largest, floor), zero))
    factor: Any = 1.0
    if statistic == "sum":
        own = f"{name}_count"
        factor = node[own if own in node else "count"]
    if statistic == "var":
        factor = 2 * std
    by = (tolerance * std * factor).broadcast_like(data).transpose(*data.dims).values
    resolved = 64 * _EPS.get(str(node.root.attrs.get("dtype")), _EPS["float32"]) * largest
    return np.maximum(np.nan_to_num(by, posinf=0), max(resolved, zero))


def _std(node: Any, name: str) -> Any:
    """The standard deviation of what a variable is of, if the result has it."""
    data = node[name]
    for each in node.data_vars.values():
        about = each.attrs
        same = about.get("expression") == data.attrs.get("expression")
        biased = "ddof=0" in about.get("cell_methods", "")
        if about.get("statistic") == "std" and same and biased and set(each.dims) <= set(data.dims):
            return each
    return None


def _certain(node: Any, name: str, zero: float) -> Array | bool:
    """Where a number says more than noise; all that do not divide by a spread do."""
    data, std = node[name], _std(node, name)
    if data.attrs.get("statistic") not in _OF_NOISE or std is None:
        return True
    varies = std > max(1e-5 * float(np.nan_to_num(np.abs(std.values)).max(initial=0)), 1e5 * zero)
    if data.attrs["statistic"] == "corr":
        (second,) = [dim for dim in data.dims if dim not in std.dims]
        varies = varies & varies.rename({std.dims[-1]: second})
    return np.asarray(varies.broadcast_like(data).transpose(*data.dims).values)


def _near(name: str, a: Array, b: Array, atol: Array, certain: Array | bool) -> None:
    with np.errstate(invalid="ignore"):
        fine = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= atol)
    wrong = ~(fine | ~np.asarray(certain))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{name}{list(place)}: {a[place]:.17g}, not {b[place]:.17g} by {atol[place]:.2g};"
            f" {int(wrong.sum())} of {wrong.size} differ"
        )


# --- rankings -------------------------------------------------------------------------------------


def _labels(node: Any, name: str) -> list[str]:
    """The variables that say where the values of a ranking stand."""
    about = node[name].attrs
    if about.get("statistic") not in ("top", "bottom"):
        return []
    own = str(about["ancillary_variables"]).split()
    return [each for each in own if each != f"{name}_count"]


def _rankings(name: str, one: Any, other: Any, wider: Any, atol: Array) -> None:
    (axis,) = [n for n, dim in enumerate(one[name].dims) if str(dim).startswith("top")]
    a, b = _ranked(one, name, axis), _ranked(other, name, axis)
    more = b if wider is None else _ranked(wider, name, axis)
    by = np.moveaxis(atol, axis, -1)
    for place in np.ndindex(a[0].shape[:-1]):
        mine, theirs, all_of = ([part[place] for part in each] for each in (a, b, more))
        _one_ranking(f"{name}{list(place)}", mine, theirs, all_of, 2 * float(by[place][0]))


def _ranked(node: Any, name: str, axis: int) -> list[Array]:
    """The values, and each label, with the ranks last."""
    return [np.moveaxis(node[each].values, axis, -1) for each in (name, *_labels(node, name))]


def _one_ranking(
    at: str, a: list[Array], b: list[Array], more: list[Array], tolerance: float
) -> None:
    """The same values in order; between any two that are further apart, the same rows."""
    _near(at, a[0], b[0], np.full(a[0].shape, tolerance), True)
    there = int(np.sum(~np.isnan(b[0])))
    mine, theirs = _rows(a), _rows(b)
    assert mine[there:] == theirs[there:], at
    assert len(set(mine[:there])) == there, f"{at}: a row stands in two ranks: {mine}"
    start = 0
    for stop in range(1, there + 1):
        if stop < there and _tied(b[0][stop - 1], b[0][stop], tolerance):
            continue
        if stop < len(b[0]):
            assert sorted(mine[start:stop]) == sorted(theirs[start:stop]), f"{at}, ranks {start}"
        else:  # others may be as good as these
            good = [_tied(value, b[0][stop - 1], tolerance * (stop - start)) for value in more[0]]
            possible = {row for row, fine in zip(_rows(more), good, strict=True) if fine}
            possible |= set(theirs[start:stop])
            assert set(mine[start:stop]) <= possible, f"{at}, ranks {start}: {mine} {theirs}"
        start = stop


def _tied(one: float, other: float, tolerance: float) -> bool:
    return bool(one == other) or bool(abs(one - other) <= tolerance)


def _rows(ranked: list[Array]) -> list[tuple[Any, ...]]:
    return list(zip(*(part.tolist() for part in ranked[1:]), strict=True))
