"""From contexts to batches: in windows, whose contexts are sorted by length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator

from attrs import evolve

from hookql.data.batch import EVERYTHING, Batch, Feeding, Ints, collate
from hookql.data.cutting import Cutter, Ends, Shared
from hookql.data.encode import Context
from hookql.data.limits import WINDOW_BYTES, weight

__all__ = ["EVERYTHING", "Batch", "Feeding", "Ints", "batches", "collate"]

# What is held at once: enough contexts that sorting leaves little padding, few enough that memory
# stays flat.
WINDOW_TOKENS = 1 << 17
WINDOW_CONTEXTS = 8192


def batches(
    contexts: Iterable[Context],
    *,
    tokens_per_batch: int,
    batch_size: int | None = None,
    window_tokens: int = WINDOW_TOKENS,
    window_contexts: int = WINDOW_CONTEXTS,
    group: Callable[[int], Hashable] = lambda length: 0,
    pad_id: int = 0,
    ends: Ends | None = None,
    once: bool = False,
    shared: Shared | None = None,
    each: int = 32,
) -> Iterator[Batch]:
    """Batches of the contexts, each context in exactly one of them.

    Contexts are taken in windows of about ``window_tokens``, or ``window_contexts``, and sorted by
    length, longest first. A batch has at most ``tokens_per_batch`` positions, padding included (one
    context may exceed it alone), at most ``batch_size`` rows, and only lengths of one
    ``group(length)``. A decoder's rows count too. The last batch of a window says which samples are
    ``complete``, where the contexts come in data order.

    ``ends``, ``once``, ``shared`` and ``each`` are as of a `Cutter`.
    """
    cutter = Cutter(
        tokens=tokens_per_batch,
        rows=batch_size,
        group=group,
        pad_id=pad_id,
        ends=ends,
        once=once,
        shared=shared,
        each=each,
    )
    done = 0
    for window, complete in _windows(contexts, window_tokens, window_contexts):
        last: Batch | None = None
        for batch in cutter(window):
            if last is not None:
                yield _completed(last, done)
            last = batch
        done = complete
        # Let go of them before the next window is gathered.
        window.clear()
        if last is not None:
            yield _completed(last, done)


def _completed(batch: Batch, complete: int) -> Batch:
    target = batch.target
    return evolve(
        batch,
        complete=complete,
        target=None if target is None else evolve(target, complete=complete),
    )


def _windows(
    contexts: Iterable[Context], tokens: int, most: int
) -> Iterator[tuple[list[Context], int]]:
    """Windows, and the index below which no sample has a context behind the window."""
    window: list[Context] = []
    held, heavy, latest = 0, 0, -1
    for context in contexts:
        if held >= tokens or len(window) >= most or heavy >= WINDOW_BYTES:
            yield window, context.samples[0].index
            window, held, heavy = [], 0, 0
        window.append(context)
        held += len(context.ids)
        for sample in context.samples:
            if sample.index > latest:  # a sample in several contexts is one object
                latest = sample.index
                heavy += weight(sample.row)
    if window:
        yield window, EVERYTHING
