"""A canonical site of a query: its layers, its port, and what is said where it is none."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from torch import nn

from hookql.errors import Diagnostic, QueryError, Source, did_you_mean, listing
from hookql.language import ast
from hookql.models.canonical import Anatomy, Place, anatomy
from hookql.models.families.table import BLOCK_SITES, CANONICAL_NAMES
from hookql.models.ports import HookPoint


def places(root: nn.Module, site: ast.CanonicalSite, source: Source) -> list[tuple[Place, bool]]:
    """Every place of a canonical site, in order of layers, and whether it is a whole module.

    Raises:
        QueryError: an unknown family or name, an index outside the layers, a site that the family
            does not have, a port where the site is no whole module.
    """
    if site.name not in CANONICAL_NAMES:
        raise QueryError(_unknown_name(site, source))
    found = anatomy(root)
    if isinstance(found, Diagnostic):
        raise QueryError(_at(found, site, source))
    layers = _layers(found, site, source)
    placed = [found.place(site.name, layer) for layer in layers]
    problems = [place for place in placed if isinstance(place, Diagnostic)]
    if problems:
        raise QueryError(_at(problems[0], site, source))
    made = [place for place in placed if isinstance(place, Place)]
    whole = all(found.is_whole(site.name, place.layer) for place in made)
    if site.port is not None and not whole:
        message = f"`@{site.name}` is one tensor of this model and has no ports"
        help = "write the module's path, with a port, for another of its tensors"
        raise QueryError(Diagnostic("no-port", message, site.port.span, source, help))
    return [(_at_port(place, site), whole) for place in made]


def _layers(found: Anatomy, site: ast.CanonicalSite, source: Source) -> Sequence[int | None]:
    """The layers that a site's index selects; one None where the site has none."""
    name, count = site.name, len(found.blocks)
    if name not in BLOCK_SITES:
        if site.index is None:
            return [None]
        message = f"`@{name}` stands once in a model and has no layers"
        raise QueryError(Diagnostic("not-indexable", message, site.index.span, source))
    if site.index is None:
        message = f"`@{name}` stands in each of {count} layers"
        help = f"write `@{name}[*]` for all of them"
        raise QueryError(Diagnostic("needs-index", message, site.span, source, help))
    chosen: dict[int, None] = {}
    for item in site.index.items:
        layers = chosen_layers(item, count)
        if isinstance(layers, int):
            message = f"index {layers} is outside `@{name}`, which has {_layers_text(count)}"
            note = f"indices: 0 to {count - 1}, or -{count} to -1"
            span = site.index.span
            raise QueryError(Diagnostic("index-out-of-range", message, span, source, notes=(note,)))
        if not layers:
            message = f"the index selects nothing of `@{name}`, which has {_layers_text(count)}"
            raise QueryError(Diagnostic("empty-selection", message, site.index.span, source))
        chosen.update(dict.fromkeys(layers))
    return sorted(chosen)


def chosen_layers(item: int | ast.Slice, count: int) -> range | int:
    """The layers that an index or slice means, as Python counts; the index that is outside."""
    if isinstance(item, int):
        place = item + count if item < 0 else item
        return range(place, place + 1) if 0 <= place < count else item
    if item.start is not None and not -count <= item.start < count:
        return item.start
    if item.stop is not None and not -count <= item.stop <= count:
        return item.stop
    if item.step == 0:
        return range(0)
    return range(*slice(item.start, item.stop, item.step).indices(count))


def _layers_text(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _at_port(place: Place, site: ast.CanonicalSite) -> Place:
    """The place at the port that the site names, if it names one."""
    if site.port is None:
        return place
    point = HookPoint(place.point.module, site.port.name, site.port.element)
    return Place(point, None, place.layer)


def _unknown_name(site: ast.CanonicalSite, source: Source) -> Diagnostic:
    message = f"there is no canonical site `@{site.name}`"
    near = did_you_mean(site.name, CANONICAL_NAMES)
    help = near and near.replace("`", "`@", 1)
    note = f"canonical sites: {listing([f'@{name}' for name in CANONICAL_NAMES], 20)}"
    return Diagnostic("unknown-site", message, site.span, source, help, (note,))


def _at(problem: Diagnostic, site: ast.CanonicalSite, source: Source) -> Diagnostic:
    return evolve(problem, span=site.span, source=source)
