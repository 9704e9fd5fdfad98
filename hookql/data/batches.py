"""From contexts to batches: sorted by length within a window, padded on the right."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from attrs import frozen

from hookql.data.encode import Context

# What is held at once: enough contexts that sorting leaves little padding, few enough that memory
# stays flat.
WINDOW_TOKENS = 1 << 17
_WINDOW_CONTEXTS = 8192


@frozen(eq=False)
class Batch:
    """B contexts padded on the right to S positions, as NumPy arrays of shape (B, S).

    ``ids`` int64, ``mask`` bool (True where a token is), ``special`` bool (added by the
    tokenizer), ``sample`` int64 (`Sample.index`, -1 in padding); ``contexts`` are the B rows.
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    special: npt.NDArray[np.bool_]
    sample: npt.NDArray[np.int64]
    contexts: tuple[Context, ...]

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """The number of tokens in each row, int64 (B,)."""
        return np.array([len(context.ids) for context in self.contexts], dtype=np.int64)


def batches(
    contexts: Iterable[Context],
    *,
    tokens_per_batch: int,
    batch_size: int | None = None,
    window_tokens: int = WINDOW_TOKENS,
    group: Callable[[int], Hashable] = lambda length: 0,
    pad_id: int = 0,
) -> Iterator[Batch]:
    """Batches of the contexts, each context in exactly one of them.

    Contexts are taken in windows of about ``window_tokens`` and sorted by length, longest first. A
    batch has at most ``tokens_per_batch`` positions, padding included (one context may exceed it
    alone), at most ``batch_size`` rows, and only lengths of one ``group(length)``.
    """
    for window in _windows(contexts, window_tokens):
        yield from _grouped(window, tokens_per_batch, batch_size, group, pad_id)
        # Let go of it before the next one is gathered.
        window.clear()


def collate(contexts: Sequence[Context], pad_id: int = 0) -> Batch:
    """One batch of these contexts, padded on the right to the longest."""
    shape = len(contexts), max(len(context.ids) for context in contexts)
    ids = np.full(shape, pad_id, np.int64)
    mask, special = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    sample = np.full(shape, -1, np.int64)
    for row, context in enumerate(contexts):
        length = len(context.ids)
        ids[row, :length] = context.ids
        mask[row, :length] = True
        special[row, :length] = context.special
        indexes = np.array([s.index for s in context.samples], dtype=np.int64)
        sample[row, :length] = indexes[context.owner]
    return Batch(ids, mask, special, sample, tuple(contexts))


def _windows(contexts: Iterable[Context], tokens: int) -> Iterator[list[Context]]:
    window: list[Context] = []
    held = 0
    for context in contexts:
        window.append(context)
        held += len(context.ids)
        if held >= tokens or len(window) >= _WINDOW_CONTEXTS:
            yield window
            window, held = [], 0
    if window:
        yield window


def _grouped(
    window: Sequence[Context],
    tokens_per_batch: int,
    batch_size: int | None,
    group: Callable[[int], Hashable],
    pad_id: int,
) -> Iterator[Batch]:
    groups: dict[Hashable, list[Context]] = {}
    for context in sorted(window, key=lambda c: -len(c.ids)):
        groups.setdefault(group(len(context.ids)), []).append(context)
    for members in groups.values():
        yield from _cut(members, tokens_per_batch, batch_size, pad_id)


def _cut(
    members: Sequence[Context], tokens_per_batch: int, batch_size: int | None, pad_id: int
) -> Iterator[Batch]:
    """Batches of contexts that are sorted longest first: the first of each is its widest."""
    start = 0
    while start < len(members):
        rows = max(1, tokens_per_batch // len(members[start].ids))
        if batch_size is not None:
            rows = min(rows, batch_size)
        yield collate(members[start : start + rows], pad_id)
        start += rows
