"""Where samples come from: files by their ending, data sets, stdin, Python's own texts."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from hookql.data.columnar import Hugging, Parquet, is_saved, load_named, load_saved, one_split
from hookql.data.delimited import read_delimited
from hookql.data.jsonl import kind, read_jsonl
from hookql.data.lines import count_lines, lines, without_break
from hookql.data.samples import no_samples
from hookql.errors import DataError, Diagnostic, UsageError, did_you_mean, listing

Record = tuple[str | None, Mapping[str, object]]
ENDINGS = (".txt", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
TEXT = "text"


@frozen
class Opened:
    """A source before its text column is chosen: what every format offers."""

    source: str
    records: Callable[[], Iterator[Record]]
    columns: tuple[str, ...] | None = None
    strings: tuple[str, ...] | None = None
    count: Callable[[int | None], int | None] = field(default=lambda limit: None)
    reads_again: bool = True


def open_source(data: object, split: str | None) -> Opened:
    """Find what ``data`` names or is, and open it.

    Raises:
        UsageError: where it is nothing that can be read, or lacks that split.
        DataError: where it is not there, or is broken at its head.
    """
    if isinstance(data, str | Path):
        return _open_path(str(data), split)
    if type(data).__module__.partition(".")[0] == "datasets":
        if isinstance(data, dict):
            data = one_split(data, split, "the data set")
        return _hugging(Hugging(data), "<dataset>")
    if type(data).__module__.partition(".")[0] in ("pandas", "polars"):
        # Iterating one gives the names of its columns.
        return in_memory(_records(data), "<data frame>")
    if isinstance(data, io.IOBase):
        message = "data is an open file, not its path, texts or mappings"
        raise UsageError(Diagnostic("bad-data", message, help="give the file's path"))
    if isinstance(data, Mapping | bytes) or not isinstance(data, Iterable):
        raise UsageError(
            Diagnostic(
                "bad-data",
                f"data is {kind(data)}, not a path, texts or mappings",
                help="give a list of texts, or of mappings with a `text`",
            )
        )
    return in_memory(data, "<list>" if isinstance(data, list | tuple) else "<iterable>")


def _records(frame: Any) -> list[dict[str, object]]:
    """The rows of a pandas or polars data frame, each by the names of its columns."""
    rows = frame.to_dicts() if hasattr(frame, "to_dicts") else frame.to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _open_path(given: str, split: str | None) -> Opened:
    if given == "-":
        return Opened(
            "<stdin>",
            lambda: _lines_of(lines(sys.stdin.buffer, "<stdin>"), "<stdin>"),
            (TEXT,),
            (TEXT,),
            reads_again=False,
        )
    path = Path(given).expanduser()
    try:
        if path.is_dir():
            return _open_folder(path, split)
        if path.exists():
            return _open_file(path)
    except (OSError, ValueError):
        # A whole text given as a path: too long a name, or one with a NUL.
        raise _missing(path) from None
    if path.suffix.lower() in ENDINGS or not _may_be_a_name(given):
        raise _missing(path)
    return _hugging(Hugging(load_named(given, split)), given)


def _open_folder(path: Path, split: str | None) -> Opened:
    if is_saved(path):
        return _hugging(Hugging(load_saved(path, split, path.name)), path.name)
    inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in ENDINGS)
    raise DataError(
        Diagnostic(
            "not-a-dataset",
            f"`{path}` is a folder, but none that `datasets` saved",
            help=f"give a file in it, {path / inside[0]}" if inside else None,
            notes=(f"data files in it: {listing(inside)}",) if inside else (),
        )
    )


def _open_file(path: Path) -> Opened:
    name, ending = path.name, path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(
            Diagnostic(
                "unknown-format",
                f"the ending of `{path}` tells no format that can be read",
                help="if it holds one text a line, name it .txt",
                notes=(f"known endings: {listing(ENDINGS)}",),
            )
        )
    if not path.is_file():
        raise DataError(Diagnostic("not-a-file", f"`{path}` is no regular file"))
    if ending == ".parquet":
        parquet = Parquet(path, name)
        return Opened(
            name, parquet.records, parquet.columns, parquet.strings, lambda limit: parquet.total
        )
    if ending in (".csv", ".tsv"):
        delimiter = "," if ending == ".csv" else "\t"
        return _delimited(path, name, delimiter)
    columns = (TEXT,) if ending == ".txt" else None
    read = _lines_of if ending == ".txt" else read_jsonl
    return Opened(
        name,
        lambda: read(_file_lines(path, name), name),
        columns,
        columns,
        lambda limit: count_lines(path, limit),
    )


def _delimited(path: Path, name: str, delimiter: str) -> Opened:
    columns, _ = read_delimited(_file_lines(path, name), name, delimiter)
    if not columns:
        raise no_samples(name)
    return Opened(
        name,
        lambda: read_delimited(_file_lines(path, name), name, delimiter)[1],
        columns,
        columns,
    )


def _hugging(dataset: Hugging, source: str) -> Opened:
    return Opened(
        source, dataset.records, dataset.columns, dataset.strings, lambda limit: dataset.total
    )


def in_memory(items: Iterable[object], source: str) -> Opened:
    """Texts and mappings of Python; a list can be counted and read again."""
    if not isinstance(items, list | tuple):
        return Opened(source, lambda: _items(items, source), reads_again=_rereads(items))
    names = dict.fromkeys(
        str(name) for item in items for name in (item if isinstance(item, Mapping) else (TEXT,))
    )
    return Opened(
        source, lambda: _items(items, source), tuple(names), count=lambda limit: len(items)
    )


def _rereads(items: Iterable[object]) -> bool:
    """Whether iterating starts anew each time; an iterator's goes on where it was."""
    return not isinstance(items, Iterator)


def _items(items: Iterable[object], source: str) -> Iterator[Record]:
    for index, item in enumerate(items):
        if isinstance(item, str):
            yield None, {TEXT: item}
        elif isinstance(item, Mapping):
            yield None, item
        else:
            raise DataError(
                Diagnostic(
                    "not-text",
                    f"{source}, sample {index}: the item is {kind(item)}, not text or a mapping",
                )
            )


def _file_lines(path: Path, name: str) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb", buffering=1 << 20) as file:
            yield from lines(file, name)
    except OSError as error:
        raise DataError(
            Diagnostic("unreadable", f"`{path}` cannot be read: {error.strerror}")
        ) from None


def _lines_of(numbered: Iterator[tuple[int, str]], name: str) -> Iterator[Record]:
    for number, line in numbered:
        yield f"{name}:{number}", {TEXT: without_break(line)}


def _may_be_a_name(given: str) -> bool:
    """Whether a missing path could be a hub data set's name: ``name`` or ``owner/name``."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", given) is not None


def has_splits(data: object) -> bool:
    """Whether a split can be asked of this data at all (whether it has it, its loader says)."""
    if isinstance(data, str | Path):
        return data != "-" and not Path(data).expanduser().is_file()
    return isinstance(data, dict) and type(data).__module__.startswith("datasets")


def _missing(path: Path) -> DataError:
    shown = "".join(c if c.isprintable() else "�" for c in str(path)[:80])
    shown += "…" if len(str(path)) > 80 else ""
    hint = None
    try:
        names = sorted(p.name for p in path.parent.iterdir())
        hint = did_you_mean(path.name, names) if len(path.name) <= 255 else None
    except (OSError, ValueError):
        hint = None
    return DataError(
        Diagnostic(
            "no-such-file",
            f"there is no file `{shown}`",
            help=hint or 'to run a text itself, use --text "..."',
        )
    )
