"""Columns that a query misspells, where only reading the data shows what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

import hookql
from tests.tiny import character_tokenizer, tiny


@pytest.mark.parametrize("where", ["row.lable == none", 'row.lable == "spam"'])
def test_a_column_that_no_row_has_is_an_error(where: str, tmp_path: Path) -> None:
    """A typo in a .jsonl column is told with what there is, also where it would keep everything."""
    data = tmp_path / "d.jsonl"
    data.write_text('{"text": "one", "label": "spam"}\n{"text": "two"}\n')
    model, _, _ = tiny("gpt2")
    with pytest.raises(hookql.QueryError) as caught:
        hookql.run(
            f"capture count from transformer.h[0] where {where}",
            model=model,
            tokenizer=character_tokenizer(),
            data=str(data),
        )
    assert "unknown-column" == caught.value.code
    assert "did you mean `label`?" == caught.value.help


def test_a_column_that_some_rows_lack_is_none_there(tmp_path: Path) -> None:
    """A column that exists in one row only is a column."""
    data = tmp_path / "d.jsonl"
    data.write_text('{"text": "one", "label": "spam"}\n{"text": "two"}\n')
    model, _, _ = tiny("gpt2")
    result = hookql.run(
        "capture count from transformer.h[0] where row.label == none",
        model=model,
        tokenizer=character_tokenizer(),
        data=str(data),
    )
    assert 3 == int(result["count"])
