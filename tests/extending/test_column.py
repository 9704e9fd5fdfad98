"""Columns by hand: in `where`, in `by` and in expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hookql
from hookql.errors import QueryError
from tests.tiny import character_tokenizer, tiny

TEXTS = ["abcabd abca", "xyz", "hello there, all of you"]


def run(query: str, **options: Any) -> Any:
    """Run a query on a small GPT-2."""
    return hookql.run(
        query, model=tiny("gpt2")[0], tokenizer=character_tokenizer(), texts=TEXTS, **options
    )


def ids() -> list[list[int]]:
    """The tokens of the texts."""
    return [list(each) for each in character_tokenizer()(TEXTS)["input_ids"]]


def test_where_keeps_what_the_column_says() -> None:
    """Tokens of an odd id, and no padding."""
    odd = sum(token % 2 for text in ids() for token in text)
    assert odd == run("capture count from h[0] where odd")["count"].item()
    assert odd == run("capture count from h[0] where odd == true")["count"].item()


def test_by_keeps_them_apart() -> None:
    """A truth column is a key."""
    result = run("capture mean from h[0] by odd")
    odd = sum(token % 2 for text in ids() for token in text)
    assert [False, True] == result["odd"].values.tolist()
    assert [sum(map(len, ids())) - odd, odd] == result["count"].values.tolist()


def test_a_column_of_ids_is_compared_with_texts() -> None:
    """Two places behind an `a`; undefined at the first two tokens, as `prev` is at the first."""
    query = 'capture count from h[0] where before == "a"'
    expected = sum(text[place - 2] == "a" for text in TEXTS for place in range(2, len(text)))
    assert expected == run(query)["count"].item()
    there = sum(max(0, len(text) - 2) for text in TEXTS)
    assert there == run("capture count from h[0] where before != none")["count"].item()


def test_undefined_rows_are_in_no_group() -> None:
    """Where a key has no value its row is dropped, and counted as such."""
    result = run("capture mean from h[0] by before")
    there = sum(max(0, len(text) - 2) for text in TEXTS)
    assert there == int(result["count"].sum())


def test_expressions_read_it() -> None:
    """A truth counts as 0 and 1 in sums, whatever the batches are."""
    query = "capture sum(odd) as n, mean(x * odd) as part from h[0]"
    whole, single = run(query), run(query, batch_size=1)
    odd = sum(token % 2 for text in ids() for token in text)
    assert odd == whole["n"].item()
    np.testing.assert_allclose(whole["part"], single["part"], rtol=1e-5, atol=1e-7)


def test_a_let_cannot_have_its_name() -> None:
    """A column's name is a word of the language."""
    with pytest.raises(QueryError) as caught:
        hookql.check("let odd = position > 1\ncapture mean from h[0] where odd")
    assert "reserved-name" == caught.value.code


def test_it_is_suggested() -> None:
    """A misspelt name finds it."""
    with pytest.raises(QueryError) as caught:
        hookql.check("capture mean from h[0] where befor == 3")
    assert "did you mean `before`?" == caught.value.help
