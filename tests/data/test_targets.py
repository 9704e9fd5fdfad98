"""The decoder's text: what is fed, beside which sample, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hookql.data.batches import Batch, batches, collate
from hookql.data.encode import Encoder
from hookql.data.samples import Field, Sample
from hookql.errors import HookQLError
from tests.data.toys import byte_bpe, metaspace, slow

START = 384


def _encoder(limit: int | None = 16, overflow: Any = "split", **options: Any) -> Encoder:
    return Encoder(slow(), limit, overflow, target="out", target_start=START, **options)


def _samples(*pairs: tuple[str, object]) -> list[Sample]:
    return [Sample(i, text, {"out": out}, f"t.csv:{i + 2}") for i, (text, out) in enumerate(pairs)]


def _bytes(text: str) -> list[int]:
    """ByT5 has a token for each byte, after three special ones."""
    return [byte + 3 for byte in text.encode()]


def test_what_is_fed() -> None:
    """The start token, the text, no end token: what a decoder sees in training."""
    (context,) = _encoder()(_samples(("ab", "cde")))
    assert context.target is not None
    assert [*_bytes("ab"), 1] == context.ids.tolist()
    assert [START, *_bytes("cde")] == context.target.ids.tolist()
    assert [True, False, False, False] == context.target.special.tolist()
    assert [0, 0, 0, 0] == context.target.owner.tolist()
    assert [(0, "cde")] == [(s.index, s.text) for s in context.target.samples]
    kinds = [context.target.ids.dtype, context.target.special.dtype]
    assert [np.int64, np.bool_] == kinds


def test_end_tokens_at_both_ends() -> None:
    """Only the last of a tokenizer's special tokens goes, as shifting to the right has it."""
    tokenizer = byte_bpe(True)
    encoder = Encoder(tokenizer, 16, target="out", target_start=7)
    (context,) = encoder(_samples(("a", "the")))
    (text,) = tokenizer("the", add_special_tokens=False)["input_ids"]
    assert context.target is not None
    assert [7, 0, text] == context.target.ids.tolist()
    assert [True, True, False] == context.target.special.tolist()


def test_an_empty_text() -> None:
    """An empty text is no missing one: the start token alone."""
    (context,) = _encoder()(_samples(("ab", "")))
    assert context.target is not None
    assert [START] == context.target.ids.tolist()


def test_an_empty_sample_needs_none() -> None:
    """A sample that does not run is not asked for a text."""
    encoder = _encoder()
    assert [1] == [c.samples[0].index for c in encoder(_samples(("", None), ("a", "b")))]
    assert 1 == encoder.counts.samples_empty


def test_batches_hold_both() -> None:
    """A batch has the decoder's rows in the order of its own, padded by themselves."""
    contexts = list(_encoder()(_samples(("a", "xyz"), ("abc", "y"))))
    batch = collate(contexts, 9)
    assert batch.target is not None
    assert [[START, *_bytes("xyz")], [START, *_bytes("y"), 9, 9]] == batch.target.ids.tolist()
    assert [[0, 0, 0, 0], [1, 1, -1, -1]] == batch.target.sample.tolist()
    assert collate(list(Encoder(slow(), 8)(_samples(("a", "b"))))).target is None


def test_tokens_of_both_bound_a_batch() -> None:
    """Rows of the decoder count, so that long texts for it do not make batches too large."""
    pairs = [("a", "b" * (i % 9)) for i in range(40)]
    found = list(batches(_encoder()(_samples(*pairs)), tokens_per_batch=24))
    assert 40 == sum(len(batch.contexts) for batch in found)
    assert all(24 >= _size(batch) for batch in found)
    assert any(2 < len(batch.contexts) for batch in found)


def _size(batch: Batch) -> int:
    assert batch.target is not None
    return batch.ids.size + batch.target.ids.size


def test_completeness_of_both() -> None:
    """The decoder's rows are as complete as those beside them."""
    pairs = [("abc", "d")] * 9
    for batch in batches(_encoder()(_samples(*pairs)), tokens_per_batch=8, window_tokens=8):
        assert batch.target is not None
        assert batch.complete == batch.target.complete


def test_truncation() -> None:
    """Texts for the decoder are cut off where samples are, and counted."""
    encoder = _encoder(4, "truncate")
    short, long = encoder(_samples(("ab", "cdefg"), ("abcdef", "x")))
    assert short.target is not None
    assert long.target is not None
    assert [START, *_bytes("cde")] == short.target.ids.tolist()
    assert [*_bytes("abc"), 1] == long.ids.tolist()
    assert [START, *_bytes("x")] == long.target.ids.tolist()
    assert 2 + 3 == encoder.counts.tokens_dropped


def test_spans() -> None:
    """Spans of the decoder's tokens are in its own text; the start token is from nowhere."""
    encoder = Encoder(metaspace(), 8, target="out", target_start=0, spans=True)
    (context,) = encoder(_samples(("a", "a Paris")))
    assert context.target is not None
    assert context.target.spans is not None
    assert [[-1, -1], [0, 1], [1, 7]] == context.target.spans.tolist()


REFUSED: dict[str, Callable[[], Any]] = {
    "split": lambda: list(_encoder(4)(_samples(("ab", "c"), ("abcdef", "g")))),
    "pack": lambda: list(_encoder(4, "pack")(_samples(("ab", "c")))),
    "long": lambda: list(_encoder(4, "error")(_samples(("ab", "cdefgh")))),
    "missing": lambda: list(_encoder()(_samples(("ab", "c"), ("ab", None)))),
    "empty-field": lambda: list(_encoder()(_samples(("ab", Field(""))))),
    "number": lambda: list(_encoder()(_samples(("ab", 3)))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, golden: Callable[[str, str], None]) -> None:
    """A sample that would be cut, or that has no text for the decoder, is named."""
    with pytest.raises(HookQLError) as caught:
        REFUSED[name]()
    golden(f"data/target-{name}.txt", f"{caught.value}\n")
