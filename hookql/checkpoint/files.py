"""Files that are whole or not there: created under a temporary name, synced, renamed.

Every step goes through ``os``, so that tests can let each of them fail.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hookql.errors import Diagnostic, HookQLError

TEMPORARY = ".tmp"


def temporary(path: Path) -> Path:
    """The name under which a file is written until it is whole."""
    return path.with_name(path.name + TEMPORARY)


def create(path: Path) -> int:
    """A new file, open for writing; what stands there is replaced, a link never followed."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def write(fd: int, data: bytes | memoryview) -> None:
    """Write all of it: a disk that fills up takes a part first and fails then."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(fd, rest) :]


def commit(path: Path, fd: int) -> None:
    """Sync and close what was written under the temporary name, and give it its own."""
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary(path), path)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_whole(path: Path) -> BinaryIO:
    """A regular file, open for reading. Raises OSError for what is none, and never waits."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is not a regular file")
    return os.fdopen(fd, "rb")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what could not be written, and why."""
    try:
        yield
    except OSError as error:
        message = f"cannot write `{path}`: {error.strerror or error}"
        raise HookQLError(Diagnostic("cannot-write", message)) from error


def damaged(path: Path, error: str | Exception) -> HookQLError:
    """The error for a file of a checkpoint that is not as it was written, or not to be read."""
    if isinstance(error, FileNotFoundError):
        said = "is missing"
    elif isinstance(error, OSError):
        said = f"cannot be read: {error.strerror or error}"
    else:
        said = f"is damaged: {error}"
    advice = "start again with an empty folder for `--checkpoint`, without `--resume`"
    return HookQLError(
        Diagnostic("checkpoint-damaged", f"the checkpoint's file `{path}` {said}", help=advice)
    )
