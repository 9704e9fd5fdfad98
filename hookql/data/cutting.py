"""Batches of a window of contexts: what of each is fed, once if it is the same, cut by size."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from attrs import evolve, frozen

from hookql.data.batch import Batch, Feeding, Ints, collate
from hookql.data.encode import Context

Ends = Callable[["Batch"], Ints]
"""How many tokens of each context the model has to be fed, int64 (B,); 0: none."""


@frozen(eq=False)
class Fed:
    """A beginning that is fed, ``end`` tokens, and the contexts that begin so."""

    end: int
    contexts: list[Context]


Shared = Callable[[Sequence[Fed]], tuple[list[tuple[Ints, list[Fed]]], list[Fed]]]
"""Prefixes, int64 (P,), with all that goes on from each, longest first; and what shares none."""


@frozen(eq=False, kw_only=True)
class Cutter:
    """How contexts become batches, of at most ``tokens`` fed positions and ``rows`` rows.

    Only lengths of one ``group`` share a batch. With ``ends`` only the beginning of each context
    that it says is fed, in batches by the length of that; contexts of which nothing is fed are in
    batches of their own. With ``once`` contexts that are fed the same are fed once: not for those
    with a decoder's. ``shared`` finds what many of them begin with: that is fed first, in a batch
    of its own, and then what comes behind it.

    Where nothing of a context is run, or many are one to the model, a batch has ``each`` positions
    for each that it may feed.
    """

    tokens: int
    rows: int | None = None
    group: Callable[[int], Hashable] = lambda length: 0
    pad_id: int = 0
    ends: Ends | None = None
    once: bool = False
    shared: Shared | None = None
    each: int = 32

    def __call__(self, window: Sequence[Context]) -> Iterator[Batch]:
        """Batches of these contexts, the longest first."""
        ordered = sorted(window, key=lambda c: -len(c.ids))
        found = [len(context.ids) for context in ordered]
        if self.ends is not None:
            found = self._ends(ordered, self.ends)
            idle = [context for context, end in zip(ordered, found, strict=True) if not end]
            yield from (collate(part, self.pad_id) for part in _parts(idle, self._columns))
        single = _once(ordered, found, self._columns if self.once else 0)
        if self.shared is not None:
            together, single = self.shared(single)
            for prefix, members in together:
                yield from self._prefix(prefix, [c for fed in members for c in fed.contexts])
                yield from self._cut(members, prefix)
        groups: dict[Hashable, list[Fed]] = {}
        for fed in single:
            groups.setdefault(self.group(fed.end), []).append(fed)
        for members in groups.values():
            yield from self._cut(members)

    @property
    def _columns(self) -> int:
        return self.each * self.tokens

    def _ends(self, contexts: Sequence[Context], ends: Ends) -> list[int]:
        """How much of each context is fed; none that belongs to another group than the whole."""
        found: list[int] = []
        for part in _parts(contexts, self._columns):
            found += map(int, ends(collate(part, self.pad_id)))
        whole = [len(context.ids) for context in contexts]
        return [
            end if end in (0, length) or self.group(end) == self.group(length) else length
            for end, length in zip(found, whole, strict=True)
        ]

    def _prefix(self, prefix: Ints, contexts: Sequence[Context]) -> Iterator[Batch]:
        """Batches whose rows are those of what all the contexts begin with, fed once."""
        ids = prefix[None]
        for part in _parts(sorted(contexts, key=lambda c: -len(c.ids)), self._columns):
            batch = collate(part, self.pad_id)
            fed = batch.mask & (np.arange(batch.ids.shape[1]) < len(prefix))
            row = np.zeros(len(part), np.int64)
            yield evolve(batch, fed=fed, feeding=Feeding(ids, np.ones_like(ids, np.bool_), row))

    def _cut(self, members: Sequence[Fed], prefix: Ints | None = None) -> Iterator[Batch]:
        """Batches of what is fed, sorted longest first: the first of each is its widest."""
        start = 0
        while start < len(members):
            stop, target, contexts, columns = start, 0, 0, 0
            while stop < len(members) and (self.rows is None or stop - start < self.rows):
                fed = members[stop]
                behind = fed.contexts[0].target
                target = max(target, 0 if behind is None else len(behind.ids))
                width = members[start].end + target - (0 if prefix is None else len(prefix))
                contexts += len(fed.contexts)
                columns = max(columns, *(len(context.ids) for context in fed.contexts))
                over = (stop - start + 1) * width > self.tokens
                if stop > start and (over or contexts * columns > self._columns):
                    break
                stop += 1
            yield _fed(members[start:stop], self.pad_id, prefix)
            start = stop


def _once(contexts: Sequence[Context], ends: Sequence[int], columns: int) -> list[Fed]:
    """What is fed, the longest first; the same once for contexts of that many positions."""
    made: list[Fed] = []
    known: dict[bytes, Fed] = {}
    for context, end in sorted(zip(contexts, ends, strict=True), key=lambda each: -each[1]):
        if not end:
            continue
        same = context.ids[:end].tobytes() if columns else b""
        fed = known.get(same) if columns else None
        if fed is not None and (len(fed.contexts) + 1) * len(fed.contexts[0].ids) <= columns:
            fed.contexts.append(context)
            continue
        known[same] = fed = Fed(end, [context])
        made.append(fed)
    return made


def _parts(contexts: Sequence[Context], columns: int) -> Iterator[Sequence[Context]]:
    """Contexts, the longest first, in runs of at most so many positions."""
    start = 0
    while start < len(contexts):
        stop = start + max(1, columns // len(contexts[start].ids))
        yield contexts[start:stop]
        start = stop


def _fed(members: Sequence[Fed], pad_id: int, prefix: Ints | None = None) -> Batch:
    """One batch of these, of whose contexts the model is fed only what differs."""
    batch = collate([context for fed in members for context in fed.contexts], pad_id)
    row = np.repeat(np.arange(len(members)), [len(fed.contexts) for fed in members])
    end = np.array([fed.end for fed in members])
    if prefix is None and len(row) == len(members) and (end == batch.length).all():
        return batch
    first = np.searchsorted(row, np.arange(len(members)))
    mask = np.arange(end[0])[None] < end[:, None]
    ids = np.where(mask, batch.ids[first, : end[0]], pad_id)
    if prefix is None:
        return evolve(batch, feeding=Feeding(ids, mask, row))
    start = len(prefix)
    behind = batch.mask & (np.arange(batch.ids.shape[1]) >= start)
    return evolve(batch, fed=behind, feeding=Feeding(ids[:, start:], mask[:, start:], row, prefix))
