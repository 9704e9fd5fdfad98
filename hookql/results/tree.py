"""The labelled tree: a child for each capture, and in it a dataset for each role."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import xarray

from hookql.results.attributes import clean
from hookql.results.captured import CaptureResult, SiteResult
from hookql.results.dataset import dataset, names_in, site_labels, site_sizes
from hookql.results.groups import product

CONVENTIONS = "CF-1.11"


def build_tree(
    captures: Sequence[CaptureResult], attributes: Mapping[str, object]
) -> xarray.DataTree:
    """The results as a tree, ``/capture/role``; one capture of one role stands at the root itself.

    ``attributes`` go on the root; each capture's node has its ``query`` and attributes of its own.
    Where both meet at the root, the root's ``query`` stays and the capture's is ``capture_query``.
    """
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


def _datasets(capture: CaptureResult) -> dict[str, xarray.Dataset]:
    """A dataset for each role by its node's name; a role whose sites differ in shape is split."""
    groups = None
    if capture.keys:
        groups = product(capture.keys, capture.token_text, names_in(capture))
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
    name = unicodedata.normalize("NFC", name)  # as netCDF has it
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
