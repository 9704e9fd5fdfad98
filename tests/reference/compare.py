"""A result of the engine against the reference: the first disagreement, in words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray

from tests.reference.captures import CaptureExpected, Key, SiteExpected
from tests.reference.formulas import QUANTILE_ERROR, Expected, Ranked
from tests.reference.values import DISCRETE, Array


class Disagreement(AssertionError):
    """What differs, and where."""


def compare(tree: xarray.DataTree, captures: Sequence[CaptureExpected]) -> None:
    """Raises `Disagreement` where a result is not what the reference says."""
    for capture in captures:
        found = _datasets(tree, capture, len(captures))
        _check(f"{capture.name}: sites", sorted(found), sorted(_sites(capture)))
        _keys(capture, found)
        for place, data in found.items():
            _site(data, _sites(capture)[place], capture)


Place = tuple[str, int]


def _sites(capture: CaptureExpected) -> dict[Place, SiteExpected]:
    return {(s.role, -1 if s.layer is None else s.layer): s for s in capture.sites}


def _datasets(
    tree: xarray.DataTree, capture: CaptureExpected, captures: int
) -> dict[Place, xarray.Dataset]:
    """A dataset for each role and layer."""
    node = tree if captures == 1 else tree[capture.name]
    if "tokens_undefined" in node.attrs and capture.undefined is not None:
        undefined = int(node.attrs["tokens_undefined"])
        _check(f"{capture.name}: tokens_undefined", undefined, capture.undefined)
    whole = [n.to_dataset() for n in node.subtree if n.data_vars]
    found: dict[Place, xarray.Dataset] = {}
    for data in whole:
        role = data.attrs["role"]
        if "layer" not in data.dims:
            found[role, -1] = data
            continue
        for number, layer in enumerate(data["layer"].values):
            found[role, int(layer)] = data.isel(layer=number)
    return found


def _keys(capture: CaptureExpected, found: Mapping[Place, xarray.Dataset]) -> None:
    """Only values of keys that occur are stored, and all that do."""
    for number, name in enumerate(capture.keys):
        occurs = {key[number] for site in capture.sites for key in site.count}
        for (role, _), data in found.items():
            stored = {_plain(value) for value in data[name].values}
            here = {k[number] for s in capture.sites if s.role == role for k in s.count}
            if not here <= stored <= occurs:
                raise Disagreement(
                    f"{capture.name}: `{name}` of {role} is {stored}, of which {occurs} occur"
                )


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _site(data: xarray.Dataset, site: SiteExpected, capture: CaptureExpected) -> None:
    where = f"{capture.name}, {site.role}, layer {site.layer}"
    if site.module is not None and site.role == _role(site.module):
        _check(f"{where}: module", str(data["module"].values), site.module)
    coordinates = [[_plain(v) for v in data[key].values] for key in capture.keys]
    for places in itertools.product(*(range(len(values)) for values in coordinates)):
        key = tuple(values[at] for values, at in zip(coordinates, places, strict=True))
        one = data.isel(dict(zip(capture.keys, places, strict=True)))
        shown = ", ".join(f"{n} {v!r}" for n, v in zip(capture.keys, key, strict=True))
        _group(one, site, key, f"{where}, {shown}" if shown else where)


def _role(module: str) -> str:
    """The role of a path, so that canonical sites, which have another, need no known module."""
    parts = module.split(".")
    digits = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: digits[0]] + parts[digits[0] + 1 :]) if digits else module


def _group(data: xarray.Dataset, site: SiteExpected, key: Key, where: str) -> None:
    count = site.count.get(key, 0)
    if "count" in data:
        _check(f"{where}: count", int(data["count"]), count)
    for variable, expected in site.variables.items():
        at = f"{where}: {variable}"
        rows = site.counts[variable].get(key, 0)
        own = f"{variable}_count"
        _check(f"{at}: rows", int(data[own] if own in data else data["count"]), rows)
        if variable not in data:
            raise Disagreement(f"{at}: missing among {list(data.data_vars)}")
        array = data[variable]
        if key in expected:
            one = expected[key]
            array = _ordered(array, one.dims, variable, at)
            if one.rows is not None:
                _ranking(data, array, variable, one, at)
            else:
                _bounds(array.values, one, at)
        elif not np.all(np.isnan(array.values) | (array.values == 0)):
            raise Disagreement(f"{at}: nothing fell here, and it is {array.values.ravel()[:5]}")


def _ordered(
    array: xarray.DataArray, dims: Sequence[str], variable: str, at: str
) -> xarray.DataArray:
    """The array with its axes in that order; a name may have the variable's behind it."""
    names = []
    for dim in dims:
        known = [d for d in (f"{dim}_{variable}", dim) if d in array.dims]
        # An equal dimension of another variable's is shared with it.
        shared = [str(d) for d in array.dims if str(d).startswith(f"{dim}_") and d not in dims]
        known += shared
        names.append(known[0] if known else dim)
    if set(names) != set(array.dims):
        raise Disagreement(f"{at}: dimensions {array.dims}, not {tuple(dims)}")
    return array.transpose(*names)


def _bounds(got: Array, expected: Expected, at: str) -> None:
    low, high = expected.low, expected.high
    if "key" in expected.dims:
        # Beyond the longest context nothing fell.
        axis = expected.dims.index("key")
        behind = np.take(got, range(low.shape[axis], max(got.shape[axis], low.shape[axis])), axis)
        if not np.all(np.isnan(behind) | (behind == 0)):
            raise Disagreement(f"{at}: keys that no query sees")
        got = np.take(got, range(min(got.shape[axis], low.shape[axis])), axis)
    if got.shape != low.shape and not expected.cumulative:
        raise Disagreement(f"{at}: shape {got.shape}, not {low.shape}")
    if expected.cumulative:
        got = np.cumsum(got, -1)
        if got.shape != low.shape:
            raise Disagreement(f"{at}: shape {got.shape}, not {low.shape}")
    fine = (np.isnan(low) & np.isnan(got)) | ((low <= got) & (got <= high))
    fine |= np.isneginf(low) & np.isposinf(high)
    if not fine.all():
        place = tuple(int(i) for i in np.argwhere(~fine)[0])
        raise Disagreement(
            f"{at}{list(place) if place else ''}: {got[place]:.17g} is not in"
            f" [{low[place]:.17g}, {high[place]:.17g}]; {int((~fine).sum())} of {fine.size} differ"
        )


def _ranking(
    data: xarray.Dataset, array: xarray.DataArray, variable: str, one: Expected, at: str
) -> None:
    """The k greatest with their places; any order among those nearer than the margins."""
    ranked = one.rows
    assert ranked is not None
    places = {}
    for part in ("sample", "position", "token", "chunk"):
        if f"{variable}_{part}" in data:
            places[part] = _ordered(data[f"{variable}_{part}"], one.dims, variable, at).values
        elif part != "chunk":
            raise Disagreement(f"{at}: there is no {variable}_{part}")
    for index in np.ndindex(*ranked.values.shape[1:]):
        got = array.values[index]
        mine = {part: values[index] for part, values in places.items()}
        _one_ranking(got, mine, ranked, index, f"{at}{list(index) if index else ''}")


def _one_ranking(
    got: Array, places: Mapping[str, Array], ranked: Ranked, index: tuple[int, ...], at: str
) -> None:
    values, err = ranked.values[:, *index], ranked.err[:, *index]
    if not np.isfinite(err).all():
        return
    sign = -1.0 if ranked.largest else 1.0
    # A NaN does not rank.
    rows = [i for i in range(len(values)) if not np.isnan(values[i])]
    order = sorted(rows, key=lambda i: (sign * values[i], ranked.places[i][:3]))
    size = np.where(np.isfinite(values), np.abs(values), 0.0)
    margin = np.maximum(1e-5 * size.max(initial=0), DISCRETE * err) * (err > 0) + 1e-12 * size
    seen = set()
    for rank, value in enumerate(got):
        if rank >= len(order):
            if not np.isnan(value) or places["sample"][rank] != -1:
                raise Disagreement(f"{at}: rank {rank} of {len(order)} rows is {value}")
            continue
        best = order[rank]
        if value != values[best] and not abs(value - values[best]) <= margin[best]:
            raise Disagreement(f"{at}: rank {rank} is {value:.17g}, not {values[best]:.17g}")
        place = tuple(int(places[part][rank]) for part in ("sample", "position", "token"))
        chunk = int(places["chunk"][rank]) if "chunk" in places else None
        # Where a value is alone, or exact, its place is certain.
        rivals = [
            i
            for i in order
            if i == best
            or (
                err[best] + err[i] > 0 and abs(values[i] - values[best]) <= margin[best] + margin[i]
            )
        ]
        possible = [
            i
            for i in rivals
            if (p := ranked.places[i])[0::2] + p[3:] == (place[0], place[1], place[2])
            and chunk in (None, p[1])
            and i not in seen
        ]
        if not possible:
            certain = [ranked.places[i] for i in rivals]
            raise Disagreement(
                f"{at}: rank {rank} stands at {place} (sample, position, token), not at one of"
                f" {certain[:4]} (sample, chunk, position, token)"
            )
        seen.add(possible[0])


def _check(what: str, got: Any, expected: Any) -> None:
    if got != expected:
        raise Disagreement(f"{what}: {got}, not {expected}")


def quantile_error_told(tree: xarray.DataTree) -> None:
    """Each quantile says how far it may be off, and that is within what is held it to."""
    for node in tree.subtree:
        for variable in node.data_vars.values():
            if variable.attrs.get("statistic") in ("quantile", "median"):
                told = [v for k, v in variable.attrs.items() if "error" in k]
                if not told or not 0 < float(told[0]) <= QUANTILE_ERROR:
                    raise Disagreement(f"{variable.name} tells its error as {told}")
