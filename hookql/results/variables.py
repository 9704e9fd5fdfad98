"""One statistic of one dataset: its main variable, and those that say more about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from attrs import frozen

from hookql.language.formatter import format_expression
from hookql.language.specs import made_by
from hookql.results.attributes import clean, plain_text
from hookql.results.dimensions import Dimensions
from hookql.results.groups import Product, assembled, texts_array
from hookql.results.spool import mapped
from hookql.statistics import STATISTICS, Statistic

if TYPE_CHECKING:
    from hookql.language.query import StatisticSpec
    from hookql.results.captured import CaptureResult, SiteResult

    Array = np.ndarray[Any, Any]

PLACES = {
    "sample": "sample in which the value stands, -1 where there is none",
    "position": "position at which the value stands, -1 where there is none",
    "chunk": "chunk of the sample in which the value stands, -1 where there is none",
    "token": "id of the token that was run, -1 where there is none",
}


@frozen(eq=False)
class Part:
    """A dataset in the making: sites of one role that are alike, in the order of their layers."""

    capture: CaptureResult
    sites: Sequence[SiteResult]
    groups: Product | None
    dimensions: Dimensions

    @property
    def layered(self) -> bool:
        """Whether the sites are layers, and not a single one without."""
        return self.sites[0].layer is not None


def statistic_variables(part: Part, spec: StatisticSpec) -> dict[str, xarray.Variable]:
    """A statistic's numbers of all sites, float64; counts, places and ids are int64.

    Beside the main variable: ``_sample``, ``_position``, ``_chunk`` (where samples were split),
    ``_token`` and ``_text`` of a ranking, and ``_count`` where fewer rows than the capture's were
    taken in.
    """
    if spec.name == "count":
        return {spec.variable: count(part, attributes=_attributes(part, spec))}
    statistic = STATISTICS[spec.name]
    if statistic.raw:
        return {spec.variable: _raw(part, spec)}
    found = {spec.variable: _labelled(part, spec, statistic, spec.variable)}
    for name in companions(part.sites, spec):
        suffix = name[len(spec.variable) + 1 :]
        variable = _labelled(part, spec, statistic, name)
        if suffix == "chunk" and mapped(variable.data) is None and not np.any(variable.values > 0):
            continue  # no sample was split
        variable.attrs = {"long_name": PLACES.get(suffix, f"{suffix} of {spec.variable}")}
        found[name] = variable
        if suffix == "token" and (texts := _texts(part, variable)) is not None:
            found[f"{spec.variable}_text"] = texts
    if any(spec.variable in site.counts for site in part.sites):
        found[f"{spec.variable}_count"] = count(part, spec.variable)
    main = found[spec.variable]
    main.attrs = _attributes(part, spec)
    if len(found) > 1:
        main.attrs["ancillary_variables"] = " ".join(list(found)[1:])
    return found


def companions(sites: Sequence[SiteResult], spec: StatisticSpec) -> list[str]:
    """The names of a statistic's other arrays, such as ``top_sample``."""
    names = made_by(spec, STATISTICS[spec.name])[1:]
    return [name for name in names if any(name in site.variables for site in sites)]


def own_axes(
    site: SiteResult, spec: StatisticSpec, grouped: bool, name: str | None = None
) -> list[tuple[str, int]]:
    """A variable's own axes with their sizes: behind calls and groups, before the statistic's."""
    name = name or spec.variable
    statistic = STATISTICS[spec.name]
    shape = np.shape(site.variables[name if name in site.variables else spec.variable])[
        int(site.calls > 1) + (grouped or statistic.raw) :
    ]
    room = len(shape) - len(statistic.dims)
    axes = site.variable_axes.get(name, site.variable_axes.get(spec.variable))
    if axes is None:
        axes = site.axes if room else ()
    if room != len(axes):
        raise ValueError(f"{name} of {site.module}: axes {axes} do not fit {shape}")
    return list(zip(axes, shape, strict=False))


def count(
    part: Part, of: str | None = None, attributes: Mapping[str, Any] | None = None
) -> xarray.Variable:
    """The rows kept, or those that one statistic took in; by layer too if these differ."""
    numbers = [
        np.asarray(site.count if of is None else site.counts.get(of, site.count), np.int64)
        for site in part.sites
    ]
    differ = part.layered and any(not np.array_equal(numbers[0], n) for n in numbers)
    along = part.layered and (differ or part.capture.own or attributes is not None)
    values = assembled(
        numbers if along else numbers[:1],
        layered=along,
        calls=False,
        groups=part.groups,
        fill=0,
        name=of or "count",
    )
    what = "number of tokens kept" if of is None else f"number of tokens that {of} took in"
    dims = (("layer",) if along else ()) + _group_dims(part)
    return xarray.Variable(dims, values, attributes or {"long_name": what, "units": "1"})


def _group_dims(part: Part) -> tuple[str, ...]:
    return () if part.groups is None else part.groups.dims


def _labelled(part: Part, spec: StatisticSpec, statistic: Statistic, name: str) -> xarray.Variable:
    """One variable of all sites with its dimensions, not yet with its attributes."""
    first = part.sites[0]
    arrays = [_numbers(_array(site, spec, name)) for site in part.sites]
    calls = first.calls > 1
    own = own_axes(first, spec, part.groups is not None, name)
    extra = arrays[0].shape[arrays[0].ndim - len(statistic.dims) :]
    dims = [
        *(["layer"] if part.layered else []),
        *(["call"] if calls else []),
        *_group_dims(part),
        *_own_dims(part, spec, statistic, own, extra),
    ]
    fill = np.nan if arrays[0].dtype.kind == "f" else 0 if name == spec.variable else -1
    values = assembled(
        arrays, layered=part.layered, calls=calls, groups=part.groups, fill=fill, name=name
    )
    return xarray.Variable(dims, values)


def _raw(part: Part, spec: StatisticSpec) -> xarray.Variable:
    """The place of the rows of all sites, ([layer,] [call,] obs, \\*axes): they lie on the disk."""
    first = part.sites[0]
    array = np.asanyarray(first.variables[spec.variable])
    layers = {"layer": len(part.sites)} if part.layered else {}
    calls = {"call": first.calls} if first.calls > 1 else {}
    own = own_axes(first, spec, grouped=False)
    dims = [*layers, *calls, "obs", *_own_dims(part, spec, STATISTICS[spec.name], own, ())]
    values = np.broadcast_to(array.dtype.type(0), (*layers.values(), *array.shape))
    attributes = _attributes(part, spec)
    return xarray.Variable(dims, values, attributes)


LABELS = {
    "position": "position of the row's token in its context",
    "token_id": "id of the row's token, -1 where the inputs are no tokens",
    "chunk": "number of the row's context within its sample",
}


def raw_labels(part: Part) -> dict[str, xarray.Variable]:
    """What says of raw rows where they are from: a CF contiguous ragged array, by sample."""
    rows = np.broadcast_to(np.int32(0), (int(np.max(part.sites[0].count)),))
    labels = {
        name: xarray.Variable("obs", rows, {"long_name": said}) for name, said in LABELS.items()
    }
    sizes = np.broadcast_to(np.int64(0), (part.capture.samples,))
    said = {"long_name": "number of rows of the sample", "sample_dimension": "obs"}
    return {**labels, "row_size": xarray.Variable("sample", sizes, said)}


def _own_dims(
    part: Part,
    spec: StatisticSpec,
    statistic: Statistic,
    axes: Sequence[tuple[str, int]],
    extra: Sequence[int],
) -> list[str]:
    """The names of the axes and of the statistic's own dimensions, with coordinates taken in."""
    labels = axis_labels(part.sites[0], spec.variable)
    named = part.dimensions.named
    dims = []
    for axis, size in axes:
        given = {axis: labels[axis]} if axis in labels and len(labels[axis]) == size else {}
        dims.append(named(axis, size, given, spec.variable))
    coordinates = statistic.coordinates(**spec.parameters)
    for dim, size in zip(statistic.dims, extra, strict=True):
        along = {name: np.asarray(at) for name, (of, at) in coordinates.items() if of == dim}
        if dim == "feature_2" and axes:  # the same features once more
            axis = axes[-1][0]
            dim = f"{axis}_2"
            if axis in labels and len(labels[axis]) == size:
                along = {dim: labels[axis]}
        dims.append(named(dim, size, along, spec.variable))
    return dims


def axis_labels(site: SiteResult, variable: str) -> Mapping[str, Array]:
    """The labels of a variable's axes, where they are not 0, 1, 2, ..."""
    return {**site.coordinates, **site.variable_coordinates.get(variable, {})}


def _array(site: SiteResult, spec: StatisticSpec, name: str) -> Array:
    """A variable of one site; where none of its samples was split, the chunks are 0."""
    if name in site.variables or name != f"{spec.variable}_chunk":
        return site.variables[name]
    return np.where(np.asarray(site.variables[f"{spec.variable}_sample"]) < 0, -1, 0)


def _numbers(values: Array) -> Array:
    """float64 or int64; what is mapped from disk stays as it is."""
    array = np.asanyarray(values)
    if mapped(array) is not None:
        return array
    return array.astype(np.int64 if array.dtype.kind in "iub" else np.float64, copy=False)


def _texts(part: Part, tokens: xarray.Variable) -> xarray.Variable | None:
    """What tokens spell, "" where there is none; None where nobody knows, or on disk."""
    spelled = part.capture.token_text
    if spelled is None or mapped(tokens.data) is not None:
        return None
    ids, places = np.unique(tokens.values, return_inverse=True)
    known = ids >= 0
    texts = iter(spelled(ids[known].tolist()))
    table = texts_array([plain_text(next(texts)) if there else "" for there in known])
    attributes = {"long_name": "text of the token that was run"}
    return xarray.Variable(tokens.dims, table[places].reshape(tokens.shape), attributes)


def _attributes(part: Part, spec: StatisticSpec) -> dict[str, Any]:
    """What a variable is: in words, for CF, and in the query's terms."""
    statistic = STATISTICS[spec.name]
    said = [f"{name}={_given(value)}" for name, value in spec.parameters.items()]
    if part.capture.keys:
        said.append(f"by {', '.join(key.name for key in part.capture.keys)}")
    comment = f" (comment: {'; '.join(said)})" if said else ""
    # CF reads: over tokens, and over what was pooled with them, this was computed.
    over = " ".join(f"{dim}:" for dim in ("token", *sorted(part.capture.pool)))
    of = format_expression(spec.value)
    expression = {} if spec.name == "count" or of == "x" else {"expression": of}
    return {
        "long_name": _said(statistic),
        "cell_methods": f"{over} {statistic.cell_method}{comment}",
        "statistic": spec.name,
        **clean(expression),
        **clean(statistic.attributes(**spec.parameters)),
    }


def _said(statistic: Statistic) -> str:
    """The first words of what a statistic is; its name where nobody says."""
    first = statistic.doc.split(";")[0].strip().partition("\n")[0]
    return first.replace("``", "").rstrip(".") or statistic.name


def _given(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_given, value))})"
    return f"{value:.15g}" if isinstance(value, int | float) else str(value)
