"""Tokenising ahead: the same contexts, errors and counts, and no thread that stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from attrs import asdict

from hookql.data import ahead
from hookql.data.encode import Encoder
from hookql.data.read import open_data
from hookql.data.samples import AT_ONCE
from hookql.data.tokens import encode_texts
from hookql.errors import DataError
from tests.tiny import character_tokenizer

TEXTS = [f"text {n}" for n in range(8 * AT_ONCE + 7)]
BROKEN = 5 * AT_ONCE + 3  # a sample of the third window


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is two chunks."""
    monkeypatch.setattr(ahead, "_SAMPLES", 2 * AT_ONCE)


def threads() -> list[str]:
    """The threads that encode."""
    return [t.name for t in threading.enumerate() if t.name.startswith("hookql-tokens")]


def told(on: bool, data: Any = TEXTS, tokenizer: Any = None, **options: Any) -> tuple[Any, ...]:
    """All that an encoder makes of data: contexts, counts, what is left out, fingerprint, error."""
    encoder = Encoder(tokenizer or character_tokenizer(), 64, **options)
    encoder.ahead = on
    dataset = open_data(list(data) if data is TEXTS else data)
    found, error = [], None
    try:
        for context in encoder(dataset.read(), dataset.note) if on else encoder(dataset):
            found.append((context.samples[0].index, context.chunk, context.ids.tolist()))
    except DataError as raised:
        error = raised.message
    return found, asdict(encoder.counts), encoder.refused, dataset.fingerprint, error


@pytest.mark.parametrize("options", [{}, {"overflow": "pack"}, {"spans": True}])
def test_the_same_contexts(options: dict[str, Any]) -> None:
    """In order, with the same counts and the same fingerprint."""
    tokenizer = character_tokenizer(cls=True)
    expected = told(False, tokenizer=tokenizer, **options)
    assert expected == told(True, tokenizer=tokenizer, **options)
    assert expected[1]["samples"] == len(TEXTS)
    assert [] == threads()


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_text_that_cannot_be_tokenised(on_error: Any) -> None:
    """Is told of where it is, after all contexts before its chunk; or left out."""
    data = [*TEXTS[:BROKEN], "a lone \ud800", *TEXTS[BROKEN:]]
    expected, found = (told(on, data, on_error=on_error) for on in (False, True))
    assert (*expected[:3], expected[4]) == (*found[:3], found[4])
    if on_error == "stop":
        assert 5 * AT_ONCE == len(expected[0])
        assert f"sample {BROKEN} cannot be tokenised: " in str(expected[4])
    else:
        assert [BROKEN] == [skipped.sample for skipped in expected[2]]


def test_an_error_of_reading_waits_its_turn() -> None:
    """What was read before it is encoded and given out first."""

    def broken() -> Iterator[str]:
        yield from TEXTS[: 4 * AT_ONCE]
        raise Failing

    encoder = Encoder(character_tokenizer(), 64)
    encoder.ahead = True
    dataset = open_data(broken())
    contexts = encoder(dataset.read(), dataset.note)
    assert 4 * AT_ONCE == len(list(islice(contexts, 4 * AT_ONCE)))
    with pytest.raises(Failing):
        next(contexts)
    assert [] == threads()


class Failing(Exception):
    """What ends the reading in a test."""


def test_data_is_read_by_the_thread_that_asks() -> None:
    """A database's cursor bears no other; only the tokenizer is called elsewhere."""
    readers: set[str] = set()

    def texts() -> Iterator[str]:
        for text in TEXTS:
            readers.add(threading.current_thread().name)
            yield text

    assert len(TEXTS) == len(told(True, texts())[0])
    assert {threading.current_thread().name} == readers


def test_a_run_that_is_left_leaves_no_thread_and_counts_what_it_took() -> None:
    """The samples that were only read ahead are in no count, and not in the fingerprint."""
    encoder = Encoder(character_tokenizer(), 64)
    encoder.ahead = True
    dataset = open_data(list(TEXTS))
    contexts: Any = encoder(dataset.read(), dataset.note)
    next(contexts)
    assert ["hookql-tokens_0"] == threads()
    contexts.close()
    assert [] == threads()
    assert AT_ONCE == encoder.counts.samples
    few = open_data(TEXTS[:AT_ONCE])
    list(few)
    assert few.fingerprint == dataset.fingerprint


def test_a_tokenizer_that_its_user_goes_on_using() -> None:
    """Who cuts texts with it meanwhile changes settings that it holds: not those of the copy."""
    expected = told(False)[0]
    tokenizer = character_tokenizer()

    def texts() -> Iterator[str]:
        for text in TEXTS:
            tokenizer(text, truncation=True, max_length=2)
            yield text

    assert expected == told(True, texts(), tokenizer)[0]


def test_little_data_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of less than a window nothing is to be had; nor of a tokenizer that cannot be copied."""

    def none(*given: Any) -> Any:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(ahead, "ThreadPoolExecutor", none)
    assert 2 * AT_ONCE - 1 == len(told(True, TEXTS[: 2 * AT_ONCE - 1])[0])
    with pytest.raises(AssertionError, match="a thread was started"):
        told(True)

    def uncopied(tokenizer: Any) -> Any:
        raise TypeError("custom parts cannot be pickled")

    tokenizer = character_tokenizer()
    monkeypatch.setattr("copy.deepcopy", uncopied)
    assert told(False, tokenizer=tokenizer) == told(True, tokenizer=tokenizer)


def test_a_copy_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that draws at random: the user's own makes all tokens."""
    real = encode_texts

    def other(tokenizer: Any, samples: Any, spans: bool) -> Any:
        rows = real(tokenizer, samples, spans)
        if tokenizer is not mine:
            for row in rows:
                row.ids[:] = np.int64(7)
        return rows

    mine = character_tokenizer()
    monkeypatch.setattr(ahead, "encode_texts", other)
    assert told(False) == told(True, tokenizer=mine)
