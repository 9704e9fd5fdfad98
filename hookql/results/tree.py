"""The labelled tree: a child for each capture, and in it a dataset for each role."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import xarray

from hookql.errors import Diagnostic, QueryError
from hookql.language.query import StatisticSpec
from hookql.results.attributes import clean
from hookql.results.captured import CaptureResult, SiteResult
from hookql.results.dataset import dataset, site_labels, site_sizes
from hookql.results.groups import product, text_name
from hookql.results.variables import companions

CONVENTIONS = "CF-1.11"
# What a dataset calls its own parts; no statistic's variable can be called so.
DIMENSIONS = "layer call head feature feature_2 position key sample obs top bin quantile"
RESERVED = frozenset(
    {
        *DIMENSIONS.split(" "),
        "module",
        "nonfinite",
        "first_nonfinite_sample",
        "first_nonfinite_position",
        "bin_lo",
        "bin_hi",
    }
)


def build_tree(
    captures: Sequence[CaptureResult], attributes: Mapping[str, object]
) -> xarray.DataTree:
    """The results as a tree, ``/capture/role``; one capture of one role stands at the root itself.

    ``attributes`` go on the root; each capture's node has its ``query`` and attributes of its own.
    Where both meet at the root, the root's ``query`` stays and the capture's is ``capture_query``.
    Raises QueryError where a variable would take a reserved name.
    """
    _check_names(captures)
    top = {"Conventions": CONVENTIONS, **clean(attributes)}
    names = _unique([_node_name(capture.name) for capture in captures])
    nodes = dict(zip(names, map(_datasets, captures), strict=True))
    if len(nodes) == 1 and len(next(iter(nodes.values()))) == 1:
        (capture,) = captures
        (data,) = nodes[names[0]].values()
        own = clean({"capture": names[0], "capture_query": capture.text, **capture.attributes})
        return xarray.DataTree(data.assign_attrs({**own, **data.attrs, **top}))
    tree = {"/": xarray.Dataset(attrs=top)}
    for capture, (name, roles) in zip(captures, nodes.items(), strict=True):
        own = clean({"query": capture.text, **capture.attributes})
        tree[f"/{name}"] = xarray.Dataset(attrs=own)
        for role, data in roles.items():
            tree[f"/{name}/{role}"] = data
    return xarray.DataTree.from_dict(tree)


def _check_names(captures: Sequence[CaptureResult]) -> None:
    wrong = [
        Diagnostic(
            "reserved-name",
            f"`{taken}` is the name of another part of the result",
            span=spec.span,
            help="name the statistic otherwise with `as`",
        )
        for capture in captures
        for spec in capture.statistics
        if (taken := _taken(capture, spec)) is not None
    ]
    if wrong:
        raise QueryError(wrong)


def _taken(capture: CaptureResult, spec: StatisticSpec) -> str | None:
    """The first name that a statistic would need and something else has."""
    keys = {name for key in capture.keys for name in (key.name, text_name(key.name))}
    others = {s.variable for s in capture.statistics if s is not spec}
    names = [spec.variable]
    own = companions(capture.sites, spec)
    names += own
    names += [f"{spec.variable}_text"] if f"{spec.variable}_token" in own else []
    counted = any(spec.variable in site.counts for site in capture.sites)
    names += [f"{spec.variable}_count"] if counted else []
    clash = RESERVED | keys | others
    if spec.name != "count" or spec.variable != "count":
        clash |= {"count"}
    return next((name for name in names if name in clash), None)


def _datasets(capture: CaptureResult) -> dict[str, xarray.Dataset]:
    """A dataset for each role by its node's name; a role whose sites differ in shape is split."""
    groups = product(capture.keys, capture.token_text) if capture.keys else None
    roles: dict[str, list[SiteResult]] = {}
    for site in capture.sites:
        roles.setdefault(site.role, []).append(site)
    parts = [
        (_node_name(role or "model") + suffix, sites)
        for role, members in roles.items()
        for suffix, sites in _split(capture, members)
    ]
    names = _unique([name for name, _ in parts])
    return {
        name: dataset(capture, sites, groups) for name, (_, sites) in zip(names, parts, strict=True)
    }


def _split(
    capture: CaptureResult, sites: Sequence[SiteResult]
) -> list[tuple[str, list[SiteResult]]]:
    """Sites of one role as groups that share a shape, each with the suffix that tells it apart.

    Sites differ by having a layer, by the names, sizes and labels of their axes and by the number
    of calls; the suffix names what differs, as in ``__768``. Two sites of one layer stand apart
    too.
    """
    labels = list(dict.fromkeys(site_labels(capture, site) for site in sites))
    groups: dict[tuple[str, ...], list[SiteResult]] = {}
    for site in sites:
        kind = (
            "single" if site.layer is None else "layers",
            "_".join(site.axes),
            "x".join(str(size) for _, size in site_sizes(capture, site)),
            f"{site.calls}calls",
            f"labels{labels.index(site_labels(capture, site)) + 1}",
        )
        copy = 1
        while any(site.layer == other.layer for other in groups.get((*kind, str(copy)), ())):
            copy += 1
        groups.setdefault((*kind, str(copy)), []).append(site)
    differing = [len(set(column)) > 1 for column in zip(*groups, strict=True)]
    return [
        ("".join(f"__{k}" for k, differs in zip(kind, differing, strict=True) if differs), members)
        for kind, members in groups.items()
    ]


def _node_name(name: str) -> str:
    """A name that a NetCDF group can have: no slash, nothing invisible, not empty."""
    visible = "".join(c if c.isprintable() and c != "/" else "_" for c in name).strip()
    return re.sub(r"^(?=[^\w])", "_", visible) or "_"


def _unique(names: Sequence[str]) -> list[str]:
    """The names, those that were there before with ``__2``, ``__3`` behind them."""
    unique: list[str] = []
    for name in names:
        number, free = 1, name
        while free in unique:
            number += 1
            free = f"{name}__{number}"
        unique.append(free)
    return unique
