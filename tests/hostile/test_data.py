"""Data files from somebody else: what is read at once has a bound, whatever the file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hookql.data import limits
from hookql.data.batches import batches
from hookql.data.columnar import _rows_at_once
from hookql.data.encode import Context
from hookql.data.limits import LONGEST, weight
from hookql.data.read import open_data
from hookql.data.samples import Sample
from hookql.errors import DataError


def code(path: Path) -> str:
    """The code of the error that reading ends in."""
    with pytest.raises(DataError) as caught:
        list(open_data(str(path)))
    return caught.value.code


def test_a_line_without_an_end(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    """A hole of 30 GB takes no room on a disk, and one line of it would take all memory."""
    path = tmp_path / "hole.txt"
    with path.open("wb") as file:
        file.truncate(30 << 30)
    with pytest.raises(DataError) as caught:
        open_data(str(path))
    golden("hostile/long-line.txt", f"{caught.value}\n")


def test_a_row_of_many_lines(tmp_path: Path) -> None:
    """A quoted field of CSV goes on over lines, each of which is short."""
    path = tmp_path / "x.csv"
    path.write_text('text\n"' + ("a" * 999 + "\n") * (LONGEST // 1000 + 1) + '"\n')
    assert "too-long" == code(path)


def test_rows_below_the_bound_are_read(tmp_path: Path) -> None:
    """The bound is one of each row, not of the file."""
    path = tmp_path / "x.csv"
    row = '"' + "a" * (LONGEST // 2) + '"\n'
    path.write_text("text\n" + row * 3)
    assert [LONGEST // 2] * 3 == [len(sample.text) for sample in open_data(str(path))]


def test_a_text_of_a_column(tmp_path: Path) -> None:
    """Parquet packs a text of one letter into nothing."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["z" * (LONGEST + 1)]}), path, compression="zstd")
    assert "too-long" == code(path)


def test_a_dictionary_of_a_parquet_file_is_unfolded_row_by_row(tmp_path: Path) -> None:
    """One long text that is the value of every row."""
    path = tmp_path / "x.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * 50_000_000])
    pq.write_table(
        pa.table({"text": ["a"] * 1000, "junk": texts}),
        path,
        store_schema=False,
        compression="zstd",
        dictionary_pagesize_limit=1 << 30,
    )
    assert 5 >= _rows_at_once(pq.ParquetFile(path).metadata.row_group(0), "x")
    assert 100_000 > path.stat().st_size


def test_lists_of_a_parquet_file(tmp_path: Path) -> None:
    """A list of very many equal numbers takes no room in the file."""
    path = tmp_path / "x.parquet"
    numbers = pa.array([np.zeros(LONGEST + 1, np.int8)], pa.list_(pa.int8()))
    pq.write_table(pa.table({"text": ["a"], "n": numbers}), path)
    assert "too-long" == code(path)


@pytest.mark.parametrize(
    "line",
    ['{"text": "a", "b": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"n": ' + "9" * 10_000 + "}"],
)
def test_json_that_python_cannot_take(tmp_path: Path, line: str) -> None:
    """Nested too deeply, or a number of too many digits."""
    path = tmp_path / "x.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError) as caught:
        list(open_data(str(path)))
    assert "bad-json" == caught.value.code


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO never ends, /dev/zero neither; a link to either is no better."""
    import os

    os.mkfifo(tmp_path / "x.jsonl")
    (tmp_path / "x.txt").symlink_to("/dev/zero")
    (tmp_path / "x.csv").symlink_to(tmp_path / "x.jsonl")
    for name in ("x.jsonl", "x.txt", "x.csv"):
        with pytest.raises(DataError) as caught:
            open_data(str(tmp_path / name))
        assert "not-a-file" == caught.value.code


def test_heavy_columns_end_a_window() -> None:
    """Short texts with long columns beside them: the window is bounded in bytes too."""
    one = np.zeros(1, np.int64)
    junk = "x" * (limits.WINDOW_BYTES // 2)
    samples = [Sample(n, "a", {"text": "a", "junk": junk}) for n in range(5)]
    contexts = [Context(one, one.astype(bool), one, (sample,)) for sample in samples]
    found = [len(b.contexts) for b in batches(contexts, tokens_per_batch=100)]
    assert [2, 2, 1] == found


def test_weight_counts_what_stands_inside() -> None:
    """Lists and objects are looked into, without recursion."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert 100_000 * 64 < weight({"deep": deep})
    assert 1000 < weight({"a": {"b": ["x" * 1000]}})
