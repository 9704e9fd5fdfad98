"""Files that appear whole: a temporary name, a checksum on the way, synced, renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from attrs import field, frozen

_SMALL = 2**20  # bytes that are not worth another thread
Tick = Callable[[int], None]  # told of every so many bytes that were written


class Sink:
    """An open file that counts and hashes what is written to it; its end is for its opener.

    Once ``closed``, it takes nothing more: after an error, Arrow's writer still has things to say
    whenever it is thrown away.
    """

    def __init__(self, file: BinaryIO, tick: Tick, hasher: Executor) -> None:
        self._file = file
        self._hasher = hasher
        self._hash = hashlib.sha256()
        self._tick = tick
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes, or the memory of a contiguous array."""
        view = memoryview(data)
        if self.closed or not view.nbytes:
            return view.nbytes
        view = view.cast("B")
        if view.nbytes < _SMALL:
            self._hash.update(view)
            self._file.write(view)
        else:  # both take about as long, and leave Python's lock alone
            hashed = self._hasher.submit(self._hash.update, view)
            self._file.write(view)
            hashed.result()
        self.bytes += view.nbytes
        self._tick(view.nbytes)
        return view.nbytes

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.bytes

    def flush(self) -> None:
        """Nothing: the file is flushed and synced as a whole, at its end."""

    def close(self) -> None:
        """Nothing: whoever opened the file closes it."""

    @property
    def sha256(self) -> str:
        """The hash of what was written so far."""
        return self._hash.hexdigest()


@frozen(eq=False)
class Folder:
    """The folder of an export in the making; ``files`` is what the manifest says of each file."""

    root: Path
    tick: Tick = field(default=lambda count: None)
    files: list[dict[str, object]] = field(factory=list)

    @contextmanager
    def file(
        self, node: str, name: str, rows: tuple[int, int] | None = None, arrays: Sequence[str] = ()
    ) -> Iterator[Sink]:
        """A new file in the folder of a node, which holds ``rows`` (from, to) of ``arrays``."""
        path = self.root / node.strip("/") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:100]}.tmp")
        with ThreadPoolExecutor(1) as hasher, temporary.open("xb") as file:
            sink = Sink(file, self.tick, hasher)
            try:
                yield sink
            finally:
                sink.closed = True
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        entry: dict[str, object] = {"path": path.relative_to(self.root).as_posix()}
        if rows is not None:
            entry |= {"node": node, "arrays": list(arrays), "rows": list(rows)}
        self.files.append({**entry, "bytes": sink.bytes, "sha256": sink.sha256})


def numbered(number: int, count: int, stem: str = "") -> str:
    """``stem00007``, wide enough that names sort as their numbers do."""
    return f"{stem}{number:0{max(5, len(str(count - 1)))}}"


def synced(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    if os.name == "nt":  # which cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
