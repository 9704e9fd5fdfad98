"""What `explain` says of raw values before the model runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookql
from tests.tiny import tiny

TEXTS = ["a few words", "", "and some more of them"] * 5


def outlook(query: str, **options: Any) -> list[dict[str, Any]]:
    """What will come of a query, by file."""
    model, tokenizer, _ = tiny("gpt2")
    said = hookql.explain(
        query, model=model, tokenizer=tokenizer, texts=TEXTS, format="json", **options
    )
    return list(json.loads(said)["values"])


def test_rows_and_bytes_are_those_that_come(tmp_path: Path) -> None:
    """The rows are exact, and the bytes those of the file but for its metadata."""
    query = 'capture values, values(norm(x)) as size from h[0:3] where position > 1 into "a.nc"'
    (said,) = outlook(query, output=tmp_path / "out.nc")
    model, tokenizer, _ = tiny("gpt2")
    result = hookql.run(
        query, model=model, tokenizer=tokenizer, texts=TEXTS, output=tmp_path / "out.nc"
    )
    assert result.sizes["obs"] == said["rows"]
    assert said["exact"]
    assert str(tmp_path / "a.nc") == said["file"]
    assert 0 < (tmp_path / "a.nc").stat().st_size - said["bytes"] < 60_000


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("capture values from h[0] where norm(x) > 1", 160),
        ("capture values from h[0] where surprisal > 1", 160),
    ],
)
def test_what_depends_on_the_model_is_bounded(query: str, rows: int) -> None:
    """Of rows that the model has a say in, at most so many will come."""
    (said,) = outlook(query)
    assert not said["exact"]
    assert rows == said["rows"]


def test_without_values_nothing_is_read() -> None:
    """A query without `values` has no outlook."""
    assert [] == outlook("capture mean from h[0]")
