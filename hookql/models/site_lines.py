"""Canonical names beside real paths: the lower half of what `hookql modules` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap

from torch import nn

from hookql.errors import Diagnostic
from hookql.models.canonical import Anatomy, Place, anatomy
from hookql.models.families.table import BLOCK_SITES, CANONICAL_NAMES
from hookql.models.names import compact, indices
from hookql.models.views import View


def site_lines(root: nn.Module, picked: set[str] | None, width: int) -> Iterator[str]:
    """The canonical names beside the real paths: those of the modules that are picked.

    Lines have at most ``width`` columns; there are none where nothing that is picked has a name.
    """
    found = anatomy(root)
    if isinstance(found, Diagnostic):
        if picked is None:
            yield f"{found.message}: write module paths"
        return
    rows = [row for name in CANONICAL_NAMES for row in _where(found, name, picked)]
    if not rows:
        return
    first = max(len(name) for name, _ in rows) + 2
    layers = f"{len(found.blocks)} layer{'s' if len(found.blocks) > 1 else ''}"
    yield f"canonical sites ({found.family.name}, {layers}):"
    for name, text in rows:
        yield from wrap(f"{name:<{first}}{text}", width, subsequent_indent=" " * first)
    if found.family.note and picked is None:
        yield f"note: {found.family.note}"


def _where(found: Anatomy, name: str, picked: set[str] | None) -> Iterator[tuple[str, str]]:
    """A canonical site as a query writes it, and where it is, or why nowhere."""
    layered = name in BLOCK_SITES
    layers: Sequence[int | None] = range(len(found.blocks)) if layered else [None]
    placed = [found.place(name, layer) for layer in layers]
    places = [place for place in placed if isinstance(place, Place)]
    if picked is not None:
        places = [place for place in places if place.point.module in picked]
    if places:
        numbers = [place.layer for place in places if place.layer is not None]
        index = indices(numbers) if len(numbers) < len(found.blocks) else "[*]"
        points = compact([str(place.point).removesuffix(":output") for place in places])
        view = places[0].view
        read = "" if view is None else f"  {_read(view)}"
        text = "output" if name == "logits" else points + read
        yield f"@{name}{index if layered else ''}", text
    elif picked is None:
        problem = next(place for place in placed if isinstance(place, Diagnostic))
        yield f"@{name}{'[*]' if layered else ''}", f"none: {problem.message.partition(': ')[2]}"


def _read(view: View) -> str:
    """How a piece of a module's rows is read: ``4 heads of 8``."""
    if not view.heads:
        return f"times {view.scale:g}"
    each = view.width // view.heads
    heads = f"{view.heads} head{'s' if view.heads != 1 else ''} of {each}"
    if view.width == math.prod(view.shape):
        return heads
    if view.axis == 0:
        inner = math.prod(view.shape[1:])
        return f"features {view.start * inner} to {view.stop * inner - 1}, {heads}"
    return f"interleaved, {heads}"
