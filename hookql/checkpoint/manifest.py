"""The manifest of a checkpoint: which run it is of, and which files of its folder count.

A file that the manifest does not name was being written when the run ended: it counts for nothing.
Names of files follow from numbers, so that no manifest can lead out of its folder.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from attrs import asdict, field, frozen

from hookql.checkpoint.files import (
    TEMPORARY,
    commit,
    create,
    damaged,
    open_whole,
    sync_folder,
    temporary,
    write,
)
from hookql.checkpoint.shards import Shard, blocks, name_of
from hookql.checkpoint.state import Written
from hookql.errors import Diagnostic, HookQLError

Identity: TypeAlias = Mapping[str, str | int | float | None]

NAME = "manifest.json"
LOCK = "lock"
FORMAT = "hookql-checkpoint-1"
_LARGEST = 1 << 28  # bytes of a manifest: millions of shards
_OURS = re.compile(rf"(rows|state)-\d{{6,}}\.hookql({re.escape(TEMPORARY)})?")


@frozen
class Manifest:
    """What a checkpoint is of and holds. ``saved`` counts the saves and numbers the states."""

    identity: Identity
    saved: int = 0
    complete: bool = False
    facts: Mapping[str, Any] = field(factory=dict)
    outputs: Mapping[str, str] = field(factory=dict)
    state: Written | None = None
    shards: tuple[Shard, ...] = ()

    @property
    def files(self) -> frozenset[str]:
        """The names of the files that count."""
        named = {name_of(shard.number) for shard in self.shards}
        return frozenset(named | ({state_name(self.saved)} if self.state else set()))


def state_name(number: int) -> str:
    """The name of the state of that save."""
    return f"state-{number:06}.hookql"


def save(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the old one's place, for good. Raises OSError; then the old one stands."""
    plain = {"format": FORMAT, **asdict(manifest)}
    plain["checksum"] = _checksum(plain)
    path = folder / NAME
    fd = create(temporary(path))
    try:
        write(fd, json.dumps(plain, indent=1).encode())
    except BaseException:
        os.close(fd)
        raise
    sync_folder(folder)  # what it names has its name for good before it does
    commit(path, fd)
    sync_folder(folder)


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none, or one of something else.

    Raises HookQLError where it is damaged.
    """
    path = folder / NAME
    try:
        with open_whole(path) as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError("it is too large")
        plain = json.loads(text)
        if not isinstance(plain, dict) or "format" not in plain:
            return None
        if plain["format"] != FORMAT:
            message = f"another version of HookQL began the checkpoint in `{folder}`"
            raise HookQLError(Diagnostic("checkpoint-differs", message))
        return _manifest(plain)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except KeyError as error:
        raise damaged(path, f"it has no {error}") from error
    except (AttributeError, TypeError, RecursionError) as error:
        raise damaged(path, "a value in it is of another type") from error
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def _manifest(plain: dict[str, Any]) -> Manifest:
    if plain.pop("checksum") != _checksum(plain):
        raise ValueError("it does not have its checksum")
    del plain["format"]
    state = None if plain["state"] is None else Written(**plain["state"])
    shards = tuple(Shard(**shard) for shard in plain["shards"])
    manifest = Manifest(**plain | {"state": state, "shards": shards})
    _check_types(manifest)
    return manifest


def _check_types(manifest: Manifest) -> None:
    """Raise ValueError for a manifest that nobody wrote as it is, whatever its checksum says."""
    files: list[Written | Shard] = [*manifest.shards, *([manifest.state] if manifest.state else [])]
    counts = [
        n for shard in manifest.shards for table in shard.rows.values() for n in table.values()
    ]
    numbers = [manifest.saved, *counts, *(shard.number for shard in manifest.shards)]
    numbers += [number for file in files for number in (file.bytes, file.crc32)]
    plain = (str, int, float, bool, type(None))
    right = (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(type(value) in plain for value in manifest.identity.values())
        and all(type(value) is str for value in manifest.outputs.values())
        and isinstance(manifest.facts, dict)
        and isinstance(manifest.complete, bool)
    )
    if not right:
        raise ValueError("a value in it is of another type")


def _checksum(plain: Mapping[str, Any]) -> str:
    """The CRC-32 of the canonical text of all the rest."""
    rest = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(rest.encode()):08x}"


def check_shard(folder: Path, shard: Shard) -> None:
    """Raise HookQLError unless a shard is whole."""
    try:
        for _ in blocks(folder, shard):
            pass
    except (OSError, ValueError) as error:
        raise damaged(folder / name_of(shard.number), error) from error


def check_state(folder: Path, manifest: Manifest) -> None:
    """Raise HookQLError unless the state is whole."""
    if manifest.state is None:
        return
    name = state_name(manifest.saved)
    try:
        with open_whole(folder / name) as file:
            size, crc = 0, 0
            while block := file.read(1 << 20):
                size, crc = size + len(block), zlib.crc32(block, crc)
        if size != manifest.state.bytes:
            raise ValueError(f"it has {size:,} bytes, not {manifest.state.bytes:,}")
        if crc != manifest.state.crc32:
            raise ValueError("it does not have its checksum")
    except (OSError, ValueError) as error:
        raise damaged(folder / name, error) from error


def remove_strays(folder: Path, manifest: Manifest) -> None:
    """Remove files of ours that the manifest does not name; never anybody else's."""
    for entry in list(os.scandir(folder)):
        ours = _OURS.fullmatch(entry.name) or entry.name == NAME + TEMPORARY
        if ours and entry.name not in manifest.files and not entry.is_dir(follow_symlinks=False):
            os.unlink(folder / entry.name)


def strangers(folder: Path) -> list[str]:
    """What is in a folder besides what a checkpoint leaves that was killed as it began."""
    leftovers = {LOCK, NAME + TEMPORARY}
    return sorted(set(os.listdir(folder)) - leftovers)


def damage(folder: Path) -> list[str]:
    """What is wrong with a checkpoint, one sentence each; nothing where it is whole.

    A run may go on meanwhile: where it has saved anew, all is looked at anew.
    """
    try:
        manifest = read(folder)
    except HookQLError as error:
        return [error.message]
    if manifest is None:
        return [f"`{folder}` has no manifest of a checkpoint"]
    checks: list[Callable[[], None]] = [
        *(partial(check_shard, folder, shard) for shard in manifest.shards),
        partial(check_state, folder, manifest),
    ]
    found = []
    for check in checks:
        try:
            check()
        except HookQLError as error:
            found.append(error.message)
    return found if not found or manifest == _now(folder) else damage(folder)


def _now(folder: Path) -> Manifest | None:
    with suppress(HookQLError):
        return read(folder)
    return None
