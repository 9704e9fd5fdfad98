"""What is fuzzed: each takes any bytes, and raises only what is a finding."""

from __future__ import annotations

import itertools
from pathlib import Path

from hookql.data.read import open_data
from hookql.errors import HookQLError, QueryError
from hookql.language.formatter import format_text
from hookql.language.parser import parse
from hookql.language.resolve import resolve
from hookql.predicates.patterns import compile_regex
from hookql.results.netcdf import load
from hookql.results.table import summary

ENDINGS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")


def _said(error: HookQLError) -> None:
    """Every error can be shown."""
    assert str(error)


def query(data: bytes) -> None:
    """A query: what parses is formatted to a text that means the same."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        program = parse(text)
    except QueryError as error:
        _said(error)
        return
    assert program == parse(format_text(text))
    try:
        resolve(program)
    except QueryError as error:
        _said(error)


def pattern(data: bytes) -> None:
    """A regular expression: compiled, or refused."""
    try:
        compile_regex(data.decode("utf-8", "replace"))
    except QueryError as error:
        _said(error)


def file(data: bytes, folder: Path) -> None:
    """A data file of any kind, which the first byte chooses."""
    kind = ENDINGS[data[0] % len(ENDINGS)] if data else ".txt"
    path = folder / f"x{kind}"
    path.write_bytes(data[1:])
    try:
        for sample in itertools.islice(open_data(str(path)), 100):
            assert isinstance(sample.text, str)
    except HookQLError as error:
        _said(error)


def result(data: bytes, folder: Path) -> None:
    """A result file: read and shown, without anything that steers the terminal."""
    path = folder / "x.nc"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        shown = summary(load(path))
    except HookQLError as error:
        _said(error)
        return
    assert all(c.isprintable() or c == "\n" for c in shown)
