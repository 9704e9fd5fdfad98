"""The one thread that writes raw rows to disk, so that the model runs on meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hookql.errors import Diagnostic, HookQLError
from hookql.raw.crc import Crc
from hookql.raw.ragged import RaggedFile, columns_of, stored
from hookql.raw.room import amount, full
from hookql.raw.tables import Columns, RawTable, split_column

QUEUE = 64_000_000  # bytes


class Writer:
    """Tables that go into NetCDF files, written by a thread of its own behind a bounded queue.

    While it lives nobody else may use netCDF but other writers, who take turns: the C library bears
    one thread at a time.
    """

    def __init__(
        self,
        files: Mapping[Path, Sequence[RawTable]],
        compress: str = "none",
        queue_bytes: int = QUEUE,
    ) -> None:
        """``files``: what goes into each file that is to be made; tables are told apart by name."""
        self._files = {path: tuple(tables) for path, tables in files.items()}
        self._compress = compress
        self._most = queue_bytes
        every = [table for tables in self._files.values() for table in tables]
        if len({table.name for table in every}) < len(every):
            raise ValueError("two tables have one name")
        self._dtypes = {t.name: {v.name: v.dtype for v in t.variables} for t in every}
        self._sums = {t.name: {name: Crc() for name in columns_of(t)} for t in every}
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, Columns, int]] = deque()
        self._bytes = 0  # that wait or are being written
        self._opened = False  # all files have been made
        self._ended = False  # nothing more will come
        self._whole = True  # and all that was announced has come
        self._abandoned = False
        self._done = False
        self._failure: HookQLError | None = None
        self._folder = next(iter(self._files), Path()).parent  # of what is being written
        self._thread = threading.Thread(target=self._run, name="hookql-writer", daemon=True)
        self._thread.start()

    def append(self, table: str, columns: Columns) -> None:
        """Hand rows (n, ...) to the thread; waits while more than ``queue_bytes`` are on the way.

        Raises HookQLError `cannot-write` as soon as the thread failed, also earlier rows' failure.
        """
        dtypes, sums = self._dtypes[table], self._sums[table]
        if unknown := sorted(set(columns) - set(sums)):
            raise ValueError(f"`{table}` has no column {unknown}")
        ready = {
            name: stored(rows, dtypes[split_column(name)[0]]) for name, rows in columns.items()
        }
        size = sum(rows.nbytes for rows in ready.values())
        with self._changed:
            if self._ended or self._abandoned:
                raise ValueError("rows after the end")
            self._wait(lambda: not self._bytes or self._bytes + size <= self._most)
            self._queue.append((table, ready, size))
            self._bytes += size
            self._changed.notify_all()
        for name, rows in ready.items():
            sums[name].update(rows)

    def drain(self) -> None:
        """Wait until all that was handed over is written; until the next ``append`` it rests.

        Raises as ``append``.
        """
        with self._changed:
            self._wait(lambda: self._opened and not self._bytes)

    def finish(self, whole: bool = True) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """Wait until everything is written and the files are closed.

        Returns the checksums of each table's columns, for ``checksums.seal``. Raises as ``append``.
        """
        with self._changed:
            self._ended, self._whole = True, whole
            self._changed.notify_all()
            self._wait(lambda: self._done)
        self._thread.join()
        return {
            table: {name: crc.blocks() for name, crc in sums.items()}
            for table, sums in self._sums.items()
        }

    def abandon(self) -> None:
        """Stop at once and close the files, which are not whole: the caller removes them."""
        with self._changed:
            self._abandoned = True
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join()

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait, the lock held, until ``ready``; raise if the thread cannot make it so any more."""
        while True:
            if self._failure is not None:
                raise self._failure
            if not (self._done or self._thread.is_alive()):
                raise _cannot_write(self._folder, None)
            if ready():
                return
            self._changed.wait(0.5)  # a thread that dies tells nobody

    def _run(self) -> None:
        """The thread: opens the files, writes what comes, closes them."""
        failure = None
        with ExitStack() as files:
            try:
                self._write(files)
            except BaseException as error:  # said by the thread that hands the rows over
                failure = _cannot_write(self._folder, error)  # while the disk is as it was
                failure.__cause__ = error
        with self._changed:
            self._failure, self._done = failure, failure is None and not self._abandoned
            self._queue.clear()
            self._changed.notify_all()

    def _write(self, files: ExitStack) -> None:
        opened: dict[str, RaggedFile] = {}
        for path, tables in self._files.items():
            self._folder = path.parent
            file = RaggedFile(path, tables, self._compress)
            files.callback(file.abandon)
            opened |= {table.name: file for table in tables}
        with self._changed:
            self._opened = True
            self._changed.notify_all()
        while (item := self._next()) is not None:
            table, columns, size = item
            self._folder = opened[table].path.parent
            opened[table].append(table, columns)
            with self._changed:
                self._bytes -= size
                self._changed.notify_all()
        if not self._abandoned:
            for file in {id(file): file for file in opened.values()}.values():
                self._folder = file.path.parent
                file.close(self._whole)

    def _next(self) -> tuple[str, Columns, int] | None:
        """What is to be written next; None: nothing more."""
        with self._changed:
            while not (self._queue or self._ended or self._abandoned):
                self._changed.wait()
            return self._queue.popleft() if self._queue and not self._abandoned else None


def _cannot_write(folder: Path, error: BaseException | None) -> HookQLError:
    if isinstance(error, HookQLError):
        return error
    said = "the thread that writes has died" if error is None else _reason(folder, error)
    message = f"cannot write raw values in `{folder}`: {said[:1].lower()}{said[1:]}"
    return HookQLError(Diagnostic("cannot-write", message))


def _reason(folder: Path, error: BaseException) -> str:
    """What the system says; netCDF says only "HDF error", so it is asked with a file of our own."""
    if not isinstance(error, OSError | RuntimeError):
        return f"{type(error).__name__}: {error}"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as found:
        return found.strerror or str(found)
    if full(folder):
        return os.strerror(errno.ENOSPC)
    return getattr(error, "strerror", None) or f'netCDF says "{error}"{_limit()}'


def _limit() -> str:
    """How large a file may be for this process, if there is such a limit."""
    with contextlib.suppress(ImportError):
        import resource  # not on every system

        most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if most != resource.RLIM_INFINITY:
            return f", and `ulimit -f` is {amount(most)} here"
    return ""
