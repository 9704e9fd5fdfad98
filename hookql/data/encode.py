"""From samples to contexts: the token ids of each row that will enter the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from attrs import define, frozen

from hookql.data.pack import Packer
from hookql.data.samples import Sample
from hookql.data.tokens import Encoded, Rows, encode_texts, ends
from hookql.errors import DataError, Diagnostic, UsageError, did_you_mean, listing

Overflow: TypeAlias = Literal["split", "truncate", "pack", "error"]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

# Samples are tokenised this many at a time, or fewer when they are long.
_SAMPLES = 256
_CHARACTERS = 1 << 20


@frozen(eq=False)
class Context:
    """One row that will enter the model.

    ``ids`` int64 (L,), ``special`` bool (L,): added by the tokenizer, ``owner`` int64 (L,): the
    index into ``samples`` of the sample a token is from (all 0 unless packed). ``chunk`` counts
    the contexts of a split sample, or all contexts when packing, so that (sample, chunk, position)
    names a token whatever the batches are.
    """

    ids: Ints
    special: Bools
    owner: Ints
    samples: tuple[Sample, ...]
    chunk: int = 0


@define
class Counts:
    """What became of the samples so far.

    ``tokens`` are those that run, special ones included; ``tokens_dropped`` those cut off by
    truncation. ``samples_empty`` have no token but special ones and do not run;
    ``samples_split`` lie in several contexts.
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

    Raises:
        UsageError: for an unknown ``overflow``, or a ``max_length`` with no room for a token.
        DataError: while iterating, for a sample that cannot be tokenised or, with ``error``, is
            too long.
    """

    def __init__(
        self, tokenizer: Any, max_length: int | None = None, overflow: Overflow = "split"
    ) -> None:
        _check(tokenizer, max_length, overflow)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.overflow = overflow
        self.counts = Counts()

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Context]:
        """The contexts of the samples, in order; ``counts`` starts from zero."""
        self.counts = Counts()
        rows = self._encoded(samples)
        for context in self._packed(rows) if self.overflow == "pack" else self._fitted(rows):
            self.counts.contexts += 1
            self.counts.tokens += len(context.ids)
            yield context

    def _encoded(self, samples: Iterable[Sample]) -> Rows:
        """Each sample with its tokens, those without a content token left out."""
        for chunk in _chunks(samples):
            for sample, row in zip(chunk, encode_texts(self.tokenizer, chunk), strict=True):
                self.counts.samples += 1
                if row.special.all():
                    self.counts.samples_empty += 1
                else:
                    yield sample, row

    def _fitted(self, rows: Rows) -> Iterator[Context]:
        """Contexts of one sample each."""
        for sample, row in rows:
            if self.max_length is None or len(row.ids) <= self.max_length:
                yield _context(sample, row, 0)
            elif self.overflow == "error":
                raise _too_long(sample, len(row.ids), self.max_length)
            else:
                yield from self._cut(sample, row, self.max_length)

    def _cut(self, sample: Sample, row: Encoded, max_length: int) -> Iterator[Context]:
        """The pieces of a long sample, each between the row's own leading and trailing specials."""
        head, tail = ends(row.special)
        room = max_length - head - tail
        if room < 1:
            raise _no_room(max_length, head + tail)
        stop = len(row.ids) - tail
        truncate = self.overflow == "truncate"
        for chunk, start in enumerate(range(head, stop, room)):
            parts = (slice(0, head), slice(start, min(start + room, stop)), slice(stop, None))
            piece = Encoded(
                np.concatenate([row.ids[part] for part in parts]),
                np.concatenate([row.special[part] for part in parts]),
            )
            yield _context(sample, piece, chunk)
            if truncate:
                self.counts.samples_truncated += 1
                self.counts.tokens_dropped += stop - start - room
                return
        self.counts.samples_split += 1

    def _packed(self, rows: Rows) -> Iterator[Context]:
        """Full contexts of successive samples."""
        assert self.max_length is not None
        packer = Packer(self.max_length, _separator(self.tokenizer))
        for chunk, (ids, special, owner, samples) in enumerate(packer(rows)):
            self.counts.samples_split = packer.split
            yield Context(ids, special, owner, samples, chunk)
        self.counts.samples_split = packer.split


def _context(sample: Sample, row: Encoded, chunk: int) -> Context:
    return Context(row.ids, row.special, np.zeros(len(row.ids), np.int64), (sample,), chunk)


def _chunks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples in lists bounded by number and characters (one sample may exceed the latter)."""
    chunk: list[Sample] = []
    characters = 0
    for sample in samples:
        chunk.append(sample)
        characters += len(sample.text)
        if len(chunk) == _SAMPLES or characters >= _CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _separator(tokenizer: Any) -> int | None:
    """The token that stands between packed samples where the tokenizer adds none of its own."""
    for role in ("eos", "bos", "sep"):
        token = getattr(tokenizer, f"{role}_token_id", None)
        if isinstance(token, int):
            return token
    return None


def _check(tokenizer: Any, max_length: int | None, overflow: str) -> None:
    known = get_args(Overflow)
    if overflow not in known:
        raise UsageError(
            Diagnostic(
                "bad-overflow",
                f"there is no overflow `{overflow}`",
                help=did_you_mean(overflow, known),
                notes=(f"known: {listing(known)}",),
            )
        )
    if max_length is None:
        if overflow == "pack":
            raise UsageError(
                Diagnostic(
                    "needs-max-length",
                    "packing needs a length to fill, and the model has no limit of its own",
                    help="give --max-length",
                )
            )
        return
    count = getattr(tokenizer, "num_special_tokens_to_add", None)
    specials = int(count()) if callable(count) else 0
    if max_length < specials + 1:
        raise _no_room(max_length, specials)


def _no_room(max_length: int, specials: int) -> UsageError:
    return UsageError(
        Diagnostic(
            "bad-max-length",
            f"a max length of {max_length} leaves no room for a token"
            + (f" beside {specials} special token{'s' * (specials > 1)}" if specials else ""),
            help=f"give --max-length {specials + 1} or more",
        )
    )


def _too_long(sample: Sample, length: int, max_length: int) -> DataError:
    return DataError(
        Diagnostic(
            "too-long",
            f"{sample.describe()} has {length} tokens, more than the limit of {max_length}",
            help="choose what becomes of long samples with --overflow split, truncate or pack",
        )
    )
