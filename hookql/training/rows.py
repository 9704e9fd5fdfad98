"""The raw rows of one variable of a result file: what there is of them, and reading them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from hookql.errors import Diagnostic, UsageError
from hookql.exports.faults import reading
from hookql.training.library import Library, library

Array = np.ndarray[Any, Any]


@frozen
class Column:
    """A variable with one entry a row, as it lies in its file.

    ``shape`` is that of the variable, ``along`` its axis of rows, ``offset`` the byte where its
    numbers begin; None where the library has to read them.
    """

    dtype: str
    shape: tuple[int, ...]
    along: int
    offset: int | None


@frozen
class Rows:
    """Rows of a variable in a file: all that is to be known of them without opening it.

    A row has ``shape`` along ``dims``. ``layers`` are indices along ``layer``, None where the
    variable has none; ``single`` where the one layer is no axis of a row. ``block`` is how many
    rows are best read together. ``columns`` are the variable and, where they are wanted, what says
    of rows where they are from, ``row_size`` being along the samples. ``samples`` are the numbers
    of the samples where they are not 0, 1, 2. ``identity`` tells the file from others, ``stamp``
    whether it was changed.
    """

    path: Path
    node: str
    variable: str
    count: int
    dtype: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    layers: tuple[int, ...] | None
    single: bool
    block: int
    columns: Mapping[str, Column]
    samples: tuple[int, ...] | None
    identity: str
    stamp: tuple[int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _changed(path: Path) -> UsageError:
    message = f"`{path}` is no longer the file that it was"
    advice = "make the batches anew, with hookql.training_batches"
    return UsageError(Diagnostic("file-changed", message, help=advice))


def stamp(path: Path | int) -> tuple[int, int]:
    """What changes whenever somebody writes a file, given by name or open: its size and time."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@contextmanager
def reader(rows: Rows) -> Iterator[Reader]:
    """A file opened to be read, by one thread.

    HookQLError where it cannot be read, or is no longer the one that was described.
    """
    with reading(rows.path):
        plain = rows.path.open("rb")
    with plain:
        if stamp(rows.path) != rows.stamp:
            raise _changed(rows.path)
        if all(column.offset is not None for column in rows.columns.values()):
            yield Reader.of(rows, plain.fileno(), None)
            return
        with library(rows.path, rows.node) as asked:
            yield Reader.of(rows, plain.fileno(), asked)


@frozen(eq=False)
class Reader:
    """An open file; made by `reader`."""

    rows: Rows
    _file: int
    _library: Library | None
    _ends: Array | None  # behind which row each sample ends

    @classmethod
    def of(cls, rows: Rows, file: int, library: Library | None) -> Reader:
        """The reader of an open file."""
        found = cls(rows, file, library, None)
        sizes = rows.columns.get("row_size")
        if sizes is None:
            return found
        ends = np.empty(sizes.shape, sizes.dtype)
        found._numbers("row_size", (), 0, len(ends), ends)
        return evolve(found, ends=np.cumsum(ends, dtype=np.int64))

    def check(self) -> None:
        """Raise UsageError where somebody has written the file since it was opened."""
        if stamp(self._file) != self.rows.stamp:
            raise _changed(self.rows.path)

    def read(self, start: int, stop: int, out: Array) -> None:
        """Put rows [start, stop) into ``out`` (stop - start, \\*shape), of the rows' dtype."""
        rows, layers = self.rows, self.rows.layers
        if layers is None or rows.single:
            self._numbers(rows.variable, layers or (), start, stop, out)
            return
        for place, layer in enumerate(layers):
            self._numbers(rows.variable, (layer,), start, stop, out[:, place])

    def label(self, name: str, start: int, stop: int, out: Array) -> None:
        """Put ``sample``, ``chunk``, ``position`` or ``token_id`` of rows into ``out`` (n,)."""
        if name != "sample":
            self._numbers(name, (), start, stop, out)
            return
        assert self._ends is not None
        which = np.searchsorted(self._ends, np.arange(start, stop), side="right")
        known = self.rows.samples
        out[:] = which if known is None else np.asarray(known, np.int64)[which]

    def _numbers(
        self, name: str, index: tuple[int, ...], start: int, stop: int, out: Array
    ) -> None:
        """Put rows of some leading indices of a column into ``out``, those after them behind."""
        column = self.rows.columns[name]
        if len(index) < column.along:
            for inner in range(column.shape[len(index)]):
                self._numbers(name, (*index, inner), start, stop, out[:, inner])
            return
        with reading(self.rows.path):
            if column.offset is None:
                assert self._library is not None
                self._library.read(name, index, start, stop, out)
                return
            leading = np.ravel_multi_index(index, column.shape[: column.along]) if index else 0
            row = math.prod(column.shape[column.along + 1 :]) * out.itemsize
            into = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
            at = column.offset + (int(leading) * column.shape[column.along] + start) * row
            if os.preadv(self._file, [into.reshape(-1).view(np.uint8).data], at) != into.nbytes:
                raise OSError("it is shorter than it was")
            if into is not out:
                out[...] = into
