"""Tokenising ahead: a thread encodes the samples of the next window while the model runs.

Only that is done there. Data is read where it always was, in the thread that asks for it, for an
iterator of the user's, or a database's cursor, may bear no other; only it is read earlier, and what
goes wrong is raised when its turn comes. The thread has a tokenizer of its own, a copy: a tokenizer
in Rust holds settings, which a user who calls theirs meanwhile would change under it.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from attrs import define, field

from hookql.data.limits import WINDOW_BYTES, weight
from hookql.data.samples import Sample
from hookql.data.tokens import Encoded, encode_texts, has_spans

Chunk: TypeAlias = list[Sample]
Encode: TypeAlias = Callable[[Sequence[Sample]], Sequence[Encoded | None]]

# About a window: what is read and encoded ahead, beside the window that runs.
_SAMPLES = 8192
_CHARACTERS = 1 << 19


def ahead(
    chunks: Iterable[Chunk], encode: Encode, tokenizer: Any, spans: bool
) -> Iterator[tuple[Chunk, Sequence[Encoded | None]]]:
    """Each chunk with its tokens, in order, as ``encode`` makes them of its texts.

    Data of less than a window, or a tokenizer that holds Python's lock or cannot be copied, is
    encoded by ``encode`` when its turn comes; so is a chunk that the thread fails on, which then
    says what is wrong with it. The thread ends with the generator.
    """
    coming = _Coming(iter(chunks))
    coming.fill()
    twin = None if coming.over else _twin(tokenizer, coming.waiting[0], spans)
    if twin is None:
        while (chunk := coming.pop()) is not None:
            yield chunk, encode(chunk)
        return
    pool = ThreadPoolExecutor(1, "hookql-tokens")
    futures: deque[Future[list[Encoded]]] = deque()
    try:
        while True:
            coming.fill()
            for chunk in islice(coming.waiting, len(futures), None):
                futures.append(pool.submit(encode_texts, twin, chunk, spans))
            if (next_chunk := coming.pop()) is None:
                return
            future = futures.popleft()
            failed = future.exception() is not None
            yield next_chunk, encode(next_chunk) if failed else future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@define(eq=False)
class _Coming:
    """Chunks that were read ahead, and what ended the reading."""

    chunks: Iterator[Chunk]
    waiting: deque[Chunk] = field(factory=deque)
    over: bool = False
    error: Exception | None = None
    samples: int = 0
    characters: int = 0
    bytes: int = 0

    def fill(self) -> None:
        """Read until a window is waiting, or nothing comes any more."""
        while not (self.over or self._full()):
            try:
                chunk = next(self.chunks)
            except StopIteration:
                self.over = True
            except Exception as error:
                self.over, self.error = True, error
            else:
                self.waiting.append(chunk)
                self._weigh(chunk, 1)

    def pop(self) -> Chunk | None:
        """The next chunk. Behind the last one what ended the reading is raised, if anything did."""
        if not self.waiting:
            self.fill()
        if self.waiting:
            chunk = self.waiting.popleft()
            self._weigh(chunk, -1)
            return chunk
        if self.error is not None:
            raise self.error
        return None

    def _full(self) -> bool:
        heavy = self.characters >= _CHARACTERS or self.bytes >= WINDOW_BYTES // 2
        return heavy or self.samples >= _SAMPLES

    def _weigh(self, chunk: Chunk, sign: int) -> None:
        self.samples += sign * len(chunk)
        self.characters += sign * sum(len(sample.text) for sample in chunk)
        self.bytes += sign * sum(weight(sample.row) for sample in chunk)


def _twin(tokenizer: Any, chunk: Chunk, spans: bool) -> Any:
    """A copy that shares nothing and makes the same tokens of a few samples; None without one.

    Parts written in Python cannot be copied, and what draws at random does not agree.
    """
    if not has_spans(tokenizer):
        return None
    try:
        twin = copy.deepcopy(tokenizer)
        ours, theirs = (encode_texts(each, chunk[:32], spans) for each in (tokenizer, twin))
    except Exception:
        return None
    pairs = zip(ours, theirs, strict=True)
    return twin if all(np.array_equal(a.ids, b.ids) for a, b in pairs) else None
