"""Parts of a batch: what is run in its place where the whole does not go through."""

from __future__ import annotations

import zlib

import numpy as np

from hookql.data.batches import Batch


def padded_tokens(batch: Batch) -> int:
    """The positions that a batch takes up, padding and a decoder's rows included."""
    target = 0 if batch.target is None else batch.target.ids.size
    return batch.given[0].size + target


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """A batch of several contexts as two, each padded to its own longest context."""
    middle = (len(batch.contexts) + 1) // 2
    return _part(batch, slice(middle)), _part(batch, slice(middle, None))


def checksum(batch: Batch, before: int) -> int:
    """A checksum of a batch's tokens, joined to that of the batches before it."""
    for array in (batch.ids, batch.sample, batch.chunk, *batch.given):
        before = zlib.crc32(np.ascontiguousarray(array).data, before)
    shape = repr((batch.ids.shape, batch.given[0].shape)).encode()
    before = zlib.crc32(shape, before)
    return before if batch.target is None else checksum(batch.target, before)


def _part(batch: Batch, rows: slice) -> Batch:
    contexts = batch.contexts[rows]
    width = max(len(context.ids) for context in contexts)
    # Sliced, not made anew of the contexts: what pads them stays what it was.
    return Batch(
        ids=np.ascontiguousarray(batch.ids[rows, :width]),
        mask=np.ascontiguousarray(batch.mask[rows, :width]),
        special=np.ascontiguousarray(batch.special[rows, :width]),
        sample=np.ascontiguousarray(batch.sample[rows, :width]),
        contexts=contexts,
        target=None if batch.target is None else _part(batch.target, rows),
        fed=None if batch.fed is None else np.ascontiguousarray(batch.fed[rows, :width]),
        feeding=None if batch.feeding is None else batch.feeding.part(rows),
    )
