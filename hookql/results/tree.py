"""The labelled tree: a child for each capture, and in it a dataset for each role."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from attrs import evolve, frozen

from hookql.data.tokens import Skipped
from hookql.engines.outcome import Generated
from hookql.language.names import CHECKSUMS
from hookql.results.attributes import clean, plain_text
from hookql.results.captured import CaptureResult, SiteResult
from hookql.results.dataset import dataset, has_raw, names_in, site_labels, site_sizes
from hookql.results.groups import Product, product, texts_array

CONVENTIONS = "CF-1.11"


def build_tree(
    captures: Sequence[CaptureResult],
    attributes: Mapping[str, object],
    skipped: Sequence[Skipped] = (),
    generated: Sequence[Generated] = (),
) -> xarray.DataTree:
    """The results as a tree, ``/capture/role``; one capture of one role stands at the root itself.

    ``attributes`` go on the root; each capture's node has its ``query`` and attributes of its own.
    Where both meet at the root, the root's ``query`` stays and the capture's is ``capture_query``.
    What was ``skipped``, and what the model ``generated``, is listed at the root.
    """
    top = {"Conventions": CONVENTIONS, **clean(attributes)}
    found = nodes(captures)
    if len(found) == 1 and found[0].path == "/":
        (node,) = found
        capture = node.capture
        own = clean({"capture": node.name, "capture_query": capture.text, **capture.attributes})
        data = node.dataset().assign({**_skipped(skipped), **_generated(generated)})
        return xarray.DataTree(data.assign_attrs({**own, **data.attrs, **top}))
    tree = {"/": xarray.Dataset({**_skipped(skipped), **_generated(generated)}, attrs=top)}
    for node in found:
        own = clean({"query": node.capture.text, **node.capture.attributes})
        tree.setdefault(f"/{node.name}", xarray.Dataset(attrs=own))
        tree[node.path] = node.dataset()
    return xarray.DataTree.from_dict(tree)


def _skipped(skipped: Sequence[Skipped]) -> dict[str, xarray.Variable]:
    """What was left out of the run, and why; nothing where nothing was."""
    if not skipped:
        return {}
    of = {
        "skipped_sample": np.array([each.sample for each in skipped], np.int64),
        "skipped_chunk": np.array([each.chunk for each in skipped], np.int64),
        "skipped_reason": texts_array([plain_text(each.reason) for each in skipped]),
    }
    said = ("sample that was skipped", "chunk of it, -1 for all of it", "why it was skipped")
    return {
        name: xarray.Variable("skipped", values, {"long_name": long_name})
        for (name, values), long_name in zip(of.items(), said, strict=True)
    }


def _generated(generated: Sequence[Generated]) -> dict[str, xarray.Variable]:
    """What the model wrote, by sample; nothing where it wrote nothing."""
    if not generated:
        return {}
    ordered = sorted(generated, key=lambda each: each.sample)
    of: dict[str, tuple[Any, str]] = {
        "generated_sample": (
            np.array([each.sample for each in ordered], np.int64),
            "index of the sample in the data",
        ),
        "generated_text": (
            texts_array([plain_text(each.text) for each in ordered]),
            "what the model wrote behind it",
        ),
        "generated_tokens": (
            np.array([each.tokens for each in ordered], np.int64),
            "tokens that it wrote, the one that ends the text included",
        ),
        "generated_ended": (
            np.array([each.ended for each in ordered], np.int8),
            "1 where the model ended its text, 0 where it was cut off",
        ),
    }
    return {
        name: xarray.Variable("generated", values, {"long_name": long_name})
        for name, (values, long_name) in of.items()
    }


@frozen(eq=False)
class Node:
    """One dataset of a tree: sites of a capture that are alike, and where they stand."""

    path: str
    name: str  # the capture's in the tree
    capture: CaptureResult
    sites: Sequence[SiteResult]  # in the order of their layers
    groups: Product | None

    def dataset(self) -> xarray.Dataset:
        """What the node holds."""
        return dataset(self.capture, self.sites, self.groups)


def nodes(captures: Sequence[CaptureResult]) -> list[Node]:
    """Every dataset that the tree of these captures has; of one alone, the path is ``/``."""
    names = _unique([_node_name(capture.name) for capture in captures], taken=(CHECKSUMS,))
    pairs = zip(captures, names, strict=True)
    found = [node for capture, name in pairs for node in _roles(capture, name)]
    return [evolve(node, path="/") for node in found] if len(found) == len(names) == 1 else found


def _roles(capture: CaptureResult, name: str) -> list[Node]:
    """A node for each role; a role whose sites differ in shape, or in their raw rows, is split."""
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
    if capture.own and has_raw(capture):
        parts = [
            (part if site.layer is None else f"{part}__layer{site.layer}", [site])
            for part, sites in parts
            for site in sites
        ]
    unique = _unique([part for part, _ in parts])
    return [
        Node(f"/{name}/{role}", name, capture, sorted(sites, key=lambda s: s.layer or 0), groups)
        for role, (_, sites) in zip(unique, parts, strict=True)
    ]


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


def _unique(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The names, those that were there before or are taken with ``__2``, ``__3`` behind them."""
    unique: list[str] = []
    for name in names:
        number, free = 1, name
        while free in unique or free in taken:
            number += 1
            free = f"{name}__{number}"
        unique.append(free)
    return unique
