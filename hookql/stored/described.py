"""What an answer with `values` says of them, for questions that can be answered from them.

For each place whose rows are whole: where in the file they are, which rows, and what the probe
learnt of it, so that a query can be bound without trying the model out. Plain values, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from attrs import frozen

from hookql.detectors import Place
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.models.layout import Layout
from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, Seen
from hookql.models.views import View
from hookql.options import RunOptions
from hookql.plan import Plan, PlannedCapture
from hookql.raw.tables import GROWING
from hookql.results.captured import CaptureResult
from hookql.results.collect import site_groups
from hookql.results.dataset import has_raw
from hookql.results.tree import Node, nodes

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@frozen
class Values:
    """The kept rows of one place, and where they are.

    ``wheres`` are the conditions that all of them meet, every row that does being there; none: all
    tokens. ``group``, ``variable`` and ``layer`` say where in the file they are; ``shape`` is that
    of one row.
    """

    place: Place
    seen: Seen
    wheres: frozenset[str]
    group: str
    variable: str
    layer: int | None
    shape: tuple[int, ...]


def conditions(where: ast.Expression | None) -> frozenset[str]:
    """What a `where` asks, condition by condition: all of them have to hold."""
    if where is None:
        return frozenset()
    parts = where.operands if isinstance(where, ast.And) else (where,)
    return frozenset(map(format_expression, parts))


def values_of(
    plan: Plan, results: Sequence[CaptureResult], options: RunOptions
) -> dict[str, Any] | None:
    """What is said of a run's raw rows; None where nothing can be answered from them."""
    if plan.query.generation is not None or options.get("autocast"):
        return None
    planned = {capture.name: capture for capture in plan.captures}
    places: list[dict[str, Any]] = []
    for node in nodes(results):
        if has_raw(node.capture):
            places += _places(plan, planned[node.capture.name], node, options.get("store_dtype"))
    if not places:
        return None
    return {
        "places": places,
        "events": [list(event) for event in plan.probe.events],
        "mixing": plan.probe.mixing.value,
    }


def _places(
    plan: Plan, capture: PlannedCapture, node: Node, store_dtype: str | None
) -> list[dict[str, Any]]:
    data = node.dataset()
    groups = site_groups(plan, capture)
    targets = {
        id(site): of_site[0] for site, of_site in zip(node.capture.sites, groups, strict=True)
    }
    found = []
    for layer, site in enumerate(node.sites):
        target = targets[id(site)]
        seen = plan.probe.seen[target.point]
        raw = [a for a in target.asked if a.statistic.raw and a.expression.node == ast.Name("x")]
        of_tokens = not (plan.own(target.selector) or plan.signals(target.selector))
        plain = seen.calls == 1 and seen.layout.stream == "text" and not seen.layout.ragged
        if not raw or capture.keys or not of_tokens or not plain or seen.dtype not in _FLOATS:
            continue
        variable = data[raw[0].spec.variable]
        stored = np.dtype(store_dtype or variable.dtype)
        if raw[0].selector != target.selector or not np.can_cast(exact(seen.dtype), stored):
            continue
        leading = variable.dims[: next(n for n, d in enumerate(variable.dims) if d in GROWING)]
        found.append(
            {
                "place": _place_told(target.place),
                "seen": _seen_told(seen),
                "wheres": sorted(conditions(plan.selectors[target.selector].where)),
                "group": node.path,
                "variable": raw[0].spec.variable,
                "layer": layer if "layer" in leading else None,
                "shape": list(variable.shape[len(leading) + 1 :]),
            }
        )
    return found


def exact(dtype: torch.dtype) -> np.dtype[Any]:
    """The narrowest dtype of a file that holds every number of a tensor's."""
    return np.dtype(np.float64 if dtype == torch.float64 else np.float32)


def read(said: Mapping[str, Any]) -> tuple[list[Values], Probe]:
    """What `values_of` said: the places, and the probe of them."""
    found = []
    for each in said["places"]:
        point = HookPoint(*each["place"]["point"])
        view = each["place"]["view"]
        place = Place(
            point, None if view is None else View(**{**view, "shape": tuple(view["shape"])})
        )
        layout = Layout(**{**each["seen"]["layout"], "axes": tuple(each["seen"]["layout"]["axes"])})
        dtype = getattr(torch, each["seen"]["dtype"])
        seen = Seen(point, layout, 1, tuple(each["seen"]["shape"]), dtype)
        rest = (each["group"], each["variable"], each["layer"], tuple(each["shape"]))
        found.append(Values(place, seen, frozenset(each["wheres"]), *rest))
    events = tuple((side, module) for side, module in said["events"])
    seen_points = {each.seen.point: each.seen for each in found}
    return found, Probe(seen_points, {}, events, Mixing(said["mixing"]))


def _place_told(place: Place) -> dict[str, Any]:
    point = [place.point.module, place.point.side, place.point.element]
    return {"point": point, "view": None if place.view is None else attrs.asdict(place.view)}


def _seen_told(seen: Seen) -> dict[str, Any]:
    dtype = str(seen.dtype).removeprefix("torch.")
    return {"layout": attrs.asdict(seen.layout), "shape": list(seen.shape), "dtype": dtype}
