"""Rows of a shard: blocks written by a thread as they come, and read back with their checksums.

A block is one column of one append: its length, the length of its name, the CRC-32 of its bytes;
its name, as JSON; its bytes. A shard's checksum is the CRC-32 of all but the blocks' bytes, so that
nothing is summed up twice.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from attrs import field, frozen

from hookql.checkpoint.files import commit, create, open_whole, temporary, write
from hookql.checkpoint.state import numpy_dtype
from hookql.errors import Diagnostic, HookQLError
from hookql.raw.tables import Columns

MAGIC = b"hookql-rows-1\n\0\0"
_BLOCK = struct.Struct("<QII")
_NAME = 1 << 16  # bytes
# Rows that may wait for the disk: enough for it to catch up between passes.
QUEUE = 64_000_000

Rows = dict[str, dict[str, int]]  # how many rows, by table and column


@frozen
class Shard:
    """What the manifest says of a shard's rows file."""

    number: int
    bytes: int
    crc32: int
    rows: Rows = field(factory=dict)


def name_of(number: int) -> str:
    """The name of a shard's rows file."""
    return f"rows-{number:06}.hookql"


class ShardWriter:
    """One rows file, written by a thread of its own, under a temporary name until it is whole."""

    def __init__(self, folder: Path, number: int, queue: int = QUEUE) -> None:
        """Raises OSError where the file cannot be made."""
        self._path = folder / name_of(number)
        self._number, self._limit = number, queue
        self._fd = create(temporary(self._path))
        self._bytes, self._crc, self._rows = 0, 0, Rows()
        self._waiting: deque[tuple[str, Columns]] = deque()
        self._held = 0  # bytes in the queue, and of what the thread is writing
        self._ended = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hookql-shard", daemon=True)
        self._thread.start()

    def append(self, table: str, columns: Columns) -> None:
        """Hand over rows; waits while more than the limit has not been written."""
        size = sum(array.nbytes for array in columns.values())
        with self._changed:
            while self._held and self._held + size > self._limit:
                self._wait()
            self._check()
            self._waiting.append((table, columns))
            self._held += size
            self._changed.notify_all()

    def commit(self) -> Shard:
        """Wait until all is written; sync the file and give it its name."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
            while self._held:
                self._wait()
        self._thread.join()
        self._check()
        fd, self._fd = self._fd, -1
        commit(self._path, fd)
        return Shard(self._number, self._bytes, self._crc, self._rows)

    def abandon(self) -> None:
        """Stop at once and remove the file, unless it is whole and has its name."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(temporary(self._path))

    def _wait(self) -> None:
        """Wait for the thread, which may be dead."""
        self._check()
        self._changed.wait(1.0)

    def _check(self) -> None:
        """Raise what the thread failed with."""
        if isinstance(self._failure, OSError):
            raise self._failure
        dead = self._held and not self._thread.is_alive()
        if self._failure is not None or dead:
            message = f"the thread that writes `{self._path}` died"
            notes = (f"{type(self._failure).__name__}: {self._failure}",) if self._failure else ()
            raise HookQLError(Diagnostic("cannot-write", message, notes=notes)) from self._failure

    def _run(self) -> None:
        try:
            self._put(MAGIC)
            while (item := self._next()) is not None:
                self._write(*item)
                with self._changed:
                    self._held -= sum(array.nbytes for array in item[1].values())
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, nobody may wait for this thread for ever
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> tuple[str, Columns] | None:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _write(self, table: str, columns: Columns) -> None:
        counted = self._rows.setdefault(table, {})
        for column, array in columns.items():
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            name = json.dumps([table, column, array.dtype.str, list(array.shape)]).encode()
            head = _BLOCK.pack(len(flat), len(name), zlib.crc32(flat)) + name
            self._put(head)
            write(self._fd, flat)
            self._bytes += len(flat)
            counted[column] = counted.get(column, 0) + len(array)

    def _put(self, data: bytes) -> None:
        write(self._fd, data)
        self._bytes, self._crc = self._bytes + len(data), zlib.crc32(data, self._crc)


def blocks(folder: Path, shard: Shard) -> Iterator[tuple[str, Columns]]:
    """The rows of a shard, column by column, as they were appended.

    Raises ValueError at the first block that is not as it was written, OSError where the file
    cannot be read.
    """
    counted = Rows()
    with open_whole(folder / name_of(shard.number)) as file:
        size = os.fstat(file.fileno()).st_size
        if size != shard.bytes:
            raise ValueError(f"it has {size:,} bytes, not {shard.bytes:,}")
        head = file.read(len(MAGIC))
        crc, left = zlib.crc32(head), size - len(head)
        while left:
            table, column, array, head = _block(file, left)
            crc = zlib.crc32(head, crc)
            left -= len(head) + array.nbytes
            of_table = counted.setdefault(table, {})
            of_table[column] = of_table.get(column, 0) + len(array)
            yield table, {column: array}
    if crc != shard.crc32:
        raise ValueError("it does not have its checksum")
    if counted != shard.rows:
        raise ValueError("it does not have its number of rows")


def _block(file: BinaryIO, left: int) -> tuple[str, str, np.ndarray[Any, Any], bytes]:
    fixed = file.read(_BLOCK.size)
    if len(fixed) < _BLOCK.size:
        raise ValueError("its end is missing")
    length, named, crc = _BLOCK.unpack(fixed)
    if named > _NAME or _BLOCK.size + named + length > left:
        raise ValueError(_at(file, "a block does not fit into it"))
    name = file.read(named)
    table, column, dtype, shape = _named(name)
    if dtype.kind not in "biufc" or not shape or length != _bytes(dtype, shape):
        raise ValueError(_at(file, "a block is not what it says"))
    array = np.empty(shape, dtype)
    flat = array.reshape(-1).view(np.uint8).data
    if file.readinto(flat) != length or zlib.crc32(flat) != crc:  # type: ignore[attr-defined]
        raise ValueError(_at(file, f"rows of `{column[:80]}` do not have their checksum"))
    return table, column, array, fixed + name


def _named(name: bytes) -> tuple[str, str, np.dtype[Any], tuple[int, ...]]:
    try:
        table, column, dtype, shape = json.loads(name)
        return str(table), str(column), numpy_dtype(dtype), tuple(map(int, shape))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("a block has no name") from error


def _bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    total = dtype.itemsize
    for size in shape:
        total *= max(size, -1)
    return total


def _at(file: BinaryIO, said: str) -> str:
    return f"{said}, before byte {file.tell():,}"
