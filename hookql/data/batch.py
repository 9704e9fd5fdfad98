"""A batch: contexts padded on the right, and what of them the model is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from hookql.data.encode import ROLE, Context
from hookql.language import ast

if TYPE_CHECKING:
    from hookql.predicates.values import Values

Ints = npt.NDArray[np.int64]

EVERYTHING = int(np.iinfo(np.int64).max)
"""`Batch.complete` of the very last batch."""


@frozen(eq=False)
class Feeding:
    """What of a batch the model is fed, where that is less than all: U rows of s columns.

    ``ids`` int64 and ``mask`` bool, (U, s), are the beginnings of contexts, each once; ``row``
    int64 (B,) says which of them is the beginning of each of the batch's contexts. Where all of
    them go on from a ``prefix`` int64 (P,), which the model has in its cache, they begin behind it.
    """

    ids: Ints
    mask: npt.NDArray[np.bool_]
    row: Ints
    prefix: Ints | None = None

    @property
    def start(self) -> int:
        """The first column that is fed."""
        return 0 if self.prefix is None else len(self.prefix)

    def flat(self, columns: int) -> Ints:
        """Which fed token is each of the batch's, int64 (B, columns); -1 where it is not fed."""
        flat = np.full((len(self.row), columns), -1, np.int64)
        width = self.ids.shape[1]
        there = np.where(self.mask, np.arange(self.ids.size).reshape(self.ids.shape), -1)
        stop = min(self.start + width, columns)
        flat[:, self.start : stop] = there[self.row][:, : stop - self.start]
        return flat

    def part(self, rows: slice) -> Feeding:
        """The feeding of some of the contexts."""
        kept, row = np.unique(self.row[rows], return_inverse=True)
        mask = self.mask[kept]
        width = max(1, int(mask.sum(1).max(initial=0)))
        return Feeding(self.ids[kept, :width], mask[:, :width], row.reshape(-1), self.prefix)


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
    ``feeding`` is what of them the model is fed; None: all.
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
    feeding: Feeding | None = None

    @property
    def given(self) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """The ids and the mask that the model is fed, (U, s) each."""
        if self.feeding is None:
            return self.ids, self.mask
        return self.feeding.ids, self.feeding.mask

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
