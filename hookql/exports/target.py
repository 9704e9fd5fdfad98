"""Where an export goes: looked at beforehand, given its name when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from hookql.errors import Diagnostic, UsageError
from hookql.exports import manifest
from hookql.exports.files import synced
from hookql.raw.room import amount, free_bytes


def check(output: Path, overwrite: bool) -> None:
    """Raise UsageError unless a folder could be written there, and nothing is lost by it."""
    target = output.resolve()
    if target.exists() or target.is_symlink():
        if target.is_dir() and overwrite:
            _check_ours(output, target)
        else:
            named = "give another name" + (", or `--overwrite`" if target.is_dir() else "")
            advice = f"{named} (from Python: overwrite=True)" if target.is_dir() else named
            raise _usage("file-exists", f"`{output}` exists already", advice)
    if not target.parent.is_dir():
        message = f"there is no folder `{output.parent}` to write `{output}` in"
        raise _usage("no-such-folder", message)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        message = f"the folder `{output.parent}` cannot be written to"
        raise _usage("not-writable", message, "give a folder elsewhere")


def _check_ours(output: Path, target: Path) -> None:
    """Raise UsageError unless a folder is an earlier export and holds nothing else."""
    known = manifest.load(target)
    if known is None:
        message = f"the folder `{output}` is no export, and stays as it is"
        raise _usage("not-an-export", message, "give another name, or remove it yourself")
    strange = manifest.strangers(target, known)
    if strange:
        message = f"the folder `{output}` holds `{strange[0]}`, which is no part of the export"
        notes = (f"and {len(strange) - 1:,} more",) if len(strange) > 1 else ()
        advice = "give another name, or move it away"
        raise UsageError(Diagnostic("not-an-export", message, help=advice, notes=notes))


def check_room(output: Path, needed: int) -> None:
    """Raise UsageError where the disk has less room than so many bytes."""
    free = free_bytes(output.resolve().parent)
    if needed > free:
        sizes = f"takes {amount(needed)}, and {amount(free)} are free"
        advice = "give a folder on a larger disk"
        raise _usage("no-room", f"the export to `{output}` {sizes}", advice)


def put(new: Path, target: Path) -> None:
    """Give a whole folder its name; what had it before goes only when that is done."""
    old = hidden(target, "old")
    try:
        if target.is_dir():
            os.rename(target, old)
        os.rename(new, target)
        synced(target.parent)
    except BaseException:
        if not new.exists() and target.exists():
            os.rename(target, new)
        if old.exists():
            os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def hidden(target: Path, ending: str) -> Path:
    """A name beside the target that nobody has."""
    return target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.{ending}")


def _usage(code: str, message: str, advice: str | None = None) -> UsageError:
    return UsageError(Diagnostic(code, message, help=advice))
