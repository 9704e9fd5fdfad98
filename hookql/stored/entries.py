"""Entries: folders of a store, each with one answer, whole or not there.

``DIR/ab/abcd.../`` holds ``manifest.json`` and NetCDF files. A folder is made under a name that
begins with a dot, every file in it brought to the disk, and then given its name at once; so two
processes may write the same answer, and one of them is the one that stays. What is read is checked
against the manifest's hashes, and the manifest against its own and against all facts of the
address: a file that is damaged, missing or of another answer is no answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from hookql.stored.address import Address

_FORMAT = 1
_MANIFEST = "manifest.json"
_CLONE = 0x40049409  # FICLONE of Linux: a copy that shares its blocks until one is written to


class Damaged(Exception):
    """An entry that is there, and is not what was written; its text says what is wrong."""


@frozen
class Entry:
    """A whole answer: its folder, and what its manifest says besides its files' hashes."""

    folder: Path
    about: Mapping[str, Any]


def place(store: Path, address: Address) -> Path:
    """Where an answer is, or would be."""
    return store / address.name[:2] / address.name


def find(store: Path, address: Address) -> Entry | None:
    """The answer of that address, every byte of it checked; None where there is none.

    Raises Damaged where it is not whole.
    """
    folder = place(store, address)
    if not os.path.lexists(folder):
        return None
    facts = told(folder)
    if facts != dict(address.facts):
        raise Damaged("it is the answer to something else")
    return whole(folder)


def told(folder: Path) -> dict[str, str]:
    """The facts that an entry says its answer depends on. Raises Damaged."""
    facts: dict[str, str] = _manifest(folder)["facts"]
    return facts


def about(folder: Path) -> dict[str, Any]:
    """What an entry says besides, its files not looked at. Raises Damaged."""
    said: dict[str, Any] = _manifest(folder)["about"]
    return said


def whole(folder: Path) -> Entry:
    """The entry of a folder, every byte of its files checked. Raises Damaged."""
    said = _manifest(folder)
    with _reading():
        for name, (size, sha) in said["files"].items():
            path = folder / Path(name).name
            if path.stat().st_size != size or _sha_of_file(path) != sha:
                raise Damaged(f"`{name}` is not what was written")
        return Entry(folder, said["about"])


def _manifest(folder: Path) -> dict[str, Any]:
    with _reading():
        written = json.loads((folder / _MANIFEST).read_bytes())
        said: dict[str, Any] = written["entry"]
        if written["sha256"] != _sha(said):
            raise Damaged("its manifest is not what was written")
        if said["format"] != _FORMAT:
            raise Damaged("it is the answer to something else")
        return said


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Whatever goes wrong while an entry is read is damage."""
    try:
        yield
    except FileNotFoundError as error:
        raise Damaged(f"`{Path(error.filename).name}` is missing") from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged("its manifest cannot be read") from error


def write(
    store: Path, address: Address, files: Mapping[str, Path], about: Mapping[str, Any]
) -> None:
    """Keep an answer: copies of ``files`` under their names, and what is said ``about`` them.

    Nothing happens where the same answer is there already, whole. Raises OSError.
    """
    target = place(store, address)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = store / f".{address.name[:16]}.{secrets.token_hex(6)}.tmp"
    made.mkdir()
    try:
        hashes = {}
        for name, path in files.items():
            copy(path, made / name)
            hashes[name] = [(made / name).stat().st_size, _sha_of_file(made / name)]
        said = {"format": _FORMAT, "facts": dict(address.facts), "files": hashes, "about": about}
        text = json.dumps({"sha256": _sha(said), "entry": said}, indent=1)
        (made / _MANIFEST).write_text(text, encoding="ascii")
        for path in (*made.iterdir(), made):
            _sync(path)
        _put(store, address, made, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put(store: Path, address: Address, made: Path, target: Path) -> None:
    """Give a finished folder its name, in the place of one that is damaged."""
    for _ in range(10):
        with contextlib.suppress(OSError):
            os.rename(made, target)
            return
        with contextlib.suppress(Damaged):
            if find(store, address) is not None:
                return  # another process was first
        aside = store / f".{address.name[:16]}.{secrets.token_hex(6)}.tmp"
        with contextlib.suppress(OSError):  # another process may be doing the same
            os.rename(target, aside)
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)
    os.rename(made, target)


def copy(source: Path, target: Path) -> None:
    """Copy a file, without using room where the file system can share blocks. Raises OSError."""
    with source.open("rb") as given, target.open("xb") as made:
        try:
            import fcntl  # not on every system

            fcntl.ioctl(made.fileno(), _CLONE, given.fileno())
        except (ImportError, OSError):
            shutil.copyfileobj(given, made, 1 << 20)


def _sha(said: Mapping[str, Any]) -> str:
    text = json.dumps(said, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
