"""Reading data: every format, and every way that a file can be wrong."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hookql.data.read import open_data
from hookql.data.samples import Sample
from hookql.errors import DataError, HookQLError, UsageError

Golden = Callable[[str, str], None]


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _texts(data: Any, **options: Any) -> list[str]:
    return [sample.text for sample in open_data(data, **options)]


def _places(data: Any) -> list[str | None]:
    return [sample.place for sample in open_data(data)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages name paths as they were given, so that golden files know no temporary folder."""
    monkeypatch.chdir(tmp_path)


# --- what can be read ---------------------------------------------------------------------------

LINES = [
    pytest.param(b"a\nb\n", ["a", "b"], id="newline at the end"),
    pytest.param(b"a\nb", ["a", "b"], id="no newline at the end"),
    pytest.param(b"a\n\nb\n\n", ["a", "", "b", ""], id="empty lines are samples"),
    pytest.param(b"a\r\nb\r\n", ["a", "b"], id="CRLF"),
    pytest.param(b"a\rb\nc\r\r\n", ["a\rb", "c\r"], id="a lone CR ends nothing"),
    pytest.param("a\u2028b\u0085c\x0bd\x0ce\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce"], id="LS"),
    pytest.param(b"\xef\xbb\xbfa\nb", ["a", "b"], id="BOM"),
    pytest.param("a\n\ufeffb".encode(), ["a", "\ufeffb"], id="U+FEFF later is kept"),
    pytest.param("👩‍👩‍👧 é\n".encode(), ["👩‍👩‍👧 é"], id="emoji"),
    pytest.param(b"a\x00b\n", ["a\x00b"], id="NUL"),
    pytest.param(b" a \n", [" a "], id="spaces are kept"),
]


@pytest.mark.parametrize(("content", "expected"), LINES)
def test_txt(content: bytes, expected: list[str]) -> None:
    """A sample a line; only \\n and \\r\\n end one; the total is their number."""
    path = _write(Path(), "a.txt", content)
    assert expected == _texts(path)
    assert len(expected) == open_data(path).total


def test_txt_rows_and_places() -> None:
    """A sample knows its index, its line and its row."""
    path = _write(Path(), "a.txt", "a\n\nb\n")
    found = [(s.index, s.text, dict(s.row), s.place) for s in open_data(path)]
    expected = [
        (0, "a", {"text": "a"}, "a.txt:1"),
        (1, "", {"text": ""}, "a.txt:2"),
        (2, "b", {"text": "b"}, "a.txt:3"),
    ]
    assert expected == found
    assert ("text",) == open_data(path).columns


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.JSONL"])
def test_jsonl(name: str) -> None:
    """An object a line; a blank line is an empty sample; columns may differ."""
    path = _write(Path(), name, '\ufeff{"text": "a\\nb", "n": 1}\r\n\n{"text": "c", "m": [1]}\n')
    found = [(s.text, dict(s.row)) for s in open_data(path)]
    expected = [
        ("a\nb", {"text": "a\nb", "n": 1}),
        ("", {}),
        ("c", {"text": "c", "m": [1]}),
    ]
    assert expected == found
    assert 3 == open_data(path).total
    assert open_data(path).columns is None


def test_csv() -> None:
    """Quotes, line breaks within them, doubled quotes, CRLF, a BOM, empty fields, blank lines."""
    content = '\ufefftext,label\r\n"a,\r\n""b""",x\r\n\r\n,y\r\nc\x00,\r\n'
    samples = list(open_data(_write(Path(), "a.csv", content)))
    assert ['a,\r\n"b"', "", "", "c\x00"] == [s.text for s in samples]
    assert ["x", None, "y", ""] == [s.row.get("label") for s in samples]
    assert ["a.csv:2", "a.csv:4", "a.csv:5", "a.csv:6"] == [s.place for s in samples]
    assert all(type(s.text) is str for s in samples)


def test_tsv() -> None:
    """Tabs between fields; commas are text."""
    path = _write(Path(), "a.tsv", "id\ttext\n1\ta, b\n")
    (sample,) = open_data(path)
    assert "a, b" == sample.text
    assert ("id", "text") == open_data(path).columns


def test_csv_has_no_field_limit() -> None:
    """A field longer than the csv module's limit is read, and the limit is left as it was."""
    before = csv.field_size_limit()
    long = "x" * (before + 1)
    assert [long, "y"] == _texts(_write(Path(), "a.csv", f"text\n{long}\ny\n"))
    assert before == csv.field_size_limit()


def test_parquet() -> None:
    """Rows over several batches, their other columns, the total from the metadata."""
    texts = [f"text {i}" for i in range(600)]
    pq.write_table(pa.table({"n": range(600), "text": texts}), "a.parquet")
    data = open_data("a.parquet")
    assert texts == [s.text for s in data]
    assert list(range(600)) == [s.row["n"] for s in data]
    assert 600 == data.total
    assert ("n", "text") == data.columns


def test_only_text_column() -> None:
    """Without a `text`, the only text column is the text."""
    pq.write_table(pa.table({"n": [1], "body": ["a"]}), "a.parquet")
    assert ["a"] == _texts("a.parquet")
    assert ["a"] == _texts(_write(Path(), "a.jsonl", '{"n": 1, "body": "a"}'))
    assert ["a"] == _texts([{"n": 1, "body": "a"}])
    assert ["a"] == _texts(_write(Path(), "a.csv", "body\na\n"))


def test_column() -> None:
    """A named column is the text, whatever else there is."""
    path = _write(Path(), "a.csv", "text,other\na,b\n")
    assert ["b"] == _texts(path, column="other")
    assert ["b"] == _texts([{"text": "a", "other": "b"}], column="other")


def test_saved_folder() -> None:
    """A folder of `save_to_disk`: one data set, or several splits of which one is named."""
    one = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    one.save_to_disk("one")
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk("two")
    assert ["a", "b"] == _texts("one")
    assert ["b"] == _texts("two", split="test")
    assert 2 == open_data("two", split="train").total
    assert ("text", "label") == open_data("one").columns


def test_dataset_objects() -> None:
    """`datasets` objects: in memory, streamed, and a dictionary of one split."""
    one = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert [0, 1] == [s.row["label"] for s in open_data(one)]
    assert ["a", "b"] == _texts(one.to_iterable_dataset())
    assert open_data(one.to_iterable_dataset()).total is None
    assert ["a", "b"] == _texts(datasets.DatasetDict({"train": one}))


def test_python_texts() -> None:
    """Lists, tuples, generators, mappings and `texts`."""
    assert ["a", "b"] == _texts(["a", {"text": "b", "n": 1}])
    assert ["a"] == _texts(("a",))
    assert ["a"] == _texts(t for t in ["a"])
    assert ["a", "b"] == [s.text for s in open_data(texts=["a", "b"])]
    assert ("text", "n") == open_data(["a", {"text": "b", "n": 1}]).columns
    assert 2 == open_data(["a", "b"]).total
    assert open_data(t for t in ["a"]).total is None


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads lines of stdin, once."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa\r\nb")))
    data = open_data("-")
    assert ["a", "b"] == [s.text for s in data]
    assert "<stdin>" == data.source
    with pytest.raises(DataError, match="only once"):
        list(data)


def test_limit() -> None:
    """A limit takes the first samples, empty ones included, and bounds the total."""
    path = _write(Path(), "a.txt", "a\n\nb\nc\n")
    assert ["a", ""] == _texts(path, limit=2)
    assert 2 == open_data(path, limit=2).total
    assert 4 == open_data(path, limit=9).total
    assert 1 == open_data(["a", "b"], limit=1).total


def test_limit_reads_no_further() -> None:
    """What is wrong beyond the limit is never reached."""
    assert ["a"] == _texts(_write(Path(), "a.txt", b"a\n\xff\n"), limit=1)


def test_sources() -> None:
    """A data set says where it is from."""
    _write(Path(), "a.txt", "a")
    expected = ["a.txt", "<list>", "<iterable>", "<text>"]
    found = [open_data(d).source for d in ("a.txt", ["a"], iter(["a"]))]
    assert expected == [*found, open_data(texts=["a"]).source]


def test_huge_line() -> None:
    """One line of ten megabytes is one sample."""
    (text,) = _texts(_write(Path(), "a.txt", b"x " * 5_000_000))
    assert 10_000_000 == len(text)


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "parquet"])
def test_streams(ending: str) -> None:
    """Reading holds a small part of the file."""
    path, text = Path(f"a.{ending}"), "x" * 1000
    rows = 20_000
    if ending == "parquet":
        pq.write_table(pa.table({"text": [f"{i}{text}" for i in range(rows)]}), path)
    else:
        line = json.dumps({"text": text}) if ending == "jsonl" else text
        path.write_text(("text\n" if ending == "csv" else "") + f"{line}\n" * rows)
    data = open_data(path)
    tracemalloc.start()
    assert rows == sum(1 for _ in data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


# --- fingerprints -------------------------------------------------------------------------------


def _fingerprint(data: Any, **options: Any) -> str:
    dataset = open_data(data, **options)
    for _ in dataset:
        pass
    return dataset.fingerprint


def test_fingerprint_is_of_the_content() -> None:
    """The same texts have the same fingerprint, wherever they come from; each time anew."""
    path = _write(Path(), "a.txt", "a\nb\n")
    assert _fingerprint(["a", "b"]) == _fingerprint(path)
    data = open_data(path)
    twice = [[*data] and data.fingerprint for _ in range(2)]
    assert twice[0] == twice[1]


DIFFERENT: list[list[Any]] = [
    ["a", "b"],
    ["b", "a"],
    ["ab"],
    ["a", "b", ""],
    [{"text": "a", "n": 1}],
    [{"text": "a", "n": 1.0}],
    [{"text": "a", "n": "1"}],
    [{"text": "a", "n": True}],
    [{"text": "a", "n": None}],
    [{"text": "a", "n": [1]}],
    [{"text": "a", "n": {"1": 1}}],
    [{"text": "a", "n": b"1"}],
    [{"text": "a", "n": np.array([1])}],
    [{"text": "a", "m": 1}],
    [{"text": "a", "n": "a"}],
    [{"text": "a\ud800"}],
]


def test_fingerprint_tells_apart() -> None:
    """Order, boundaries, values, their types and their columns all count."""
    assert len(DIFFERENT) == len({_fingerprint(data) for data in DIFFERENT})


def test_fingerprint_ignores_addresses() -> None:
    """A value whose repr is its address does not make each run different."""
    assert _fingerprint([{"text": "a", "o": object()}]) == _fingerprint(
        [{"text": "a", "o": object()}]
    )


# --- what is wrong ------------------------------------------------------------------------------

WRONG: dict[str, tuple[str, str | bytes]] = {
    "utf8": ("a.txt", b"fine\nab\xffc\n"),
    "utf8-after-bom": ("a.txt", b"\xef\xbb\xbfa\xc3\n"),
    "utf16": ("a.txt", "text".encode("utf-16")),
    "utf8-jsonl": ("a.jsonl", b'{"text": "\xff"}\n'),
    "utf8-csv": ("a.csv", b"text,n\na,1\n\xe9,2\n"),
    "json": ("a.jsonl", '{"text": "a"}\n{"text": "b",}\n'),
    "json-cut": ("a.jsonl", '{"text": "a'),
    "json-list": ("a.jsonl", '["a"]\n'),
    "json-text": ("a.jsonl", '"a"\n'),
    "json-number": ("a.jsonl", '{"text": ' + "1" * 5000 + "}\n"),
    "json-deep": ("a.jsonl", "[" * 100_000 + "\n"),
    "json-no-column": ("a.jsonl", '{"text": "a"}\n{"body": "b", "n": 1}\n'),
    "json-null": ("a.jsonl", '{"text": "a"}\n{"text": null}\n'),
    "json-not-text": ("a.jsonl", '{"text": "a"}\n{"text": ["b"]}\n'),
    "json-two-columns": ("a.jsonl", '{"title": "a", "body": "b"}\n'),
    "json-no-text": ("a.jsonl", '{"n": 1}\n'),
    "csv-width": ("a.csv", "text,n\na,1\nb\n"),
    "csv-wide": ("a.csv", "text\na\nb,c\n"),
    "csv-quote": ("a.csv", 'text,n\na,1\n"b,2\nc,3\n'),
    "csv-after-quote": ("a.csv", 'text\n"b"c\n'),
    "csv-return": ("a.csv", "text,n\na\rb,1\n"),
    "csv-twice": ("a.csv", "text,n,n\na,1,2\n"),
    "csv-two-columns": ("a.csv", "title,body\na,b\n"),
    "csv-header-only": ("a.csv", "text,n\n"),
    "csv-empty": ("a.csv", ""),
    "txt-empty": ("a.txt", ""),
    "txt-only-bom": ("a.txt", b"\xef\xbb\xbf"),
    "parquet": ("a.parquet", "no parquet"),
    "ending": ("a.docx", "a"),
    "no-ending": ("notes", "a"),
}


@pytest.mark.parametrize("name", WRONG)
def test_malformed(name: str, golden: Golden) -> None:
    """Each malformed file is refused by a message that says where and why."""
    file, content = WRONG[name]
    path = _write(Path(), file, content)
    with pytest.raises(HookQLError) as caught:
        list(open_data(path))
    golden(f"data/{name}.txt", f"{caught.value}\n")


MISUSED: dict[str, Callable[[], Any]] = {
    "missing": lambda: open_data("txet.txt"),
    "missing-folder": lambda: open_data("no/such/place.txt"),
    "text-as-path": lambda: open_data("The quick brown fox jumps over the lazy dog. " * 9),
    "text-with-nul": lambda: open_data("a\x00b"),
    "folder": lambda: open_data("folder"),
    "empty-folder": lambda: open_data("empty"),
    "several-splits": lambda: open_data("saved"),
    "unknown-split": lambda: open_data("saved", split="tset"),
    "split-of-one": lambda: open_data("single", split="train"),
    "split-of-file": lambda: open_data("text.txt", split="train"),
    "unknown-column": lambda: open_data("table.csv", column="lable"),
    "parquet-no-text": lambda: open_data("n.parquet"),
    "parquet-null": lambda: list(open_data("null.parquet")),
    "hub": lambda: open_data("some/name"),
    "none": open_data,
    "both": lambda: open_data(["a"], texts=["b"]),
    "limit": lambda: open_data(["a"], limit=0),
    "number": lambda: open_data(3),
    "mapping": lambda: open_data({"text": "a"}),
    "item": lambda: list(open_data(["a", 3])),
    "list-empty": lambda: open_data([]),
    "generator-empty": lambda: list(open_data(iter([]))),
    "list-no-column": lambda: list(open_data([{"text": "a"}, {"n": 1}])),
}


@pytest.fixture
def _files(tmp_path: Path) -> None:
    """The files that the misuses below find beside what they ask for."""
    _write(tmp_path, "text.txt", "a\n")
    _write(tmp_path, "table.csv", "text,label\na,1\n")
    for folder in ("folder", "empty"):
        (tmp_path / folder).mkdir()
    _write(tmp_path / "folder", "part.parquet", "")
    one = datasets.Dataset.from_dict({"text": ["a"]})
    one.save_to_disk("single")
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk("saved")
    pq.write_table(pa.table({"n": [1]}), "n.parquet")
    pq.write_table(pa.table({"text": ["a", None]}), "null.parquet")


@pytest.mark.parametrize("name", MISUSED)
@pytest.mark.usefixtures("_files")
def test_misused(name: str, golden: Golden) -> None:
    """Each wrong call is refused by a message that says what would do."""
    with pytest.raises(HookQLError) as caught:
        MISUSED[name]()
    golden(f"data/{name}.txt", f"{caught.value}\n")


def test_exit_codes() -> None:
    """A wrong argument exits with 2, wrong data with 1."""
    with pytest.raises(UsageError):
        open_data()
    with pytest.raises(DataError):
        open_data("missing.txt")


def test_found_at_once() -> None:
    """What is wrong with the first record is found on opening, before a model is loaded."""
    path = _write(Path(), "a.jsonl", "not json\n")
    with pytest.raises(DataError):
        open_data(path)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch, golden: Golden) -> None:
    """Without the packages of the extra, the message says how to install it."""
    _write(Path(), "a.parquet", "")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError) as caught:
        open_data("a.parquet")
    golden("data/missing-extra.txt", f"{caught.value}\n")


def test_hub_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub data set is streamed, by its one split or the named one."""
    one = datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset()
    splits = datasets.IterableDatasetDict({"train": one, "test": one})
    asked: list[Any] = []
    monkeypatch.setattr("hookql.data.columnar._ask", lambda hub, name: True)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, **options: asked.append((name, options)) or splits
    )
    data = open_data("some/name", split="test")
    assert ["a", "b"] == [s.text for s in data]
    assert [("some/name", {"streaming": True})] == asked
    assert "some/name" == data.source
    with pytest.raises(UsageError, match="train, test"):
        open_data("some/name")


def test_sample_equality_ignores_place() -> None:
    """A sample is its index, text and row."""
    assert Sample(0, "a", {"text": "a"}, "a.txt:1") == Sample(0, "a", {"text": "a"})


def test_places() -> None:
    """Parquet rows are named by number, list items not at all."""
    pq.write_table(pa.table({"text": ["a"]}), "a.parquet")
    assert ["a.parquet, row 0"] == _places("a.parquet")
    assert [None] == _places(["a"])


def test_a_data_frame_is_its_rows() -> None:
    """Iterating a pandas frame would give the names of its columns as texts."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["one", "two"], "label": ["a", "b"]})
    found = list(open_data(frame))
    assert ["one", "two"] == [sample.text for sample in found]
    assert ["a", "b"] == [sample.row["label"] for sample in found]
