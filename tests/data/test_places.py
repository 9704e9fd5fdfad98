"""Where contexts lie in their samples: chunk, offset, and the characters of each token."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.data.batches import collate
from hookql.data.encode import Context, Encoder
from hookql.data.samples import Sample
from hookql.errors import UsageError
from tests.data.toys import byte_bpe, metaspace, slow

TEXTS = ["the word, the word, é and 🎉 in Paris", "", "Paris", " a", "In the beginning " * 9, "a a"]


def _samples(texts: list[str]) -> list[Sample]:
    return [Sample(i, text, {}) for i, text in enumerate(texts)]


def _places(contexts: list[Context]) -> list[tuple[list[int], list[int]]]:
    """The oracle: chunk and offset of every token, counted token by token."""
    content: dict[int, int] = defaultdict(int)
    seen: dict[int, int] = defaultdict(int)
    places = []
    for context in contexts:
        owners = [context.samples[owner].index for owner in context.owner.tolist()]
        places.append(([seen[i] for i in owners], [content[i] for i in owners]))
        for index in set(owners):
            seen[index] += 1
        for index, special in zip(owners, context.special.tolist(), strict=True):
            content[index] += not special
    return places


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("ab 🎉", max_size=12), max_size=9),
    st.integers(3, 9),
    st.sampled_from(["split", "truncate", "pack"]),
    st.sampled_from([slow, metaspace, byte_bpe, lambda: byte_bpe(True)]),
)
def test_chunk_and_offset(texts: list[str], limit: int, overflow: Any, tokenizer: Any) -> None:
    """Chunk and offset are what counting over all contexts says, in batches too."""
    contexts = list(Encoder(tokenizer(), limit, overflow)(_samples(texts)))
    for context, (chunk, offset) in zip(contexts, _places(contexts), strict=True):
        batch = collate([context, contexts[0]])
        length = len(context.ids)
        assert (chunk, offset) == (
            batch.chunk[0, :length].tolist(),
            batch.offset[0, :length].tolist(),
        )
        assert 0 == batch.chunk[0, length:].sum() + batch.offset[0, length:].sum()
        assert [np.int64, np.int64] == [batch.chunk.dtype, batch.offset.dtype]


@pytest.mark.parametrize("limit", [4, 9, 4096])
@pytest.mark.parametrize("overflow", ["split", "truncate", "pack"])
@pytest.mark.parametrize("tokenizer", [metaspace, byte_bpe, lambda: byte_bpe(True)])
def test_spans(tokenizer: Any, overflow: Any, limit: int) -> None:
    """A token's span is what the tokenizer says of the whole text, however it was cut."""
    found: dict[int, list[list[int]]] = defaultdict(list)
    for context in Encoder(tokenizer(), limit, overflow, spans=True)(_samples(TEXTS)):
        assert context.spans is not None
        assert ((len(context.ids), 2), np.int32) == (context.spans.shape, context.spans.dtype)
        assert (context.spans[context.special] == -1).all()
        for owner, span, special in zip(
            context.owner, context.spans.tolist(), context.special, strict=True
        ):
            if not special:
                found[context.samples[owner].index].append(span)
    assert found
    for index, spans in found.items():
        whole = tokenizer()(TEXTS[index], add_special_tokens=False, return_offsets_mapping=True)
        expected = [list(pair) for pair in whole["offset_mapping"]]
        assert expected[: len(spans) if overflow == "truncate" else None] == spans


def test_spans_change_nothing_else() -> None:
    """The same tokens with and without spans, and no spans where nobody asked."""
    plain = list(Encoder(byte_bpe(), 8)(_samples(TEXTS)))
    spans = list(Encoder(byte_bpe(), 8, spans=True)(_samples(TEXTS)))
    assert [c.ids.tolist() for c in plain] == [c.ids.tolist() for c in spans]
    assert [None] * len(plain) == [c.spans for c in plain]
    assert collate(plain).spans is None


def test_spans_in_a_batch() -> None:
    """Padding is from no character; one row without spans leaves the batch without."""
    contexts = list(Encoder(metaspace(), 8, spans=True)(_samples(["Paris a", "a"])))
    spans = collate(contexts).spans
    assert spans is not None
    assert [[[0, 5], [5, 7]], [[0, 1], [-1, -1]]] == spans.tolist()
    (plain,) = Encoder(metaspace(), 8)(_samples(["a"]))
    assert collate([*contexts, plain]).spans is None


def test_spans_need_a_fast_tokenizer(golden: Any) -> None:
    """A tokenizer in pure Python cannot say where its tokens are from."""
    with pytest.raises(UsageError) as caught:
        list(Encoder(slow(), 8, spans=True)(_samples(["a"])))
    golden("data/encode-needs-offsets.txt", f"{caught.value}\n")
