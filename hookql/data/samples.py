"""What data is made of: samples, and the data set that yields them in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from attrs import define, field, frozen

from hookql.data.limits import WINDOW_BYTES, weight
from hookql.errors import DataError, Diagnostic

# Samples are tokenised this many at a time, or fewer when they are long.
AT_ONCE = 256
_CHARACTERS = 1 << 20


class Field(str):
    """A field of a CSV file: text that a query may also compare as a number or a boolean.

    An empty one is absent: `none` in a query.
    """

    __slots__ = ()


Said: TypeAlias = tuple[tuple[int, str], ...]
"""Who says which part of a text: where each part ends, and the role, "" where it is nobody's."""


@frozen
class Sample:
    """One text of the data.

    ``index`` counts samples in data order from 0, empty ones included; ``row`` holds every column
    of the data, the text's own too; ``place`` is ``file:line`` where that is known. ``said`` is
    there for a chat's text, which is "" until a tokenizer's template has made it.
    """

    index: int
    text: str
    row: Mapping[str, object]
    place: str | None = field(default=None, eq=False)
    said: Said | None = field(default=None, eq=False)

    def describe(self) -> str:
        """``sample 3 (text.txt:4)``, for messages."""
        return f"sample {self.index}" + (f" ({self.place})" if self.place else "")


@define(eq=False)
class Dataset:
    """Samples in data order, read as they are asked for; iterating again reads again.

    ``source`` names where they come from. ``columns`` are the names that ``row`` may hold, or None
    where the format does not say; ``seen`` are those that the rows read so far had. A source that
    can be read only once (stdin, a generator) raises `DataError` when it is iterated again.
    """

    source: str
    columns: tuple[str, ...] | None
    _samples: Callable[[], Iterator[Sample]]
    _count: Callable[[], int | None]
    reads_again: bool = True
    _total: int | None = None
    _counted: bool = False
    _hash: hashlib._Hash = field(factory=hashlib.sha256)
    seen: set[str] = field(factory=set, init=False)

    def __iter__(self) -> Iterator[Sample]:
        for sample in self.read():
            self.note(sample)
            yield sample

    def read(self) -> Iterator[Sample]:
        """The samples, none of which counts before `note` is told of it."""
        self._hash = hashlib.sha256()
        empty = True
        for sample in self._samples():
            empty = False
            yield sample
        if empty:
            raise no_samples(self.source)

    def note(self, sample: Sample) -> None:
        """Count a sample into the fingerprint: in data order, each once."""
        self.seen.update(sample.row)
        update_fingerprint(self._hash, sample)

    @property
    def total(self) -> int | None:
        """How many samples there are (after the limit), where that is cheap to know; else None."""
        if not self._counted:
            self._total, self._counted = self._count(), True
        return self._total

    @property
    def fingerprint(self) -> str:
        """The sha256 of every text and row value read in the latest iteration, in order."""
        return self._hash.hexdigest()


def no_samples(source: str) -> DataError:
    """The error for data without a single sample."""
    return DataError(Diagnostic("no-samples", f"{source} holds no samples"))


def update_fingerprint(digest: hashlib._Hash, sample: Sample) -> None:
    """Add a sample's text and row to a hash, so that equal data has equal hashes."""
    _feed(digest, sample.text)
    for name in sorted(sample.row):
        value = sample.row[name]
        _feed(digest, name)
        if isinstance(value, str) and value == sample.text:
            # The text itself is in the row again: a mark is enough, and saves hashing it twice.
            digest.update(b"=")
        else:
            _feed(digest, value)
    digest.update(b"\n")


def _feed(digest: hashlib._Hash, value: object) -> None:
    """One value with its type and length, so that no two different values look the same."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        digest.update(b"s%d:" % len(data))
        digest.update(data)
    elif value is None or isinstance(value, bool | int | float | complex):
        _feed_atom(digest, value)
    elif isinstance(value, bytes | bytearray):
        digest.update(b"b%d:" % len(value))
        digest.update(value)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"a{value.dtype.str}{value.shape}:".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        digest.update(b"m%d:" % len(value))
        for key in sorted(value, key=str):
            _feed(digest, str(key))
            _feed(digest, value[key])
    elif isinstance(value, list | tuple | np.ndarray):
        digest.update(b"l%d:" % len(value))
        for item in value:
            _feed(digest, item)
    else:
        _feed_atom(digest, value)


def _feed_atom(digest: hashlib._Hash, value: object) -> None:
    """A value by its type and repr; only the type where the repr is just an address."""
    shown = repr(value)
    if " at 0x" in shown:
        shown = ""
    digest.update(f"{type(value).__name__}({shown})".encode("utf-8", "surrogatepass"))


def numbered(records: Iterable[tuple[str | None, str, Mapping[str, object]]]) -> Iterator[Sample]:
    """Samples from (place, text, row) records."""
    for index, (place, text, row) in enumerate(records):
        yield Sample(index, text, row, place)


def chunks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples in lists bounded by number and characters (one sample may exceed the latter)."""
    chunk: list[Sample] = []
    characters = columns = 0
    for sample in samples:
        chunk.append(sample)
        characters += len(sample.text)
        columns += weight(sample.row)
        if len(chunk) == AT_ONCE or characters >= _CHARACTERS or columns >= WINDOW_BYTES:
            yield chunk
            chunk, characters, columns = [], 0, 0
    if chunk:
        yield chunk
