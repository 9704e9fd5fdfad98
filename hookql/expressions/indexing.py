"""``x[3]``, ``x[1:5]``, ``x[[5, 99]]``, ``x[head=3]``: parts of an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hookql.expressions.combine import Ground, shown
from hookql.expressions.rows import Term
from hookql.language import ast

Pick: TypeAlias = Callable[[Tensor], Tensor]


def subscript(ground: Ground, node: ast.Subscript, part: Term) -> Term:
    """A term of which an index on the last or on a named axis leaves a part."""
    axes, index = part.axes, node.index
    if not axes.names:
        message = f"{shown(node.value)} is one number, which has no index"
        raise ground.wrong("bad-axes", message, node)
    name = node.dimension or axes.names[-1]
    if name not in axes.names:
        message = f"{shown(node.value)} has no axis `{name}`"
        raise ground.wrong("bad-axes", message, node, None, (f"{shown(node.value)} has {axes}",))
    size, axis = axes.size(name), 1 + axes.names.index(name)
    if size is None:
        return _one_key(ground, node, part, name, axis)
    outside = out_of_range(index, size)
    if outside is not None:
        message = f"index {outside} is outside the axis `{name}`, which holds {size}"
        notes = (f"indices: 0 to {size - 1}, or {-size} to -1",)
        raise ground.wrong("index-out-of-range", message, node, None, notes)
    if isinstance(index, int):
        pick, result = take_one(axis, index), axes.without(name)
    else:
        wanted = places(index, size)
        if not wanted:
            message = f"nothing is left of the axis `{name}`"
            raise ground.wrong("bad-axes", message, node)
        pick, result = take_some(axis, wanted), axes.resized(name, len(wanted))
    hidden = part.hidden if result.ragged else None
    labels = {axis: at for axis, at in part.labels.items() if axis in result.names}
    if not isinstance(index, int):
        whole = part.labels.get(name, range(size))
        labels[name] = tuple(whole[at] for at in wanted)
    return Term(
        node,
        result,
        part.kind,
        lambda rows: pick(rows.of(part)),
        (part,),
        hidden=hidden,
        labels=labels,
    )


def _one_key(ground: Ground, node: ast.Subscript, part: Term, name: str, axis: int) -> Term:
    """``x[key=3]``: one of keys whose number differs from query to query."""
    index = node.index
    if not isinstance(index, int) or index < 0:
        message = f"each query sees another number of keys: take one of `{name}`, from 0"
        raise ground.wrong("bad-axes", message, node, "write `x[key=0]` for the first")
    pick = take_seen(axis, index)
    axes = part.axes.without(name)
    return Term(node, axes, part.kind, lambda rows: pick(rows.of(part)), (part,), key_read=index)


def out_of_range(index: int | ast.Slice | tuple[int, ...], size: int) -> int | None:
    """An index that an axis of that size lacks, as written; None where all are there."""
    if isinstance(index, ast.Slice):  # a slice may end right behind the last
        bounds = [at for at in (index.start, index.stop) if at is not None]
        return next((at for at in bounds if not -size <= at <= size), None)
    wanted = index if isinstance(index, tuple) else (index,)
    return next((at for at in wanted if not -size <= at < size), None)


def places(index: ast.Slice | tuple[int, ...], size: int) -> Sequence[int]:
    """The places, from 0, that a slice or a list takes of an axis of that size."""
    if isinstance(index, tuple):
        return [at % size for at in index]
    return range(size)[index.start : index.stop : index.step]


def take_one(axis: int, index: int) -> Pick:
    """Rows without that axis: what stands at one place of it."""
    return lambda rows: rows.select(axis, index)


def take_seen(axis: int, index: int) -> Pick:
    """As `take_one` on a ragged axis; 0 in a batch of which no row is long enough.

    What a row lacks is no value of it: such rows are for the plan to leave out.
    """

    def pick(rows: Tensor) -> Tensor:
        if index < rows.shape[axis]:
            return rows.select(axis, index)
        return rows.new_zeros([size for at, size in enumerate(rows.shape) if at != axis])

    return pick


def take_some(axis: int, wanted: Sequence[int]) -> Pick:
    """Rows with only these places of that axis, in this order."""
    if isinstance(wanted, range) and wanted.step > 0:
        index = [slice(None)] * axis + [slice(wanted.start, wanted.stop, wanted.step)]
        return lambda rows: rows[tuple(index)]
    on_device: dict[torch.device, Tensor] = {}

    def pick(rows: Tensor) -> Tensor:
        if rows.device not in on_device:  # once, for it waits for the device
            on_device[rows.device] = torch.tensor(list(wanted), device=rows.device)
        return rows.index_select(axis, on_device[rows.device])

    return pick
