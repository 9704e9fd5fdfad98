"""The writing thread: in order, bounded, and whatever happens to it is said at once."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hookql.errors import HookQLError
from hookql.raw.ragged import RaggedFile
from hookql.raw.tables import Columns
from hookql.raw.writer import Writer
from tests.raw.made import batches, numbers, same, table

Golden = Callable[[str, str], None]
ROW = {"position": np.zeros(25, "<i4")}  # 100 bytes


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """A test that waits for ever fails, with the place where it waits."""
    timer = threading.Timer(60, lambda: os.kill(os.getpid(), 6))
    timer.start()
    yield
    timer.cancel()


def test_several_files(tmp_path: Path) -> None:
    """Rows go to the file of their table, in the order in which they were handed over."""
    first, second, third = table("/a", 500), table("/b", None), table("/c", 200)
    files = {tmp_path / "x.nc": [first, second], tmp_path / "y.nc": [third]}
    writer = Writer(files, "none", queue_bytes=2000)
    wholes = [numbers(of, rows) for of, rows in ((first, 500), (second, 300), (third, 200))]
    for of, whole in zip((first, second, third), wholes, strict=True):
        for columns in batches(whole, 13):
            writer.append(of.name, columns)
    sums = writer.finish()
    for group, path, whole in zip("abc", "xxy", wholes, strict=True):
        same(tmp_path / f"{path}.nc", f"/{group}", whole)
    assert list(sums) == ["/a", "/b", "/c"]
    assert not [thread for thread in threading.enumerate() if thread.name == "hookql-writer"]


def test_mistakes_in_rows_are_raised_where_they_are_made(tmp_path: Path) -> None:
    """Not later, by the thread: the caller's traceback shows who it was."""
    writer = Writer({tmp_path / "x.nc": [table()]})
    for columns in ({"position": np.ones(2)}, {"values:7": np.ones((1, 3), "<f4")}):
        with pytest.raises(ValueError, match=r"cannot be stored|no column"):
            writer.append("/", columns)
    writer.abandon()
    with pytest.raises(ValueError, match="one name"):
        Writer({tmp_path / "y.nc": [table(), table()]})


def test_the_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hands rows over waits while so many bytes are on their way; large ones pass alone."""
    gate, waiting, most = threading.Event(), threading.Event(), [0]
    plain, wait = RaggedFile.append, Writer._wait

    def slow(self: RaggedFile, name: str, columns: Columns) -> None:
        gate.wait()
        plain(self, name, columns)

    def watched(self: Writer, ready: Callable[[], bool]) -> None:
        most[0] = max(most[0], self._bytes)
        if not ready():
            waiting.set()
        wait(self, ready)

    monkeypatch.setattr(RaggedFile, "append", slow)
    monkeypatch.setattr(Writer, "_wait", watched)
    writer = Writer({tmp_path / "x.nc": [table()]}, "none", queue_bytes=250)

    def produce() -> None:
        for _ in range(10):
            writer.append("/", ROW)
        writer.append("/", {"position": np.zeros(1000, "<i4")})
        writer.append("/", {f"values:{layer}": np.zeros((1250, 3), "<f4") for layer in (0, 1)})
        writer.append("/", {"row_size": np.array([1250, 0, 0, 0, 0])})

    producer = threading.Thread(target=produce)
    producer.start()
    waiting.wait()
    assert writer._bytes == 200
    gate.set()
    producer.join()
    writer.finish()
    assert most[0] <= 30_000


def failing(error: BaseException | None) -> Callable[..., None]:
    """A way to write that does not work from the third time on."""
    calls = []

    def append(self: RaggedFile, name: str, columns: Columns) -> None:
        calls.append(name)
        if len(calls) > 2 and error is not None:
            raise error

    return append


def many(writer: Writer) -> None:
    """Rows and rows."""
    for _ in range(1000):
        writer.append("/", ROW)


def said(writer: Writer) -> str:
    """What whoever appends is told; `finish` says the same, and nobody waits for ever."""
    with pytest.raises(HookQLError) as caught:
        many(writer)
    with pytest.raises(HookQLError) as again:
        writer.finish()
    assert str(again.value) == str(caught.value)
    writer.abandon()
    assert caught.value.code == "cannot-write"
    return caught.value.message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.EIO, "Input/output error"), "input/output error"),
        (MemoryError("64 MB"), "memoryError: 64 MB"),
        (SystemExit(3), "systemExit: 3"),
    ],
)
def test_a_thread_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    """Its error reaches the next `append`, also one that waits for room in the queue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RaggedFile, "append", failing(error))
    writer = Writer({Path("out.nc"): [table()]}, "none", queue_bytes=150)
    assert said(writer) == f"cannot write raw values in `.`: {expected}"


def test_a_full_disk_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    """netCDF says "HDF error" only: the disk itself is asked what is the matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RaggedFile, "append", failing(RuntimeError("NetCDF: HDF error")))
    writer = Writer({Path("out.nc"): [table()]}, "none", queue_bytes=150)
    assert said(writer) == 'cannot write raw values in `.`: netCDF says "NetCDF: HDF error"'
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full)
        monkeypatch.setattr(RaggedFile, "append", failing(RuntimeError("NetCDF: HDF error")))
        writer = Writer({Path("other.nc"): [table()]}, "none", queue_bytes=150)
        golden("raw/cannot-write.txt", f"error[cannot-write]: {said(writer)}\n")


def test_a_thread_that_dies_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a thread that is not there any more."""
    monkeypatch.setattr(Writer, "_run", lambda self: None)
    writer = Writer({tmp_path / "x.nc": [table()]}, "none", queue_bytes=150)
    assert said(writer).endswith(": the thread that writes has died")


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    """A folder that vanished, a file that is there already."""
    writer = Writer({tmp_path / "gone" / "x.nc": [table()]})
    assert said(writer).endswith("gone`: no such file or directory")
    (tmp_path / "x.nc").write_text("mine")
    writer = Writer({tmp_path / "x.nc": [table()]})
    with pytest.raises(HookQLError):
        writer.finish()
    assert (tmp_path / "x.nc").read_text() == "mine"


def test_missing_rows_are_found_at_the_end(tmp_path: Path) -> None:
    """A file of fewer rows than it has places for is never finished."""
    writer = Writer({tmp_path / "x.nc": [table(rows=50)]})
    writer.append("/", ROW)
    with pytest.raises(HookQLError, match="are missing along `obs`"):
        writer.finish()


def test_a_failing_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk refuses only when the last chunks are written out is not lost either."""

    def close(self: RaggedFile, whole: bool = True) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(RaggedFile, "close", close)
    writer = Writer({tmp_path / "x.nc": [table()]})
    writer.append("/", ROW)
    with pytest.raises(HookQLError, match="disk quota exceeded"):
        writer.finish()


def test_abandoning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is not written any more, and the file can be removed; twice does no harm."""
    gate, begun = threading.Event(), threading.Event()
    written: list[Any] = []

    def slow(self: RaggedFile, name: str, columns: Columns) -> None:
        begun.set()
        gate.wait()
        written.append(columns)

    monkeypatch.setattr(RaggedFile, "append", slow)
    writer = Writer({tmp_path / "x.nc": [table(rows=1000)]})
    for _ in range(5):
        writer.append("/", ROW)
    begun.wait()
    threading.Timer(0.1, gate.set).start()
    writer.abandon()
    writer.abandon()
    assert len(written) == 1
    assert not writer._thread.is_alive()
    with pytest.raises(ValueError, match="after the end"):
        writer.append("/", ROW)


@pytest.mark.parametrize("known", ["known", "unknown"])
def test_a_real_full_disk(tmp_path: Path, known: str) -> None:
    """No file may be larger than 3 MB: said, its space given back, and the process goes on."""
    command = [sys.executable, "-m", "tests.raw.disk", "limit", known, str(tmp_path / "x.nc")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        'error[cannot-write]: cannot write raw values in `out`: netCDF says "NetCDF: HDF error", '
        "and `ulimit -f` is 3.0 MB here",
        "disk space still held: 0",
        "and then it can write",
    ]
    assert (done.stderr, list(tmp_path.iterdir())) == ("", [tmp_path / "x.nc"])
