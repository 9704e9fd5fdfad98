"""From a plan to the tables that its raw rows go into: made before the run, as the result will be.

A run of nothing gives results without rows; the datasets made of them have every name, dimension
and attribute that the file will have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray
from attrs import frozen

from hookql.engines.local import Outcome
from hookql.plan import Plan, PlannedCapture, Target
from hookql.raw.shelf import Kept, Shelf
from hookql.raw.tables import GROWING, RawTable, RawVariable, column
from hookql.results.captured import CaptureResult, SiteResult
from hookql.results.collect import collect, site_groups
from hookql.results.dataset import has_raw
from hookql.results.tree import Node, nodes
from hookql.results.variables import LABELS


@frozen
class Sizes:
    """What is known of a run before it: rows of each selector, and samples; None: not known."""

    rows: Mapping[int, int | None]
    samples: int | None


def keeps_rows(plan: Plan) -> bool:
    """Whether some capture keeps rows as they are."""
    return any(a.statistic.raw for c in plan.captures for t in c.targets for a in t.asked)


def templates(plan: Plan, width: int) -> list[CaptureResult]:
    """The results of every capture, had there been no data."""
    return collect(plan, Outcome.of(plan, width))


def shelves(
    plan: Plan,
    results: Sequence[CaptureResult],
    sizes: Sizes,
    width: int,
    store_dtype: str | None = None,
) -> list[Shelf]:
    """A shelf for each node of one file that has raw rows; ``results`` are the file's."""
    planned = {capture.name: capture for capture in plan.captures}
    return [
        _shelf(plan, planned[node.capture.name], node, sizes, width, store_dtype)
        for node in nodes(results)
        if has_raw(node.capture)
    ]


def _shelf(
    plan: Plan,
    capture: PlannedCapture,
    node: Node,
    sizes: Sizes,
    width: int,
    store_dtype: str | None,
) -> Shelf:
    data = node.dataset()
    groups = site_groups(plan, capture)
    targets = {
        id(site): targets[0] for site, targets in zip(node.capture.sites, groups, strict=True)
    }
    kept: list[Kept] = []
    rounds = store_dtype is not None
    variables = [_variable(data, name) for name in (*LABELS, "row_size")]
    for number, asked in enumerate(targets[id(node.sites[0])].asked):
        if not asked.statistic.raw:
            continue
        variable = _variable(data, asked.spec.variable, store_dtype)
        source = plan.probe.seen[targets[id(node.sites[0])].point].dtype
        said = {
            "coordinates": " ".join([*LABELS, *(["module"] if "module" in data.coords else [])]),
            "dtype_source": str(source).removeprefix("torch."),
        }
        variables.append(
            RawVariable(
                variable.name, variable.dtype, variable.dims, {**variable.attributes, **said}
            )
        )
        for layer, site in enumerate(node.sites):
            kept += _columns(targets[id(site)], number, site, variable, layer, data, rounds)
    selector = targets[id(node.sites[0])].selector
    known: dict[str, int | None] = {str(dim): size for dim, size in data.sizes.items()}
    used = {dim for variable in variables for dim in variable.dims}
    known |= {"obs": sizes.rows[selector], "sample": sizes.samples}
    of_table = {dim: size for dim, size in known.items() if dim in used}
    role = node.path if node.path != "/" else ""
    table = RawTable(f"{node.capture.name}{role}", node.path, of_table, tuple(variables))
    return Shelf(table, kept, width, tokens=plan.feed.tokens)


def _variable(data: xarray.Dataset, name: str, dtype: str | None = None) -> RawVariable:
    found = data[name].variable
    stored = np.dtype(dtype or found.dtype).newbyteorder("<")
    dims = tuple(map(str, found.dims))
    return RawVariable(name, stored.str, dims, {str(n): v for n, v in found.attrs.items()})


def _columns(
    target: Target,
    number: int,
    site: SiteResult,
    variable: RawVariable,
    layer: int,
    data: xarray.Dataset,
    rounds: bool,
) -> list[Kept]:
    asked = target.asked[number]
    growing = next(place for place, dim in enumerate(variable.dims) if dim in GROWING)
    shape = tuple(data.sizes[dim] for dim in variable.dims[growing + 1 :])
    leading = (layer,) if "layer" in variable.dims[:growing] else ()
    return [
        Kept(
            column(variable.name, *leading, *((call,) if site.calls > 1 else ())),
            target.place,
            asked.selector,
            asked.expression.node,
            call,
            variable.dtype,
            shape,
            rounds,
        )
        for call in range(site.calls)
    ]
