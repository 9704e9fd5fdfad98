"""Encoding: contexts against an oracle that takes one text at a time, and what is counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hookql.data.encode import Context, Encoder
from hookql.data.read import open_data
from hookql.data.samples import Sample
from hookql.errors import DataError, HookQLError, UsageError
from tests.data.toys import NoMask, byte_bpe, metaspace, slow
from tests.weights import minilm_folder

TEXTS = [
    "In the beginning was the word, and the rain in Paris",
    "",
    "Paris",
    " ",
    "the <|end|> [SEP] within",
    "a\x00b é 🎉 👩‍👩‍👧 \u2028",
    "word " * 60,
]
Row = tuple[list[int], list[bool]]


def _samples(texts: Iterable[str]) -> list[Sample]:
    return [Sample(i, text, {"text": text}) for i, text in enumerate(texts)]


def _shown(context: Context) -> tuple[list[int], list[bool], list[int], int]:
    owners = [context.samples[owner].index for owner in context.owner.tolist()]
    return context.ids.tolist(), context.special.tolist(), owners, context.chunk


def _one_row(tokenizer: Any, text: str) -> Row:
    """The oracle: one text, its ids and which of them were added."""
    full = list(tokenizer(text, truncation=False, verbose=False)["input_ids"])
    bare = list(tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"])
    lead = 0 if full == bare else next(i for i in range(9) if full[i : i + len(bare)] == bare)
    special = [not lead <= i < lead + len(bare) for i in range(len(full))]
    return full, special


def _expected(tokenizer: Any, texts: list[str], limit: int, truncate: bool) -> list[Any]:
    """The oracle of split and truncate: token by token."""
    found = []
    for index, text in enumerate(texts):
        ids, special = _one_row(tokenizer, text)
        if all(special):
            continue
        head = special.index(False)
        tail = special[::-1].index(False)
        content = list(zip(ids, special, strict=True))[head : len(ids) - tail]
        room = limit - head - tail
        pieces = [content[i : i + room] for i in range(0, len(content), room)]
        for chunk, piece in enumerate(pieces[:1] if truncate else pieces):
            row = [
                *((i, True) for i in ids[:head]),
                *piece,
                *((i, True) for i in ids[len(ids) - tail :]),
            ]
            found.append(([i for i, _ in row], [s for _, s in row], [index] * len(row), chunk))
    return found


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bytes": byte_bpe,
    "bytes with ends": lambda: byte_bpe(True),
    "metaspace": metaspace,
    "slow": slow,
    "wordpiece": lambda: AutoTokenizer.from_pretrained(minilm_folder()),
}
NAMES = [
    pytest.param(n, marks=pytest.mark.real_weights) if n == "wordpiece" else n for n in TOKENIZERS
]


@pytest.mark.parametrize("limit", [3, 8, 4096])
@pytest.mark.parametrize("overflow", ["split", "truncate"])
@pytest.mark.parametrize("name", NAMES)
def test_against_oracle(name: str, overflow: Any, limit: int) -> None:
    """Each context is what encoding one text at a time gives, cut by hand."""
    tokenizer = TOKENIZERS[name]()
    encoder = Encoder(tokenizer, limit, overflow)
    found = [_shown(context) for context in encoder(_samples(TEXTS))]
    assert _expected(tokenizer, TEXTS, limit, overflow == "truncate") == found


@pytest.mark.parametrize("name", NAMES)
def test_counts(name: str) -> None:
    """What is counted is what the one-by-one oracle counts."""
    tokenizer = TOKENIZERS[name]()
    rows = [_one_row(tokenizer, text) for text in TEXTS]
    full = [(len(ids), sum(special)) for ids, special in rows if not all(special)]
    cut = Encoder(tokenizer, 8, "truncate")
    ran = sum(len(context.ids) for context in cut(_samples(TEXTS)))
    long = [n for n, _ in full if n > 8]
    expected = {
        "samples": len(TEXTS),
        "samples_empty": len(TEXTS) - len(full),
        "samples_truncated": len(long),
        "samples_split": 0,
        "contexts": len(full),
        "tokens": ran,
        "tokens_dropped": sum(long) - 8 * len(long),
    }
    assert expected == attrs.asdict(cut.counts)
    split = Encoder(tokenizer, 8, "split")
    content = sum(int((~context.special).sum()) for context in split(_samples(TEXTS)))
    assert len(long) == split.counts.samples_split
    assert 0 == split.counts.tokens_dropped
    assert sum(n - special for n, special in full) == content


def test_exact_length_is_not_cut() -> None:
    """A sample of exactly the limit is whole; one more token splits it."""
    assert 1 == len(list(Encoder(slow(), 6, "error")(_samples(["abcde"]))))
    assert 2 == len(list(Encoder(slow(), 6, "split")(_samples(["abcdef"]))))


def test_no_limit() -> None:
    """Without a limit nothing is cut."""
    (context,) = Encoder(slow(), None)(_samples(["a" * 5000]))
    assert 5001 == len(context.ids)


def test_arrays() -> None:
    """Contexts hold int64 and bool arrays of one length."""
    for overflow in ("split", "pack"):
        for context in Encoder(byte_bpe(), 8, overflow)(_samples(TEXTS)):  # type: ignore[arg-type]
            kinds = [a.dtype for a in (context.ids, context.special, context.owner)]
            assert [np.int64, np.bool_, np.int64] == kinds
            assert len(context.ids) == len(context.special) == len(context.owner)


def test_long_texts_warn_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Texts longer than the tokenizer's own limit, which is ours to handle, print nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(Encoder(byte_bpe(), 8)(_samples(["word " * 100])))
    assert [] == caplog.records


# --- packing ------------------------------------------------------------------------------------


def _packed(tokenizer: Any, texts: list[str], limit: int) -> list[Any]:
    """The oracle of packing: one long list, cut every ``limit`` tokens."""
    stream: list[tuple[int, bool, int]] = []
    for index, text in enumerate(texts):
        ids, special = _one_row(tokenizer, text)
        if all(special):
            continue
        if stream and not any(special) and tokenizer.eos_token_id is not None:
            stream.append((tokenizer.eos_token_id, True, stream[-1][2]))
        stream += [(i, s, index) for i, s in zip(ids, special, strict=True)]
    return [
        (*(list(column) for column in zip(*stream[i : i + limit], strict=True)), i // limit)
        for i in range(0, len(stream), limit)
    ]


@pytest.mark.parametrize("limit", [1, 3, 7, 64, 4096])
@pytest.mark.parametrize("name", NAMES)
def test_pack_against_oracle(name: str, limit: int) -> None:
    """Packed contexts are the stream of all tokens, cut every so many."""
    tokenizer = TOKENIZERS[name]()
    if limit <= tokenizer.num_special_tokens_to_add():
        limit = 3
    encoder = Encoder(tokenizer, limit, "pack")
    contexts = list(encoder(_samples(TEXTS)))
    expected = _packed(tokenizer, TEXTS, limit)
    assert expected == [_shown(context) for context in contexts]
    assert all(limit == len(context.ids) for context in contexts[:-1])
    assert sum(len(ids) for ids, *_ in expected) == encoder.counts.tokens
    assert 0 == encoder.counts.tokens_dropped


def test_pack_names_the_samples() -> None:
    """A packed context holds the samples that it has tokens of, each once."""
    first, second = Encoder(slow(), 6, "pack")(_samples(["ab", "", "cd", "efg"]))
    assert [0, 2] == [s.index for s in first.samples]
    assert [3] == [s.index for s in second.samples]


def test_pack_counts_split_samples() -> None:
    """A sample in two contexts or in five is one that was split."""
    encoder = Encoder(slow(), 4, "pack")
    list(encoder(_samples(["a" * 20, "bbb", "cc"])))
    assert 2 == encoder.counts.samples_split


def test_pack_without_any_separator() -> None:
    """A tokenizer that has no eos, bos or sep gets nothing between its texts."""
    (context,) = Encoder(metaspace(), 64, "pack")(_samples(["a", "Paris"]))
    assert not context.special.any()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab 🎉", max_size=9), max_size=12), st.integers(2, 12))
def test_nothing_is_lost(texts: list[str], limit: int) -> None:
    """Split and pack run every content token once, in order."""
    tokenizer = slow()
    expected = [i for text in texts for i in tokenizer(text, add_special_tokens=False).input_ids]
    for overflow in ("split", "pack"):
        contexts = Encoder(tokenizer, limit, overflow)(_samples(texts))  # type: ignore[arg-type]
        found = [i for c in contexts for i in c.ids[~c.special].tolist()]
        assert expected == found


# --- tokenizers that are different, and errors --------------------------------------------------


def test_special_mask_is_derived() -> None:
    """A tokenizer without special-token masks is asked twice."""
    (context,) = Encoder(NoMask(), 8)(_samples(["ab"]))
    assert [True, False, False, True] == context.special.tolist()


def test_tokenizer_state_is_not_needed() -> None:
    """Padding and truncation that a tokenizer file turns on do not reach the contexts."""
    tokenizer = byte_bpe()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding()
    lengths = [len(c.ids) for c in Encoder(tokenizer, 400)(_samples(["a", "b c d e f"]))]
    assert [len(_one_row(tokenizer, text)[0]) for text in ("a", "b c d e f")] == lengths


REFUSED: dict[str, Callable[[], Any]] = {
    "too-long": lambda: list(Encoder(slow(), 4, "error")(_samples(["abc", "abcd"]))),
    "cannot-tokenise": lambda: list(Encoder(NoMask(), 4)(_samples(["abc", "no!"]))),
    "surrogate": lambda: list(Encoder(byte_bpe(), 4)(_samples(["fine", "a\ud800"]))),
    "bad-overflow": lambda: Encoder(slow(), 4, "trunkate"),  # type: ignore[arg-type]
    "bad-max-length": lambda: Encoder(slow(), 1),
    "bad-max-length-zero": lambda: Encoder(byte_bpe(), 0),
    "pack-without-length": lambda: Encoder(slow(), None, "pack"),
    "no-room": lambda: list(Encoder(NoMask(), 2)(_samples(["abc"]))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, golden: Callable[[str, str], None]) -> None:
    """What cannot be encoded is refused by a message that names the sample or the option."""
    with pytest.raises(HookQLError) as caught:
        REFUSED[name]()
    golden(f"data/encode-{name}.txt", f"{caught.value}\n")


def test_errors_name_the_line(tmp_path: Any) -> None:
    """A sample of a file is named by its line too."""
    (tmp_path / "a.txt").write_text("ab\n\nabcdef\n")
    with pytest.raises(DataError, match=r"sample 2 \(a\.txt:3\)"):
        list(Encoder(slow(), 4, "error")(open_data(tmp_path / "a.txt")))


def test_usage_is_checked_before_data() -> None:
    """A length without room is refused before anything is read."""
    with pytest.raises(UsageError):
        Encoder(byte_bpe(True), 2)


class Panicky(NoMask):
    """Panics as a tokenizer in Rust does, outside of `Exception`."""

    def __call__(self, texts: list[str], add_special_tokens: bool = True, **options: Any) -> Any:
        if any("!" in text for text in texts):
            raise type("PanicException", (BaseException,), {})("index out of bounds")
        return super().__call__(texts, add_special_tokens, **options)


MARKED = ["abc", "d!e", "", "!", "fghij"]


@pytest.mark.parametrize("overflow", ["split", "truncate", "pack"])
@pytest.mark.parametrize("tokenizer", [NoMask(), Panicky()])
def test_samples_that_are_refused_can_be_skipped(tokenizer: Any, overflow: Any) -> None:
    """The contexts are those of the data without them; the others keep their numbers."""
    encoder = Encoder(tokenizer, 5, overflow, on_error="skip")
    found = [_shown(context) for context in encoder(_samples(MARKED))]
    empty = [text if "!" not in text else "" for text in MARKED]
    plain = Encoder(NoMask(), 5, overflow)
    assert [_shown(context) for context in plain(_samples(empty))] == found
    assert [1, 3] == [skipped.sample for skipped in encoder.refused]
    assert [-1, -1] == [skipped.chunk for skipped in encoder.refused]
    why = "an exclamation mark" if type(tokenizer) is NoMask else "index out of bounds"
    assert {f"cannot be tokenised: {why}"} == {skipped.reason for skipped in encoder.refused}
    assert (len(MARKED), 1) == (encoder.counts.samples, encoder.counts.samples_empty)
    list(encoder(_samples(MARKED)))
    assert 2 == len(encoder.refused), "the list starts anew"


@pytest.mark.parametrize("tokenizer", [NoMask(), Panicky()])
def test_a_refused_sample_stops_otherwise(tokenizer: Any) -> None:
    """The first one is named."""
    with pytest.raises(DataError) as caught:
        list(Encoder(tokenizer)(_samples(MARKED)))
    assert "cannot-tokenise" == caught.value.code
    assert caught.value.message.startswith("sample 1 cannot be tokenised: ")


def test_a_refused_target_skips_its_sample() -> None:
    """A text without what its decoder is fed cannot run; one without a column stays an error."""
    rows = [{"text": "ab", "to": "x"}, {"text": "cd", "to": "!"}, {"text": "ef", "to": "y"}]
    samples = [Sample(i, row["text"], row) for i, row in enumerate(rows)]
    encoder = Encoder(Targets(), target="to", on_error="skip")
    assert [0, 2] == [context.samples[0].index for context in encoder(samples)]
    assert [(1, -1)] == [(skipped.sample, skipped.chunk) for skipped in encoder.refused]
    assert 2 == encoder.counts.contexts
    with pytest.raises(DataError, match="no-target"):
        list(encoder([*samples, Sample(3, "gh", {"text": "gh"})]))


class Targets(NoMask):
    """Takes a decoder's texts as well."""

    def __call__(
        self, texts: Any = None, *options: Any, text_target: Any = None, **named: Any
    ) -> Any:
        return super().__call__(texts if text_target is None else text_target, *options, **named)


def test_an_interrupt_while_tokenising_comes_out() -> None:
    """Ctrl-C is no fault of a text."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Encoder(interrupted, on_error="skip")(_samples(["a"])))
