"""Whether the beginning of a sample can be run without its end: whether rows know later tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hookql.models.feed import Size, TokenFeed
from hookql.models.hooks import observing
from hookql.models.learning import Seen
from hookql.models.load import Model
from hookql.models.mixing import distance, scale
from hookql.models.ports import HookPoint
from hookql.models.precision import resolution
from hookql.models.trial import Held, leaving_early, run_once

Points = Mapping[HookPoint, Seen]

# What an end that is changed may move of the rows before it, in units of `scale`: nothing but the
# last bits, in any precision, for nothing has another size. What an encoder's do is little too.
_UNMOVED = 1e-5
# What an end that is cut off may: kernels round by the size of their input. In half precision that
# is much.
_NOISE = 5e-4
_LOW_NOISE = 0.5
_WIDE = (torch.float64, torch.float32)
# A row that is changed itself moves by more than this.
_MOVED = 1e-2


def may_be_cut(
    model: Model, feed: TokenFeed, seen: Points, events: Sequence[tuple[str, str]]
) -> bool:
    """Whether the rows of these hook points stay what they are when what follows is cut off.

    Two small samples are run whole, with other tokens at their ends, and cut there, at two places
    each. Changed ends must leave earlier rows alone, and cut ones too; the changed rows themselves
    must move at some hook point, or the look proves nothing.
    """
    size = max(feed.sizes(), key=lambda each: each.positions)
    if size.positions < 3 or not seen:
        return False
    layouts = [info.layout for info in seen.values()]
    if any(each.stream != "text" or (each.position is each.flat is None) for each in layouts):
        return False
    points = list(seen)
    ids, exact = feed.random_ids(size.batch, size.positions), resolution(model)
    with observing(model.module), leaving_early(points, events):
        whole = run_once(model, points, feed.unpadded(ids))
        for kept in (size.positions - 1, size.positions // 2):
            changed = run_once(model, points, feed.unpadded(_other_end(feed, ids, kept)))
            if _moved(seen, size, kept, whole, changed) > _UNMOVED:
                return False
            if not _moves(seen, size, kept, whole, changed):
                return False
            cut = run_once(model, points, feed.unpadded(ids[:, :kept]))
            low = any(exact(t) not in _WIDE for tensors in cut.values() for t in tensors)
            moved = _moved(seen, size, kept, whole, cut, kept)
            if moved > (_LOW_NOISE if low else _NOISE):
                return False
    return True


def _other_end(feed: TokenFeed, ids: Tensor, kept: int) -> Tensor:
    """The ids with other tokens from a position on."""
    other = ids.clone()
    for sample in other:
        for place in range(kept, ids.shape[1]):
            sample[place] = feed.other_id(int(sample[place]), place)
    return other


def _moved(
    seen: Points, size: Size, kept: int, whole: Held, other: Held, width: int | None = None
) -> float:
    """How far the first rows of each sample moved at most, at any hook point and call."""
    width, moved = width or size.positions, 0.0
    for point, info in seen.items():
        if len(whole[point]) != len(other[point]):
            return float("inf")
        for before, after in zip(whole[point], other[point], strict=True):
            a = _rows(info, before, size.batch, size.positions)[:, :kept]
            b = _rows(info, after, size.batch, width)[:, :kept]
            if info.layout.ragged:
                b = torch.nn.functional.pad(b, (0, a.shape[-1] - b.shape[-1]))
            a, b = a.flatten(0, 1), b.flatten(0, 1)
            moved = max(moved, distance(a, b, scale(a)))
    return moved


def _moves(seen: Points, size: Size, kept: int, whole: Held, changed: Held) -> bool:
    """Whether the rows whose tokens are others move at some hook point: else nothing is seen."""
    for point, info in seen.items():
        for before, after in zip(whole[point], changed[point], strict=True):
            a = _rows(info, before, size.batch, size.positions)
            b = _rows(info, after, size.batch, size.positions)
            by = scale(a.flatten(0, 1))
            if distance(a[:, kept:].flatten(0, 1), b[:, kept:].flatten(0, 1), by) > _MOVED:
                return True
    return False


def _rows(info: Seen, tensor: Tensor, batch: int, positions: int) -> Tensor:
    """(batch, positions, *axes)"""
    rows = info.layout.rows(tensor, batch, positions)
    return rows.reshape(batch, positions, *rows.shape[1:])
