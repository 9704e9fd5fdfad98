"""Layouts: which axis of a tensor is the batch, which the positions, and what the others are."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from torch import Tensor

from hookql.models.feed import Size


@frozen
class Misaligned:
    """Why a tensor has no rows that follow the tokens."""

    reason: str
    local: bool = True  # whether a module around it may fare better
    help: str | None = None
    crossed: bool = False  # it follows the tokens of both streams


@frozen
class Layout:
    """How to read a tensor as one row for each (sample, position), sample-major.

    ``batch`` and ``position`` are axis numbers. ``flat`` is the one axis that holds both. With
    neither ``batch`` nor ``flat`` the tensor is the same for every sample and is repeated. With
    ``batch`` alone every sample is one row. ``stream`` is whose tokens the positions are: the
    text's, or those of an encoder-decoder's target.
    """

    batch: int | None
    position: int | None
    flat: int | None
    axes: tuple[str, ...]  # names of the remaining axes, in order
    stream: str = "text"  # or "target": its rows are the decoder's tokens

    @property
    def ragged(self) -> bool:
        """Whether the last axis is the keys of an attention pattern, as many as the positions."""
        return "key" in self.axes

    def rows(self, tensor: Tensor, batch: int, positions: int) -> Tensor:
        """The tensor as (batch * positions, *axes); a view wherever one exists."""
        if self.flat is not None:
            return tensor.movedim(self.flat, 0)
        if self.position is None:
            assert self.batch is not None
            return tensor.movedim(self.batch, 0)
        if self.batch is None:
            moved = tensor.movedim(self.position, 0)
            rest = moved.shape[moved.ndim - len(self.axes) :]
            shared = moved.reshape(positions, -1, *rest).transpose(0, 1)
            if shared.shape[0] == 1:
                shared = shared.expand(batch, *shared.shape[1:])
            return shared.flatten(0, 1)  # a call with position ids gives each sample its own
        return tensor.movedim((self.batch, self.position), (0, 1)).flatten(0, 1)

    def describe(self, shape: Sequence[int]) -> tuple[int | str, ...]:
        """A shape with the names of the axes that vary in place of their sizes."""
        names = {self.batch: "batch", self.position: "position", self.flat: "batch*position"}
        if self.ragged:
            names[len(shape) - 1] = "key"
        return tuple(names.get(axis, size) for axis, size in enumerate(shape))


def find_layout(
    shapes: Sequence[tuple[int, ...]], sizes: Sequence[Size], heads: frozenset[int]
) -> Layout | Misaligned:
    """The layout of a tensor from its shapes in several runs and the sizes of their inputs."""
    if len({len(shape) for shape in shapes}) > 1:
        return Misaligned("its number of axes varies")
    kinds, stream = _kinds(shapes, sizes)
    batch = [i for i, kind in enumerate(kinds) if kind == "batch"]
    position = [i for i, kind in enumerate(kinds) if kind == "position"]
    flat = [i for i, kind in enumerate(kinds) if kind == "batch*position"]
    rest = [i for i, kind in enumerate(kinds) if kind == "constant"]
    if stream is None:
        reason = "one of its axes follows the text's tokens and one the target's"
        return Misaligned(reason, local=False, crossed=True)
    if "other" in kinds:
        return Misaligned("one of its axes follows neither samples nor tokens")
    if len(position) > 1:
        weights = kinds == ["batch", "constant", "position", "position"]
        advice = "attention weights are read by the port `:pattern`" if weights else None
        return Misaligned("two of its axes follow the tokens", local=False, help=advice)
    if len(batch) > 1:
        return Misaligned("two of its axes follow the samples")
    if flat and (batch or position or len(flat) > 1):
        return Misaligned("its rows are more than the tokens")
    varying = len({size.positions for size in sizes}) > 1
    if not flat and not position and (varying or not batch):
        return Misaligned("no axis follows the tokens")
    if not flat and not position and (len(rest) > 1 or any(s.positions != 1 for s in sizes)):
        return Misaligned("the position axis of these inputs cannot be told from its other axes")
    if not flat and not batch:
        # The same for every sample, as position embeddings are: an axis of one may stand in front.
        rest = [i for i in rest if not (i < position[0] and shapes[0][i] == 1)]
        if any(i < position[0] for i in rest):
            return Misaligned("no axis follows the samples")
    names = _names([shapes[0][i] for i in rest], heads)
    return Layout(
        batch[0] if batch else None,
        position[0] if position else None,
        flat[0] if flat else None,
        names,
        stream,
    )


def find_pattern_layout(
    shapes: Sequence[tuple[int, ...]], sizes: Sequence[Size]
) -> Layout | Misaligned:
    """The layout of attention weights, (batch, head, query, key): rows are the queries."""
    kinds, stream = _kinds(shapes, sizes)
    if stream is None:
        reason = "their queries are the target's tokens and their keys the text's"
        return Misaligned(reason, crossed=True)
    if kinds != ["batch", "constant", "position", "position"]:
        return Misaligned("their axes are not (batch, head, query, key)")
    return Layout(0, 2, None, ("head", "key"), stream)


def _kinds(
    shapes: Sequence[tuple[int, ...]], sizes: Sequence[Size]
) -> tuple[list[str], str | None]:
    """What each axis follows, and the stream whose tokens they are: None where it is both."""
    kinds = [_kind(sizes_of_axis, sizes) for sizes_of_axis in zip(*shapes, strict=True)]
    target = [kind.replace("target", "position") for kind in kinds]
    if target == kinds:
        return kinds, "text"
    both = any("position" in kind for kind in kinds)
    return (kinds, None) if both else (target, "target")


def _kind(sizes_of_axis: tuple[int, ...], sizes: Sequence[Size]) -> str:
    """Which of the varying sizes an axis follows through all runs."""
    if len(set(sizes_of_axis)) == 1:
        return "constant"
    for kind, wanted in (
        ("batch", [size.batch for size in sizes]),
        ("position", [size.positions for size in sizes]),
        ("batch*position", [size.batch * size.positions for size in sizes]),
        ("target", [size.decoder for size in sizes]),
        ("batch*target", [size.batch * size.decoder for size in sizes]),
    ):
        if list(sizes_of_axis) == wanted:
            return kind
    return "other"


def _names(sizes: Sequence[int], heads: frozenset[int]) -> tuple[str, ...]:
    """Names of the axes of one row: the last is `feature`, one as large as the heads before it
    is `head`, others are numbered."""
    if not sizes:
        return ()
    if len(sizes) == 2 and sizes[0] in heads:
        return ("head", "feature")
    return (*(f"axis_{i}" for i in range(len(sizes) - 1)), "feature")
