"""Named axes: the shape of one row, and how shapes meet by name."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from torch import Tensor

VOCABULARY = "vocabulary"
"""The axis of the vocabulary, which only `lens` makes."""


@frozen
class Axes:
    """The axes of one row, without the row's own: names and sizes, None where ragged (`key`)."""

    names: tuple[str, ...] = ()
    sizes: tuple[int | None, ...] = ()

    def size(self, name: str) -> int | None:
        """How long an axis is; None where that differs from row to row."""
        return self.sizes[self.names.index(name)]

    def without(self, name: str) -> Axes:
        """The other axes."""
        kept = [at for at, other in enumerate(self.names) if other != name]
        return Axes(tuple(self.names[at] for at in kept), tuple(self.sizes[at] for at in kept))

    def resized(self, name: str, size: int | None) -> Axes:
        """The same axes, one of another length."""
        pairs = zip(self.names, self.sizes, strict=True)
        return Axes(self.names, tuple(size if other == name else old for other, old in pairs))

    @property
    def ragged(self) -> bool:
        """Whether an axis has another length in each row."""
        return None in self.sizes

    def __str__(self) -> str:
        if not self.names:
            return "one number"
        pairs = zip(self.names, self.sizes, strict=True)
        shown = [f"{name} ({'any' if size is None else size})" for name, size in pairs]
        return ("the axes " if len(shown) > 1 else "the axis ") + ", ".join(shown)


def canonical_order(all_axes: Sequence[Axes]) -> tuple[str, ...]:
    """The order in which names of axes stand wherever they meet: that of the site's tensors."""
    order: dict[str, None] = {}
    for axes in sorted(all_axes, key=lambda axes: -len(axes.names)):
        order.update(dict.fromkeys(axes.names))
    return (*(name for name in order if name != VOCABULARY), VOCABULARY)


def meet(all_axes: Sequence[Axes], order: Sequence[str]) -> Axes:
    """All names of several axes, each once; equal names have equal sizes (`clash` tells)."""
    sizes = {n: s for axes in all_axes for n, s in zip(axes.names, axes.sizes, strict=True)}
    names = tuple(name for name in order if name in sizes)
    return Axes(names, tuple(sizes[name] for name in names))


def clash(first: Axes, second: Axes) -> str | None:
    """The first name under which two shapes have different sizes; None where they fit."""
    for name in first.names:
        if name in second.names and first.size(name) != second.size(name):
            return name
    return None


def spread(rows: Tensor, axes: Axes, names: tuple[str, ...]) -> Tensor:
    """Rows (n, \\*axes) as a view (n, \\*names), of size 1 where they have no such axis."""
    if axes.names == names:
        return rows
    present = tuple(name for name in names if name in axes.names)
    if present != axes.names:
        rows = rows.permute(0, *(1 + axes.names.index(name) for name in present))
    return rows[(slice(None), *(slice(None) if n in axes.names else None for n in names))]
