"""Rows written to a NetCDF file while they come: each column grows at its own pace."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from attrs import define, frozen

from hookql.raw.layout import chunk_rows, layout, make_variable
from hookql.raw.tables import GROWING, Columns, RawTable, RawVariable, column

Array = np.ndarray[Any, Any]

# The C library bears one thread at a time, and several files may be written at once.
ALONE = threading.RLock()


class RaggedFile:
    """A NetCDF-4 file that is being written, of one or several tables, by one thread."""

    def __init__(self, path: Path, tables: Sequence[RawTable], compress: str = "none") -> None:
        """Make the file with all groups, dimensions and variables; ``path`` must not be there.

        ``compress`` is "none", "zstd" or "zlib", losslessly each. OSError or RuntimeError where the
        file cannot be made, as from ``append`` and ``close`` where the disk is full.
        """
        self.path = path
        with ALONE:
            self._file = netCDF4.Dataset(path, "w", format="NETCDF4", clobber=False)
            try:
                self._columns = {
                    table.name: _columns(_group(self._file, table), table, compress)
                    for table in tables
                }
            except BaseException:
                self.abandon()
                raise

    def append(self, table: str, columns: Columns) -> None:
        """Put rows (n, ...) at the end of each column; ValueError where they cannot belong there.

        Rows may be of another dtype if every number stays what it is.
        """
        known = self._columns[table]
        if unknown := sorted(set(columns) - set(known)):
            raise ValueError(f"`{table}` has no column {unknown}")
        for name, rows in columns.items():
            known[name].check(name, rows)
        with ALONE:
            for name, rows in columns.items():
                known[name].append(stored(rows, known[name].dtype))

    def close(self, whole: bool = True) -> None:
        """Write out what waits, and close.

        ValueError if columns are not full, or not of one length along a dimension.
        """
        with ALONE:
            try:
                for table, columns in self._columns.items():
                    for each in columns.values():
                        each.flush()
                    if whole:
                        _check_lengths(table, columns)
                self._file.close()
            except BaseException:
                self.abandon()
                raise

    def abandon(self) -> None:
        """Close an unfinished file, whatever state it is in; its disk space is given back."""
        if not self._file.isopen():
            return
        try:
            with ALONE:
                self._file.close()
        except (OSError, RuntimeError):
            # On a full disk HDF5 keeps the file open for ever: removing it would free nothing.
            with contextlib.suppress(OSError):
                os.truncate(self.path, 0)
            # Nor may it be closed twice, as the garbage collector would, in whatever thread it
            # runs, while another file is being written: the C library crashes now and then.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._file))


def stored(rows: Array, dtype: str) -> Array:
    """Rows as they lie in the file: little-endian, in one piece; the same array if they do already.

    ValueError where a number would become another one.
    """
    with np.errstate(all="ignore"):
        found = np.ascontiguousarray(rows, np.dtype(dtype))
        if rows.dtype.kind not in "iu":
            if np.can_cast(rows.dtype, found.dtype, "safe"):
                return found
        elif np.array_equal(found, rows) and np.array_equal(found.astype(rows.dtype), rows):
            return found  # NumPy casts int64 to float64 "safely" as well, where it rounds
    raise ValueError(f"rows of {rows.dtype} cannot be stored as {dtype}")


def columns_of(table: RawTable) -> dict[str, tuple[RawVariable, tuple[int, ...]]]:
    """Every column of a table: its variable, and its index along the dimensions before the rows."""
    found = {}
    for variable in table.variables:
        before = itertools.takewhile(lambda dim: dim not in GROWING, variable.dims)
        for index in itertools.product(*(range(_known(table, dim)) for dim in before)):
            found[column(variable.name, *index)] = variable, index
    return found


@frozen
class _Place:
    """Where a column's rows lie in its variable."""

    variable: Any
    before: tuple[int, ...]
    behind: int

    def write(self, first: int, rows: Array) -> None:
        whole = (slice(None),) * self.behind
        self.variable[(*self.before, slice(first, first + len(rows)), *whole)] = rows


@define(eq=False)
class _Column:
    """One growing column. Where it is chunked, what does not fill a chunk waits in memory."""

    place: _Place
    dtype: str
    dim: str
    shape: tuple[int, ...]
    size: int | None
    chunk: int  # rows; 0: contiguous, every row is written as it comes
    length: int = 0  # rows taken in
    waiting: Array | None = None  # (chunk, ...), of which length % chunk rows are filled

    def check(self, name: str, rows: Array) -> None:
        """ValueError unless so many rows of this shape have their place."""
        if rows.shape[1:] != self.shape:
            raise ValueError(f"rows of {rows.shape[1:]} for `{name}`, whose rows are {self.shape}")
        if self.size is not None and self.length + len(rows) > self.size:
            raise ValueError(f"more than {self.size} rows for `{name}`")

    def append(self, rows: Array) -> None:
        if not self.chunk:
            self._write(self.length, rows)
            self.length += len(rows)
            return
        filled = self.length % self.chunk
        first = rows[: self.chunk - filled] if filled else rows[:0]
        whole = (len(rows) - len(first)) // self.chunk * self.chunk
        if len(first):
            self._wait(filled, first)
            self.length += len(first)
            if not self.length % self.chunk:
                self._write(self.length - self.chunk, self._buffer())
        self._write(self.length, rows[len(first) : len(first) + whole])
        self.length += whole
        if len(rest := rows[len(first) + whole :]):
            self._wait(0, rest)
            self.length += len(rest)

    def flush(self) -> None:
        """Write what waits."""
        if self.chunk and (filled := self.length % self.chunk):
            self._write(self.length - filled, self._buffer()[:filled])
        self.waiting = None

    def _write(self, first: int, rows: Array) -> None:
        if rows.size:
            self.place.write(first, rows)

    def _wait(self, filled: int, rows: Array) -> None:
        self._buffer()[filled : filled + len(rows)] = rows

    def _buffer(self) -> Array:
        if self.waiting is None:
            self.waiting = np.empty((self.chunk, *self.shape), self.dtype)
        return self.waiting


def _group(file: Any, table: RawTable) -> Any:
    """The group of a table, with its dimensions; those that tables share have one size."""
    group = file if table.group == "/" else file.createGroup(table.group)
    for dim, size in table.sizes.items():
        if dim not in group.dimensions:
            group.createDimension(dim, size)  # None and 0 are both unlimited
        elif (_limit(group.dimensions[dim]) or None) != (size or None):
            raise ValueError(f"`{dim}` of {table.group} has two sizes")
    return group


def _limit(dimension: Any) -> int | None:
    return None if dimension.isunlimited() else int(dimension.size)


def _columns(group: Any, table: RawTable, compress: str) -> dict[str, _Column]:
    """The variables of a table, made, and their columns."""
    found = {}
    made: dict[str, tuple[Any, int]] = {}
    for name, (variable, index) in columns_of(table).items():
        dim = variable.dims[len(index)]
        size = table.sizes[dim]
        shape = tuple(_known(table, behind) for behind in variable.dims[len(index) + 1 :])
        if variable.name not in made:
            plain = size and all(shape) and compress == "none"
            chunk = 0 if plain else chunk_rows(variable.dtype, shape, size)
            how = layout(len(index), chunk, shape)
            made[variable.name] = make_variable(group, variable, how, compress), chunk
        target, chunk = made[variable.name]
        place = _Place(target, index, len(shape))
        found[name] = _Column(place, variable.dtype, dim, shape, size, chunk)
    return found


def _known(table: RawTable, dim: str) -> int:
    size = table.sizes[dim]
    if size is None:
        raise ValueError(f"only rows may be of unknown number, not `{dim}` of {table.group}")
    return size


def _check_lengths(table: str, columns: Mapping[str, _Column]) -> None:
    """ValueError unless all columns along a dimension have one length, the one that was known."""
    for dim in GROWING:
        lengths = {name: each.length for name, each in columns.items() if each.dim == dim}
        sizes = {each.size for each in columns.values() if each.dim == dim} - {None}
        if len({*lengths.values(), *sizes}) > 1:
            raise ValueError(f"rows of `{table}` are missing along `{dim}`: {lengths} of {sizes}")
