"""A checkpoint's folder as a run begins: whether it may be used, and is of the same run."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hookql.checkpoint.files import sync_folder
from hookql.checkpoint.manifest import (
    LOCK,
    Identity,
    Manifest,
    check_shard,
    check_state,
    read,
    remove_strays,
    save,
    strangers,
)
from hookql.errors import Diagnostic, UsageError

_SHOWN = 80  # characters of a value that differs


def begun(folder: Path) -> bool:
    """Whether there may be something to resume.

    Not where the folder is absent or empty, nor where a run was killed before it had a manifest.
    """
    with suppress(OSError, ValueError):
        return folder.exists() and not (folder.is_dir() and not strangers(folder))
    return True  # opening it says what is wrong


def lock(folder: Path, resume: bool) -> int:
    """Take a folder for this process alone, made first if need be; the lock's file descriptor.

    It ends with the process, however that ends. Raises UsageError where the folder cannot be meant
    or is taken, OSError where it cannot be written to.
    """
    if resume:
        _check_ours(folder)
    else:
        _make(folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    held = os.open(folder / LOCK, flags, 0o666)
    try:
        _flock(held)
    except OSError as error:
        os.close(held)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        message = f"another process is writing to the checkpoint `{folder}`"
        advice = "wait until it has ended, or give another folder"
        raise _usage("checkpoint-busy", message, advice) from error
    return held


def _flock(held: int) -> None:
    import fcntl  # not on every system

    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


def begin(folder: Path, identity: Identity) -> Manifest:
    """A new checkpoint's manifest, which stands in the folder: so it can be resumed from now on."""
    _check_empty(folder)
    manifest = Manifest(dict(identity))
    save(folder, manifest)
    return manifest


def resumed(folder: Path, identity: Identity) -> Manifest:
    """The manifest of a folder, once it is known to be of this run and whole.

    Raises UsageError for another run's, HookQLError for damage. Files of ours that it does not name
    are removed.
    """
    _check_ours(folder)
    manifest = read(folder)
    assert manifest is not None
    if different := _differences(manifest.identity, identity):
        keys = ", ".join(f"`{key}`" for key in different)
        message = f"the checkpoint in `{folder}` is of another run: {keys} differ"
        message = message if len(different) > 1 else message + "s"
        advice = "resume with what the run was begun with, or give another folder"
        notes = tuple(different.values())
        raise UsageError(Diagnostic("checkpoint-differs", message, help=advice, notes=notes))
    for shard in manifest.shards:
        check_shard(folder, shard)
    check_state(folder, manifest)
    remove_strays(folder, manifest)
    return manifest


def _make(folder: Path) -> None:
    """Have an empty folder there."""
    if "\0" in str(folder) or not folder.absolute().parent.is_dir():
        message = f"there is no folder `{folder.parent}` to make `{folder.name}` in"
        raise _usage("no-such-folder", message)
    if not folder.exists():
        os.mkdir(folder)
        sync_folder(folder.absolute().parent)
    elif not folder.is_dir():
        message = f"`{folder}` is a file, not a folder for a checkpoint"
        raise _usage("checkpoint-exists", message, "give a new or empty folder")
    _check_empty(folder)


def _check_empty(folder: Path) -> None:
    if not strangers(folder):
        return
    if read(folder) is None:
        message = f"the folder `{folder}` for the checkpoint is not empty"
        raise _usage("checkpoint-exists", message, "give a new or empty folder")
    message = f"there is a checkpoint in `{folder}` already"
    raise _usage("checkpoint-exists", message, "continue it with `--resume`, or give a new folder")


def _check_ours(folder: Path) -> None:
    if "\0" in str(folder) or read(folder) is None:
        message = f"there is no checkpoint in `{folder}` to resume"
        raise _usage("no-checkpoint", message, "leave `--resume` out to begin one")


def _differences(then: Identity, now: Identity) -> dict[str, str]:
    """For each key that differs, both values."""
    keys = [*then, *(key for key in now if key not in then)]
    return {
        _printable(key): f"{_printable(key)}: {_both(then.get(key), now.get(key))}"
        for key in keys
        if _typed(then.get(key)) != _typed(now.get(key))
    }


def _typed(value: Any) -> tuple[bool, Any]:
    """A value and whether it is a truth, for True is 1 elsewhere."""
    return isinstance(value, bool), value


def _both(then: Any, now: Any) -> str:
    """Both values, of long ones what stands from shortly before the first difference on."""
    texts = ["nothing" if value is None else str(value) for value in (then, now)]
    pairs = enumerate(zip(*texts, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(map(len, texts)))
    start = max(0, same - _SHOWN // 4) if max(map(len, texts)) > _SHOWN else 0
    shown = [_printable(_cut(text, start)) for text in texts]
    return f"`{shown[0]}` in the checkpoint, `{shown[1]}` now"


def _cut(text: str, start: int) -> str:
    rest = text[start : start + _SHOWN]
    return ("…" if start else "") + rest + ("…" if len(text) > start + _SHOWN else "")


def _printable(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "�" for c in text)


def _usage(code: str, message: str, help: str | None = None) -> UsageError:
    return UsageError(Diagnostic(code, message, help=help))
