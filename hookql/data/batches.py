"""From contexts to batches: sorted by length within a window, padded on the right."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from attrs import evolve, field, frozen

from hookql.data.encode import ROLE, Context
from hookql.data.limits import WINDOW_BYTES, weight
from hookql.language import ast

if TYPE_CHECKING:
    from hookql.predicates.values import Values

# What is held at once: enough contexts that sorting leaves little padding, few enough that memory
# stays flat.
WINDOW_TOKENS = 1 << 17
WINDOW_CONTEXTS = 8192


EVERYTHING = int(np.iinfo(np.int64).max)
"""`Batch.complete` of the very last batch."""


@frozen(eq=False)
class Batch:
    """B contexts padded on the right to S positions, as NumPy arrays of shape (B, S).

    ``ids`` int64, ``mask`` bool (True where a token is), ``special`` bool (added by the
    tokenizer), ``sample`` int64 (`Sample.index`, -1 in padding); ``contexts`` are the B rows.

    ``signals`` are numbers of the model's own prediction by name, ``values`` numbers of a module
    by the expression that says them: whoever runs the model adds them, (B, S) each. ``target`` has
    the rows of the decoder, of the same B samples. Samples whose index is below ``complete`` have
    no row in a later batch. ``fed`` bool (B, S) says which of the tokens are rows of this batch;
    None: all. The others are known, as what came before or comes after, and count elsewhere.
    """

    ids: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_]
    special: npt.NDArray[np.bool_]
    sample: npt.NDArray[np.int64]
    contexts: tuple[Context, ...]
    signals: Mapping[str, Values] = field(factory=dict)
    values: Mapping[ast.Expression, Values] = field(factory=dict)
    target: Batch | None = None
    complete: int = 0
    fed: npt.NDArray[np.bool_] | None = None

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """The tokens that are rows, bool (B, S): never True in padding."""
        return self.mask if self.fed is None else self.fed

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """The number of tokens in each row, int64 (B,)."""
        return np.array([len(context.ids) for context in self.contexts], dtype=np.int64)

    @cached_property
    def chunk(self) -> npt.NDArray[np.int64]:
        """The number of each token's context among those of its sample, int64 (B, S)."""
        chunk = np.zeros(self.ids.shape, np.int64)
        for row, context in enumerate(self.contexts):
            here = np.where(context.owner == 0, context.earlier, 0)
            chunk[row, : len(here)] = here
        return chunk

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """Content tokens of each token's sample in earlier contexts, int64 (B, S)."""
        offset = np.zeros(self.ids.shape, np.int64)
        for row, context in enumerate(self.contexts):
            offset[row, : len(context.offset)] = context.offset
        return offset

    @cached_property
    def generated(self) -> npt.NDArray[np.int64]:
        """Which generated token each is, from 0; negative for those of the prompt, int64 (B, S)."""
        whole = self.ids.shape[1]
        given = [whole if c.prompt is None else c.prompt for c in self.contexts]
        return np.arange(whole, dtype=np.int64)[None] - np.array(given, np.int64)[:, None]

    @cached_property
    def role(self) -> npt.NDArray[np.str_] | None:
        """Who says each token, text `ROLE` (B, S), "" where nobody; None where there is no chat."""
        role = np.zeros(self.ids.shape, ROLE)
        for row, context in enumerate(self.contexts):
            if context.roles is None:
                return None
            role[row, : len(context.roles)] = context.roles
        return role

    @cached_property
    def spans(self) -> npt.NDArray[np.int32] | None:
        """The characters of its sample's text that each token is from, int32 (B, S, 2).

        Half-open; -1 where it is from none. None where a context does not say.
        """
        spans = np.full((*self.ids.shape, 2), -1, np.int32)
        for row, context in enumerate(self.contexts):
            if context.spans is None:
                return None
            spans[row, : len(context.spans)] = context.spans
        return spans


def batches(
    contexts: Iterable[Context],
    *,
    tokens_per_batch: int,
    batch_size: int | None = None,
    window_tokens: int = WINDOW_TOKENS,
    window_contexts: int = WINDOW_CONTEXTS,
    group: Callable[[int], Hashable] = lambda length: 0,
    pad_id: int = 0,
) -> Iterator[Batch]:
    """Batches of the contexts, each context in exactly one of them.

    Contexts are taken in windows of about ``window_tokens``, or ``window_contexts``, and sorted by
    length, longest first. A batch has at most ``tokens_per_batch`` positions, padding included (one
    context may exceed it alone), at most ``batch_size`` rows, and only lengths of one
    ``group(length)``. A decoder's rows count too. The last batch of a window says which samples are
    ``complete``, where the contexts come in data order.
    """
    done = 0
    for window, complete in _windows(contexts, window_tokens, window_contexts):
        last: Batch | None = None
        for batch in _grouped(window, tokens_per_batch, batch_size, group, pad_id):
            if last is not None:
                yield _completed(last, done)
            last = batch
        done = complete
        # Let go of them before the next window is gathered.
        window.clear()
        if last is not None:
            yield _completed(last, done)


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
    targets = [context.target for context in contexts if context.target is not None]
    target = collate(targets, pad_id) if len(targets) == len(contexts) else None
    return Batch(ids, mask, special, sample, tuple(contexts), target=target)


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
        stop, target = start, 0
        while stop < len(members) and (batch_size is None or stop - start < batch_size):
            context = members[stop].target
            target = max(target, 0 if context is None else len(context.ids))
            width = len(members[start].ids) + target
            if stop > start and (stop - start + 1) * width > tokens_per_batch:
                break
            stop += 1
        yield collate(members[start:stop], pad_id)
        start = stop
