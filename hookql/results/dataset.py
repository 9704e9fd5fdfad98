"""One role of one capture as a dataset: dimensions (layer, call, groups, axes), coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from hookql.language.specs import made_by
from hookql.models.names import compact
from hookql.results.attributes import clean, plain_text
from hookql.results.dimensions import Dimensions
from hookql.results.groups import Product
from hookql.results.variables import (
    LABELS,
    Part,
    axis_labels,
    count,
    own_axes,
    raw_labels,
    statistic_variables,
)
from hookql.statistics import STATISTICS

if TYPE_CHECKING:
    from hookql.results.captured import CaptureResult, SiteResult

    Array = np.ndarray[Any, Any]

FAULTS = ("nonfinite", "first_nonfinite_sample", "first_nonfinite_position")


def dataset(
    capture: CaptureResult, sites: Sequence[SiteResult], groups: Product | None = None
) -> xarray.Dataset:
    """The sites of one role, alike in shape: all with a layer, or one without.

    ``groups`` is the product of the capture's keys, None where it has none.
    """
    sites = sorted(sites, key=lambda site: site.layer or 0)
    along = groups.coordinates if groups is not None else {}
    part = Part(capture, sites, groups, Dimensions({*names_in(capture), *along}))
    variables = [
        statistic_variables(part, spec)
        for spec in capture.statistics
        if (spec.name, spec.variable) != ("count", "count")
    ]
    raw = has_raw(capture)
    variables += [{"count": count(part)}, _faults(sites, part.layered)]
    variables += [raw_labels(part)] if raw else []
    attributes: dict[str, object] = {"role": sites[0].role or "model"}
    if groups is not None:
        attributes["by"] = ", ".join(groups.dims)
    if not part.layered and not isinstance(sites[0].module, str):
        attributes["modules"] = compact(sites[0].module)
    coordinates = (part.dimensions.coordinates, along, _modules(sites, part.layered))
    _check_names(variables, coordinates)
    data = xarray.Dataset(_joined(variables), _joined(coordinates), clean(attributes))
    return data.set_coords(list(LABELS)) if raw else data


def has_raw(capture: CaptureResult) -> bool:
    """Whether a capture keeps rows as they are."""
    return any(STATISTICS[spec.name].raw for spec in capture.statistics)


def names_in(capture: CaptureResult) -> set[str]:
    """The names that a dataset of a capture may use, but for its keys and its axes."""
    made = (made_by(spec, STATISTICS[spec.name]) for spec in capture.statistics)
    return {"count", "layer", "call", "module", *FAULTS}.union(*made)


def _joined(parts: Sequence[Mapping[str, xarray.Variable]]) -> dict[str, xarray.Variable]:
    return {name: variable for part in parts for name, variable in part.items()}


def _check_names(
    variables: Sequence[Mapping[str, xarray.Variable]],
    coordinates: Sequence[Mapping[str, xarray.Variable]],
) -> None:
    """One name, one thing: xarray would keep the last one and say nothing.

    The language refuses every query that could come to this.
    """
    names = [name for part in (*variables, *coordinates) for name in part]
    dims = {dim for part in (*variables, *coordinates) for at in part.values() for dim in at.dims}
    twice = {name for name in names if names.count(name) > 1}
    twice |= {name for part in variables for name in part if name in dims}
    twice |= {n for part in coordinates for n, at in part.items() if n in dims and at.dims != (n,)}
    if twice:
        raise ValueError(f"two parts of a result have one name: {', '.join(sorted(twice))}")


def _modules(sites: Sequence[SiteResult], layered: bool) -> dict[str, xarray.Variable]:
    """Which layers and modules these are; pooled modules are no coordinate."""
    if layered:
        layers = np.array([site.layer for site in sites], np.int64)
        modules = np.array([_name(site) for site in sites])
        return {
            "layer": _coordinate("layer", layers, "index of the layer"),
            "module": _coordinate("layer", modules, "full name of the module"),
        }
    if isinstance(sites[0].module, str):
        return {"module": _coordinate((), np.array(_name(sites[0])), "full name of the module")}
    return {}


def site_sizes(capture: CaptureResult, site: SiteResult) -> tuple[tuple[str, int], ...]:
    """The axes that a site's statistics have, with their sizes, each pair once.

    Groups and calls are left out, and so are the statistics' own dimensions, which follow from the
    query and the axes.
    """
    grouped = bool(capture.keys)
    asked = [spec for spec in capture.statistics if spec.variable in site.variables]
    return tuple(dict.fromkeys(pair for spec in asked for pair in own_axes(site, spec, grouped)))


def site_labels(capture: CaptureResult, site: SiteResult) -> tuple[object, ...]:
    """What must be equal for sites to share coordinates."""
    return tuple(
        (spec.variable, axis, tuple(np.asarray(labels).tolist()))
        for spec in capture.statistics
        for axis, labels in sorted(axis_labels(site, spec.variable).items())
    )


def _coordinate(dims: str | tuple[()], values: Array, long_name: str) -> xarray.Variable:
    return xarray.Variable(dims, values, {"long_name": long_name})


def _faults(sites: Sequence[SiteResult], layered: bool) -> dict[str, xarray.Variable]:
    """How many NaN and infinite values each site had, and where the first one was."""

    def variable(of: Callable[[SiteResult], int], long_name: str) -> xarray.Variable:
        numbers = np.array([of(site) for site in sites], np.int64)
        values = numbers if layered else numbers[0]
        return xarray.Variable(("layer",) if layered else (), values, {"long_name": long_name})

    found = (
        variable(lambda s: s.nonfinite, "number of NaN or infinite values"),
        variable(
            lambda s: s.first_nonfinite[0] if s.first_nonfinite else -1,
            "sample of the first NaN or infinite value, -1 if there is none",
        ),
        variable(
            lambda s: s.first_nonfinite[1] if s.first_nonfinite else -1,
            "position of the first NaN or infinite value, -1 if there is none",
        ),
    )
    return dict(zip(FAULTS, found, strict=True))


def _name(site: SiteResult) -> str:
    return plain_text(site.module if isinstance(site.module, str) else compact(site.module))
