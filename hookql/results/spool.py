"""Numbers too many for memory: rows appended to a nameless file on disk, then mapped from there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hookql.errors import Diagnostic, HookQLError, UsageError
from hookql.raw.tables import Columns

Array = np.ndarray[Any, Any]
PIECE = 2**24  # bytes


class Spool:
    """Rows of one variable, in the order in which they are appended.

    The file has no name, so it goes with the last array mapped from it, whatever happens.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """``folder`` says on which disk; None: where temporary files go."""
        self.folder = Path(tempfile.gettempdir() if folder is None else folder)
        try:
            number, name = tempfile.mkstemp(prefix=".hookql-", dir=self.folder)
        except OSError as error:
            raise _cannot_spool(self.folder, error) from error
        self._file = os.fdopen(number, "w+b")
        os.unlink(name)
        self._row: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self.length = 0

    def append(self, rows: Array) -> None:
        """Take in rows (n, ...) of any dtype; shape and dtype are those of the first ones.

        Raises HookQLError where the disk is full.
        """
        if self._row is None:
            self._row = rows.shape[1:], rows.dtype
        if self._row != (rows.shape[1:], rows.dtype):
            raise ValueError(f"rows of {rows.shape[1:]} {rows.dtype} after {self._row}")
        try:
            self._file.write(np.ascontiguousarray(rows).data if rows.size else b"")
        except OSError as error:
            raise _cannot_spool(self.folder, error) from error
        self.length += len(rows)

    def close(self) -> Array:
        """All rows (length, ...), mapped from the file read-only; nothing can be appended any more.

        Where there is nothing to map, an array of size 0: of float64 if no row was ever appended.
        """
        row, dtype = self._row or ((), np.dtype(np.float64))
        shape = (self.length, *row)
        try:
            with self._file as file:
                file.flush()
                if 0 in shape:
                    return np.empty(shape, dtype)
                # Read-only: a private map that could be written must fit into memory and swap.
                found: Array = np.memmap(file, dtype, "r", shape=shape)
        except OSError as error:
            raise _cannot_spool(self.folder, error) from error
        found.filename = self.folder / "spool"  # type: ignore[attr-defined]
        return found

    def abandon(self) -> None:
        """Give the disk space back without reading anything."""
        with contextlib.suppress(OSError):
            self._file.close()


def mapped(array: Array) -> np.memmap[Any, Any] | None:
    """The map that an array is a view of, None for one in memory."""
    found: Any = array
    while found is not None:
        if isinstance(found, np.memmap):
            return found
        found = getattr(found, "base", None)
    return None


def folder_of(array: Array) -> Path | None:
    """The folder of the file that an array is mapped from, if that is known."""
    source = mapped(array)
    name = getattr(source, "filename", None)
    return None if name is None else Path(name).parent


def check_room(folder: Path, needed: int, of: str) -> None:
    """Raise UsageError unless a folder's disk has that many bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            Diagnostic(
                "result-too-large",
                f"the result of {of} takes {_size(needed)}, and `{folder}` has {_size(free)} free",
                help="group by fewer keys, or keep fewer layers",
            )
        )


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"


def _cannot_spool(folder: Path, error: OSError) -> HookQLError:
    reason = error.strerror or str(error)
    advice = "free some space there, or give an output on a larger disk"
    if folder == Path(tempfile.gettempdir()):
        advice = "free some space, or set TMPDIR to a folder on a larger disk"
    return HookQLError(
        Diagnostic(
            "cannot-spool",
            f"cannot write temporary numbers in `{folder}`: {reason[:1].lower()}{reason[1:]}",
            help=advice if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else None,
        )
    )


class Spools:
    """A spool for each column of each table that rows are appended to."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """``folder`` as of a Spool."""
        self._folder = folder
        self._spools: dict[str, dict[str, Spool]] = {}

    def append(self, table: str, columns: Columns) -> None:
        """Put rows at the end of each column. Raises HookQLError where the disk is full."""
        spools = self._spools.setdefault(table, {})
        for name, rows in columns.items():
            if name not in spools:
                spools[name] = Spool(self._folder)
            spools[name].append(rows)

    def close(self, table: str) -> dict[str, Array]:
        """All columns of a table, as `Spool.close` has them; none where nothing was appended."""
        return {name: spool.close() for name, spool in self._spools.get(table, {}).items()}
