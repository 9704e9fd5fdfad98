"""Where a variable lies in a NetCDF file, so that it can be read without the library.

A variable that was written in one piece is a plain array somewhere in the file, and its header
says where. The library does not tell, and takes 0.2 ms for each slice, however short. So the header
is looked for, and believed only if what lies there is what the library reads.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_HEADERS = 2**22  # bytes at the start and at the end of a file that are searched first
_ALL = 2**32  # bytes of a file that is searched as a whole, where nothing is found there
_CONTIGUOUS = b"\x03\x01"  # of HDF5: a data layout message, version 3, of one piece
_RUN = 4096  # bytes compared at each of a few places
_SLAB = 2**22  # bytes compared at once where everything is

Run = tuple[int, int, int]  # which of the leading indices, and rows [from, to) of it


def offset_of(path: Path, variable: Any, along: int) -> int | None:
    """The byte at which a variable's numbers begin in its file; None where it has to be asked for.

    ``variable`` is open, with masks and scales off; ``along`` is its axis of rows. None for what is
    chunked, compressed, in another byte order, or not found.
    """
    size = variable.size * variable.dtype.itemsize
    if not size or variable.chunking() != "contiguous" or variable.endian() == "big":
        return None
    row = math.prod(variable.shape[along + 1 :]) * variable.dtype.itemsize
    few = list(_runs(variable, along, max(1, _RUN // row), 4))
    with path.open("rb") as file:
        fitting: list[int] = []
        for candidates in _candidates(file.fileno(), size):
            fitting = [
                at for at in candidates if _same(file.fileno(), at, variable, along, row, few)
            ]
            if fitting:
                break
        if len(fitting) > 1:  # as alike as columns of zeros: all of it decides
            whole = list(_runs(variable, along, max(1, _SLAB // row), None))
            fitting = [
                at for at in fitting if _same(file.fileno(), at, variable, along, row, whole)
            ]
    return fitting[0] if fitting else None


def _candidates(file: int, size: int) -> Iterator[list[int]]:
    """Where headers say that something of this size lies in one piece, part by part of the file."""
    whole = os.fstat(file).st_size
    wanted = struct.pack("<Q", size)
    # Headers of what is defined early stand in front of the numbers, those of others behind them.
    parts = [(10, _HEADERS), (max(10, whole - _HEADERS), whole), (10, whole if whole < _ALL else 0)]
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as mapped:
        for start, stop in parts:
            found = set()
            at = mapped.find(wanted, start, stop)
            while at >= 0:
                (place,) = struct.unpack_from("<Q", mapped, at - 8)
                if mapped[at - 10 : at - 8] == _CONTIGUOUS and 0 < place <= whole - size:
                    found.add(place)
                at = mapped.find(wanted, at + 1, stop)
            yield sorted(found)


def _runs(variable: Any, along: int, step: int, most: int | None) -> Iterator[Run]:
    """Runs of ``step`` rows of each leading index: all of them, or ``most``, both ends among them.

    The last one of an index may be shorter.
    """
    rows = variable.shape[along]
    starts = np.arange(0, rows, step)
    if most is not None and len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(np.int64)]
    for leading in range(math.prod(variable.shape[:along])):
        yield from ((leading, int(start), min(int(start) + step, rows)) for start in starts)


def _same(file: int, offset: int, variable: Any, along: int, row: int, runs: list[Run]) -> bool:
    """Whether runs are the same, bit for bit, at an offset and by the library."""
    rows = variable.shape[along]
    for leading, start, stop in runs:
        there = os.pread(file, (stop - start) * row, offset + (leading * rows + start) * row)
        index = np.unravel_index(leading, variable.shape[:along]) if along else ()
        said = variable[(*map(int, index), slice(start, stop))]
        if there != np.ascontiguousarray(said).tobytes():
            return False
    return True
