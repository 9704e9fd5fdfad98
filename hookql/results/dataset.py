"""One role of one capture as a dataset: dimensions (layer, call, axes), coordinates, attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray

from hookql.models.names import compact
from hookql.results.attributes import clean, plain_text
from hookql.statistics import STATISTICS

if TYPE_CHECKING:
    from hookql.language.query import StatisticSpec
    from hookql.results.captured import CaptureResult, SiteResult

    Array = np.ndarray[Any, Any]


def dataset(capture: CaptureResult, sites: Sequence[SiteResult]) -> xarray.Dataset:
    """The sites of one role, alike in shape: all with a layer, or one without."""
    layered = sites[0].layer is not None
    sites = sorted(sites, key=lambda site: site.layer or 0)
    variables = {
        spec.variable: _statistic(spec, capture, sites, layered)
        for spec in capture.statistics
        if spec.variable != "count"
    }
    variables["count"] = _count(sites, layered)
    variables |= _faults(sites, layered)
    coordinates: dict[str, Any] = {}
    attributes: dict[str, object] = {"role": sites[0].role or "model"}
    if layered:
        coordinates["layer"] = ("layer", np.array([site.layer for site in sites], np.int64))
        coordinates["module"] = ("layer", np.array([_name(site) for site in sites]))
    elif isinstance(sites[0].module, str):
        coordinates["module"] = ((), np.array(_name(sites[0])))
    else:
        attributes["modules"] = compact(sites[0].module)
    data = xarray.Dataset(variables, coordinates, clean(attributes))
    if "module" in data.coords:
        data["module"].attrs["long_name"] = "full name of the module"
    if "layer" in data.coords:
        data["layer"].attrs["long_name"] = "index of the layer"
    return data


def site_shape(site: SiteResult) -> tuple[int, ...]:
    """The sizes of a site's axes, () where all its variables are single numbers."""
    shapes = [np.shape(values) for values in site.variables.values()]
    longest = max(shapes, key=len, default=())
    return longest[1:] if site.calls > 1 else longest


def _statistic(
    spec: StatisticSpec, capture: CaptureResult, sites: Sequence[SiteResult], layered: bool
) -> xarray.Variable:
    """A statistic's numbers of all sites, float64 (``count``: int64)."""
    statistic = STATISTICS[spec.name]
    counting = spec.name == "count"
    arrays = [np.asarray(s.count if counting else s.variables[spec.variable]) for s in sites]
    values = _stack(arrays, layered).astype(np.int64 if counting else np.float64)
    first = sites[0]
    dims: list[str] = ["layer"] if layered else []
    own = arrays[0].ndim
    full = (["call"] if first.calls > 1 else []) + list(first.axes)
    if own == len(full):
        dims += full
    elif own == 1 and first.calls > 1:
        dims.append("call")
    elif own:
        raise ValueError(f"{spec.variable} of {first.module} has {own} dimensions, not {full}")
    given = ", ".join(f"{name}={value:g}" for name, value in spec.parameters.items())
    # CF reads: over tokens, and over what was pooled with them, this was computed.
    over = " ".join(f"{dim}:" for dim in ("token", *sorted(capture.pool)))
    comment = f" (comment: {given})" if given else ""
    attributes = {
        "long_name": statistic.doc.split(";")[0].splitlines()[0].replace("``", "").rstrip("."),
        "cell_methods": f"{over} {statistic.cell_method}{comment}",
        "statistic": spec.name,
    }
    return xarray.Variable(dims, values, attributes)


def _count(sites: Sequence[SiteResult], layered: bool) -> xarray.Variable:
    """The tokens kept: one number, or one a layer if layers differ."""
    counts = np.array([site.count for site in sites], np.int64)
    attributes = {"long_name": "number of tokens kept", "units": "1"}
    if layered and len(set(counts.tolist())) > 1:
        return xarray.Variable(("layer",), counts, attributes)
    return xarray.Variable((), counts[0], attributes)


def _faults(sites: Sequence[SiteResult], layered: bool) -> dict[str, xarray.Variable]:
    """How many NaN and infinite values each site had, and where the first one was."""

    def variable(of: Callable[[SiteResult], int], long_name: str) -> xarray.Variable:
        values = _stack([np.array(of(site), np.int64) for site in sites], layered)
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


def _stack(arrays: Sequence[Array], layered: bool) -> Array:
    return np.stack(arrays) if layered else arrays[0]


def _name(site: SiteResult) -> str:
    return plain_text(site.module if isinstance(site.module, str) else compact(site.module))
