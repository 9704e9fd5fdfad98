"""CRC-32 of what lies in a NetCDF file, read in pieces that fit into memory."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from attrs import define, field

from hookql.language.names import CHECKSUMS

Array = np.ndarray[Any, Any]

GROUP = CHECKSUMS  # of the file: what `seal` writes, and who shows results leaves out
ROWS = 65_536  # of a block
PIECE = 2**24  # bytes read at once


@define
class Crc:
    """CRC-32 of each block of ``ROWS`` rows of a column, whatever the pieces it comes in."""

    _whole: list[int] = field(factory=list)
    _last: int = 0
    _rows: int = 0

    def update(self, rows: Array) -> None:
        """Take in the next rows (n, ...), in one piece of memory as they lie in the file."""
        at = 0
        while at < len(rows):
            piece = rows[at : at + ROWS - self._rows % ROWS]
            self._last = zlib.crc32(piece.data if piece.size else b"", self._last)
            self._rows += len(piece)
            at += len(piece)
            if self._rows % ROWS == 0:
                self._whole.append(self._last)
                self._last = 0

    def blocks(self) -> list[int]:
        """One number for each block begun so far."""
        return [*self._whole, self._last] if self._rows % ROWS else list(self._whole)


def crc_of(variable: Any, keys: Iterable[tuple[Any, ...]]) -> int:
    """The CRC-32 of pieces; -1, which none is, where they cannot be read."""
    found = 0
    try:
        for key in keys:
            found = zlib.crc32(read(variable, key or ...).data, found)
    except (OSError, RuntimeError):
        return -1
    return found


def crc_of_json(what: object) -> int:
    """The CRC-32 of anything that JSON can hold."""
    return zlib.crc32(json.dumps(what, sort_keys=True, default=str).encode())


def read(variable: Any, key: Any) -> Array:
    """A part of a variable as it lies in the file, in one piece; texts as JSON's bytes."""
    variable.set_auto_maskandscale(False)
    variable.set_auto_chartostring(False)
    found = np.asarray(variable[key])
    if found.dtype == object:
        text = json.dumps(found.tolist(), default=str).encode()
        return np.frombuffer(text, np.uint8)
    return np.ascontiguousarray(found, found.dtype.newbyteorder("<"))


def pieces(shape: tuple[int, ...], size: int) -> Iterator[tuple[Any, ...]]:
    """Indices of a whole array in order, of ``PIECE`` bytes or less; ``size``: of a number."""
    if not shape:
        yield ()
        return
    row = max(1, math.prod(shape[1:]) * size)
    if row > PIECE:
        yield from ((i, *rest) for i in range(shape[0]) for rest in pieces(shape[1:], size))
        return
    step = PIECE // row
    yield from ((slice(a, min(a + step, shape[0])),) for a in range(0, shape[0], step))


def shifted(piece: tuple[Any, ...], by: int) -> tuple[Any, ...]:
    """The same index, of an array that begins ``by`` rows earlier."""
    first, *rest = piece
    moved = slice(first.start + by, first.stop + by) if isinstance(first, slice) else first + by
    return (moved, *rest)


def item(variable: Any) -> int:
    """Bytes of one number of a variable; a guess for a text."""
    return 64 if variable.dtype is str else int(variable.dtype.itemsize)


def groups(file: Any) -> Iterator[Any]:
    """A group and all in it, the checksums aside."""
    yield file
    for name, group in file.groups.items():
        if (file.path, name) != ("/", GROUP):
            yield from groups(group)


def attributes(owner: Any) -> dict[str, Any]:
    """Attributes of a group or variable as JSON can hold them, with their dtypes."""
    found = {name: owner.getncattr(name) for name in owner.ncattrs()}
    return {
        name: [value.dtype.str, value.tolist()] if hasattr(value, "dtype") else value
        for name, value in found.items()
    }
