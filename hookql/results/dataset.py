"""One role of one capture as a dataset: dimensions (layer, call, groups, axes), coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from hookql.models.names import compact
from hookql.results.attributes import clean, plain_text
from hookql.results.dimensions import Dimensions
from hookql.results.groups import Product
from hookql.results.variables import Part, axis_labels, count, own_axes, statistic_variables

if TYPE_CHECKING:
    from hookql.results.captured import CaptureResult, SiteResult

    Array = np.ndarray[Any, Any]


def dataset(
    capture: CaptureResult, sites: Sequence[SiteResult], groups: Product | None = None
) -> xarray.Dataset:
    """The sites of one role, alike in shape: all with a layer, or one without.

    ``groups`` is the product of the capture's keys, None where it has none.
    """
    sites = sorted(sites, key=lambda site: site.layer or 0)
    part = Part(capture, sites, groups, Dimensions())
    variables: dict[str, xarray.Variable] = {}
    for spec in capture.statistics:
        if spec.variable != "count":
            variables |= statistic_variables(part, spec)
    variables["count"] = count(part)
    variables |= _faults(sites, part.layered)
    coordinates: dict[str, Any] = dict(part.dimensions.coordinates)
    attributes: dict[str, object] = {"role": sites[0].role or "model"}
    if groups is not None:
        coordinates |= groups.coordinates
        attributes["by"] = ", ".join(groups.dims)
    if part.layered:
        layers = np.array([site.layer for site in sites], np.int64)
        coordinates["layer"] = _coordinate("layer", layers, "index of the layer")
        modules = np.array([_name(site) for site in sites])
        coordinates["module"] = _coordinate("layer", modules, "full name of the module")
    elif isinstance(sites[0].module, str):
        module = np.array(_name(sites[0]))
        coordinates["module"] = _coordinate((), module, "full name of the module")
    else:
        attributes["modules"] = compact(sites[0].module)
    return xarray.Dataset(variables, coordinates, clean(attributes))


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

    return {
        "nonfinite": variable(lambda s: s.nonfinite, "number of NaN or infinite values"),
        "first_nonfinite_sample": variable(
            lambda s: s.first_nonfinite[0] if s.first_nonfinite else -1,
            "sample of the first NaN or infinite value, -1 if there is none",
        ),
        "first_nonfinite_position": variable(
            lambda s: s.first_nonfinite[1] if s.first_nonfinite else -1,
            "position of the first NaN or infinite value, -1 if there is none",
        ),
    }


def _name(site: SiteResult) -> str:
    return plain_text(site.module if isinstance(site.module, str) else compact(site.module))
