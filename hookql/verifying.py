"""`verify`: is a result file, a checkpoint or an exported folder what was written?"""

from __future__ import annotations

import json
from pathlib import Path

from hookql.checkpoint import manifest as checkpoint
from hookql.errors import Diagnostic, UsageError
from hookql.exports import manifest as exported
from hookql.raw import checksums

_MANIFEST = "manifest.json"
_MOST = 1 << 26  # bytes of a manifest that is looked into


def damage(path: Path) -> list[str]:
    """What differs from what was written, a sentence each; nothing if all is whole.

    Raises UsageError for what is none of the three.
    """
    if path.is_file():
        return checksums.damage(path)
    if not path.is_dir():
        raise UsageError(Diagnostic("no-such-file", f"there is no file or folder `{path}`"))
    text = _text(path / _MANIFEST)
    if text is None:
        message = f"`{path}` is neither a checkpoint nor an exported folder"
        notes = (f"both have a `{_MANIFEST}`, which is missing or cannot be read",)
        raise UsageError(Diagnostic("nothing-to-verify", message, notes=notes))
    if '"hookql_export"' in text:
        return exported.damage(path)
    found = checkpoint.damage(path)
    if not found and (manifest := checkpoint.read(path)) is not None and manifest.complete:
        for output in map(Path, manifest.outputs):  # of a finished run they are what is left
            found += damage(output) if output.is_file() else [f"`{output}` is not there any more"]
    return found


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST).decode("utf-8", "replace")
    except OSError:
        return None
    try:
        known = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        known = True  # a damaged one: what is wrong with it will be said
    return text if known else None
