"""From samples to contexts: the token ids of each row that will enter the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import Factory, define, evolve, field, frozen

from hookql.data.ahead import ahead
from hookql.data.chat import encode_chats
from hookql.data.overflow import Overflow, check_overflow, no_room, too_long
from hookql.data.pack import Packer, separator
from hookql.data.samples import AT_ONCE, Sample, chunks
from hookql.data.speakers import ROLE as ROLE
from hookql.data.speakers import Chats
from hookql.data.targets import encode_targets, packed_target, split_target, target_sample
from hookql.data.tokens import (
    Encoded,
    Rows,
    Skipped,
    encode_texts,
    ends,
    has_spans,
    needs_offsets,
)
from hookql.errors import DataError

_Encode: TypeAlias = Callable[[Sequence[Sample]], list[Encoded]]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

# What a chat template cannot do: samples that may be skipped.
_NO_TEXT = ("template-refuses", "unclear-roles")


@frozen(eq=False)
class Context:
    """One row that will enter the model.

    ``ids`` int64 (L,), ``special`` bool (L,): added by the tokenizer, ``owner`` int64 (L,): the
    index into ``samples`` of the sample a token is from (all 0 unless packed). ``chunk`` counts
    the contexts of a split sample, or all contexts when packing, so that (sample, chunk, position)
    names a token whatever the batches are. ``earlier`` is the number of contexts that already hold
    tokens of the first sample; all others begin here.

    ``offset`` int64 (L,): how many content tokens of the token's own sample lie in earlier
    contexts. ``spans`` int32 (L, 2), or None where nobody asked: the characters of its sample's
    text that a token is from, half-open, -1 where it is from none. ``target`` is the row that
    enters the decoder beside this one; its samples' text is the decoder's.

    ``prompt`` is how many of the tokens were given; the model generated those behind. None: all.
    ``roles`` text `ROLE` (L,): who says each token in a chat, "" where nobody; None without a chat.
    """

    ids: Ints
    special: Bools
    owner: Ints
    samples: tuple[Sample, ...]
    chunk: int = 0
    earlier: int = field(default=Factory(lambda self: self.chunk, takes_self=True))
    offset: Ints = field(
        default=Factory(lambda self: np.zeros(len(self.ids), np.int64), takes_self=True)
    )
    spans: npt.NDArray[np.int32] | None = None
    target: Context | None = None
    prompt: int | None = None
    roles: npt.NDArray[np.str_] | None = None


@define
class Counts:
    """What became of the samples so far.

    ``tokens`` are those that run, special ones included, a decoder's not; ``tokens_dropped`` those
    cut off by truncation, a decoder's too. ``samples_empty`` have no token but special ones and do
    not run; ``samples_split`` lie in several contexts.
    """

    samples: int = 0
    samples_empty: int = 0
    samples_truncated: int = 0
    samples_split: int = 0
    contexts: int = 0
    tokens: int = 0
    tokens_dropped: int = 0


class Encoder:
    """Turns samples into contexts of at most ``max_length`` tokens, in data order.

    ``overflow`` says what becomes of a longer sample: ``split`` into pieces without overlap, each
    with the tokenizer's own special tokens around it; ``truncate`` to the first such piece;
    ``error``. ``pack`` fills contexts of exactly ``max_length`` from successive samples, the last
    one excepted. ``max_length`` None is no limit. ``counts`` is complete once the contexts are.

    ``spans`` also finds out where in its text each token is from. ``target`` names the column
    that holds the decoder's text, which is run behind the token ``target_start``; a sample that
    has one must be whole, or truncated. With ``on_error`` "skip" a sample that the tokenizer
    refuses is left out and stands in ``refused``, as does one whose text for the decoder it
    refuses; "stop" raises. All four may be set until the contexts are asked for, as may ``ahead``:
    whether a thread encodes texts a window ahead.

    ``chat`` names the column that holds messages, which the tokenizer's chat template renders; with
    ``add_generation_prompt`` it writes the header of an answer behind them. The contexts then say
    who says each token.

    Raises:
        UsageError: for an unknown ``overflow``, a ``max_length`` with no room for a token, or chats
            where the tokenizer has no template.
        DataError: while iterating, for a sample that cannot be tokenised, is too long with
            ``error`` or a target, has no text for the decoder, or is no chat.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int | None = None,
        overflow: Overflow = "split",
        *,
        spans: bool = False,
        target: str | None = None,
        target_start: int = 0,
        chat: str | None = None,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        check_overflow(tokenizer, max_length, overflow)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.overflow = overflow
        self.spans = spans
        self.target = target
        self.target_start = target_start
        self.chats = None if chat is None else Chats(tokenizer, chat)
        self.add_generation_prompt = False
        self.on_error = on_error
        self.ahead = False
        self.counts = Counts()
        self.refused: list[Skipped] = []

    def __call__(
        self, samples: Iterable[Sample], note: Callable[[Sample], None] = lambda sample: None
    ) -> Iterator[Context]:
        """The contexts of the samples, in order; ``counts`` and ``refused`` start anew.

        ``note`` is told of each sample that is counted: with ``ahead`` others have been read too.
        """
        if self.spans and not has_spans(self.tokenizer):
            raise needs_offsets()
        if self.target is not None and self.overflow == "pack":
            raise packed_target()
        self.counts, self.refused = Counts(), []
        rows = self._encoded(samples, note)
        contexts = self._packed(rows) if self.overflow == "pack" else self._fitted(rows)
        for context in contexts if self.target is None else self._aimed(contexts, self.target):
            self.counts.contexts += 1
            self.counts.tokens += len(context.ids)
            yield context

    def _encoded(self, samples: Iterable[Sample], note: Callable[[Sample], None]) -> Rows:
        """Each sample with its tokens, those without a content token left out."""
        for chunk, rows in self._rows(samples):
            self.counts.samples += len(chunk)
            for sample in chunk:
                note(sample)
            for sample, row in zip(chunk, rows, strict=True):
                if row is None:
                    continue
                if row.special.all():
                    self.counts.samples_empty += 1
                else:
                    yield sample, row

    def _rows(
        self, samples: Iterable[Sample]
    ) -> Iterator[tuple[Sequence[Sample], Sequence[Encoded | None]]]:
        """Chunks of samples with the tokens of each."""

        def tried(chunk: Sequence[Sample]) -> Sequence[Encoded | None]:
            return self._tried(self._encode, chunk)

        if self.ahead and self.chats is None:
            return ahead(chunks(samples), tried, self.tokenizer, self.spans)
        rendered = samples if self.chats is None else self._rendered(samples)
        return ((chunk, tried(chunk)) for chunk in chunks(rendered))

    def _encode(self, samples: Sequence[Sample]) -> list[Encoded]:
        if self.chats is not None:
            return encode_chats(self.tokenizer, samples)
        return encode_texts(self.tokenizer, samples, self.spans)

    def _rendered(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Each sample with its chat as text, those left out that are to be skipped."""
        assert self.chats is not None
        self.chats.prompt = self.add_generation_prompt
        for sample in samples:
            try:
                yield self.chats(sample)
            except DataError as error:
                if self.on_error == "stop" or error.code not in _NO_TEXT:
                    raise
                self.counts.samples += 1
                self.refused.append(_skipped(sample, error))

    def _tried(self, encode: _Encode, samples: Sequence[Sample]) -> Sequence[Encoded | None]:
        """The tokens of each sample, None where the tokenizer refuses one that is to be skipped."""
        try:
            return encode(samples)
        except DataError as error:
            if self.on_error == "stop" or error.code != "cannot-tokenise":
                raise
            if len(samples) == 1:
                self.refused.append(_skipped(samples[0], error))
                return [None]
        return [self._tried(encode, [sample])[0] for sample in samples]

    def _fitted(self, rows: Rows) -> Iterator[Context]:
        """Contexts of one sample each."""
        for sample, row in rows:
            if self.max_length is None or len(row.ids) <= self.max_length:
                yield _context(sample, row, 0, 0)
            elif self.overflow == "error":
                choices: str | None = "split, truncate or pack"
                if self.target is not None or self.add_generation_prompt:
                    # The end of a chat is the header of the answer that is to be written.
                    choices = None if self.chats is not None else "truncate"
                raise too_long(sample.describe(), len(row.ids), self.max_length, choices)
            elif self.overflow == "split" and self.target is not None:
                raise split_target(sample, len(row.ids), self.max_length)
            else:
                yield from self._cut(sample, row, self.max_length)

    def _cut(self, sample: Sample, row: Encoded, max_length: int) -> Iterator[Context]:
        """The pieces of a long sample, each between the row's own leading and trailing specials."""
        head, tail = ends(row)
        room = max_length - head - tail
        if room < 1:
            raise no_room(max_length, head + tail)
        stop = len(row.ids) - tail
        truncate = self.overflow == "truncate"
        before: Ints = np.cumsum(~row.special) - ~row.special
        for chunk, start in enumerate(range(head, stop, room)):
            middle = slice(start, min(start + room, stop))
            piece = row.cut(slice(0, head), middle, slice(stop, None))
            yield _context(sample, piece, chunk, int(before[start]))
            if truncate:
                self.counts.samples_truncated += 1
                self.counts.tokens_dropped += stop - start - room
                return
        self.counts.samples_split += 1

    def _packed(self, rows: Rows) -> Iterator[Context]:
        """Full contexts of successive samples."""
        assert self.max_length is not None
        packer = Packer(self.max_length, separator(self.tokenizer))
        for chunk, packed in enumerate(packer(rows)):
            self.counts.samples_split = packer.split
            row = packed.row
            offset = np.where(packed.owner == 0, packed.before, 0).astype(np.int64)
            yield Context(
                row.ids,
                row.special,
                packed.owner,
                packed.samples,
                chunk,
                packed.earlier,
                offset,
                row.spans,
                roles=row.roles,
            )
        self.counts.samples_split = packer.split

    def _aimed(self, contexts: Iterator[Context], column: str) -> Iterator[Context]:
        """Contexts of one whole sample each, with the decoder's row beside each."""
        while some := list(islice(contexts, AT_ONCE)):
            samples = [target_sample(context.samples[0], column) for context in some]
            rows = self._tried(self._targets, samples)
            for context, sample, row in zip(some, samples, rows, strict=True):
                if row is None:
                    continue
                dropped = len(row.ids) - (self.max_length or len(row.ids))
                if dropped > 0:
                    if self.overflow != "truncate":
                        said = f"the text for the decoder of {sample.describe()}"
                        raise too_long(said, len(row.ids), self.max_length or 0, "truncate")
                    row = row.cut(slice(self.max_length))
                    self.counts.tokens_dropped += dropped
                yield evolve(context, target=_context(sample, row, 0, 0))

    def _targets(self, samples: Sequence[Sample]) -> list[Encoded]:
        return encode_targets(self.tokenizer, samples, self.target_start, self.spans)


def _context(sample: Sample, row: Encoded, chunk: int, before: int) -> Context:
    length = len(row.ids)
    return Context(
        row.ids,
        row.special,
        np.zeros(length, np.int64),
        (sample,),
        chunk,
        offset=np.full(length, before, np.int64),
        spans=row.spans,
        roles=row.roles,
    )


def _skipped(sample: Sample, error: DataError) -> Skipped:
    return Skipped(sample.index, -1, error.message.removeprefix(sample.describe()).lstrip(": "))
