"""How large a piece of data may be: what is read of a file at once always fits into memory."""

from __future__ import annotations

from collections.abc import Mapping

from hookql.errors import DataError, Diagnostic

LONGEST = 1 << 24
"""Bytes of a line or of a row, characters of a text: 16 million, some ten thick books.

Python's objects for a line of JSON take up to 25 times its bytes, a tokenizer up to 100.
"""

WINDOW_BYTES = 1 << 28
"""What the columns of the samples that are held at once may take, about."""


def too_long(where: str) -> DataError:
    """The error for a line, row or text that is longer than `LONGEST`."""
    message = f"{where}: this is longer than {LONGEST // 1_000_000} million characters"
    help = "give each text, or each document, a line of its own"
    return DataError(Diagnostic("too-long", message, help=help))


def weight(row: Mapping[str, object]) -> int:
    """About how many bytes a row takes, lists and objects within it included; not recursive."""
    total = 0
    waiting: list[object] = list(row.values())
    while waiting:
        value = waiting.pop()
        total += 64
        if isinstance(value, str | bytes):
            total += len(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        else:
            total += getattr(value, "nbytes", 0)
    return total
