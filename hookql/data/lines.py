"""Lines of a UTF-8 file, one at a time, each with its number."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from hookql.data.limits import LONGEST, too_long
from hookql.errors import DataError, Diagnostic

_BLOCK = 1 << 20
# Counting is for a progress bar: past this it costs more than it tells.
_COUNTED = 2 << 30


def lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The 1-based number and text of each line, its line break (``\\n``, ``\\r\\n``) included.

    Nothing else ends a line: not a lone carriage return, not U+2028. A byte-order mark is dropped.

    Raises:
        DataError: on bytes that are not UTF-8, with line and byte offset; on a line of more than
            `LONGEST` bytes, of which no more is read.
    """
    offset = 0
    pieces = iter(partial(file.readline, LONGEST + 1), b"")
    for number, raw in enumerate(pieces, start=1):
        if len(raw) > LONGEST:
            raise too_long(f"{name}:{number}")
        line = raw
        if number == 1 and raw.startswith(codecs.BOM_UTF8):
            line = raw[len(codecs.BOM_UTF8) :]
            offset += len(codecs.BOM_UTF8)
            if not line:
                # Nothing but the mark: an empty file.
                return
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(name, number, offset + error.start, line, error) from None
        offset += len(line)


def without_break(line: str) -> str:
    """A line without the ``\\n`` or ``\\r\\n`` that ends it."""
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def count_lines(path: Path, limit: int | None) -> int | None:
    """How many lines a file has, or ``limit`` once that many are seen; None for a huge file."""
    if path.stat().st_size > _COUNTED:
        return None
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            count += block.count(b"\n")
            last = block[-1:]
            if limit is not None and count >= limit:
                return limit
    return count + (last != b"\n")


def _not_utf8(
    name: str, number: int, offset: int, line: bytes, error: UnicodeDecodeError
) -> DataError:
    wide = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return DataError(
        Diagnostic(
            "not-utf8",
            f"{name}:{number}: byte 0x{line[error.start]:02x} at byte offset {offset} of the file "
            "is not UTF-8",
            help="the file looks like UTF-16: convert it to UTF-8" if wide else None,
        )
    )
