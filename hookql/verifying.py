"""`verify`: is a result file, a checkpoint or an exported folder what was written?"""

from __future__ import annotations

import os
from pathlib import Path

from hookql.checkpoint import manifest as checkpoint
from hookql.errors import Diagnostic, UsageError
from hookql.exports import manifest as exported
from hookql.raw import checksums


def damage(path: Path) -> list[str]:
    """What differs from what was written, a sentence each; nothing if all is whole.

    Raises UsageError for what is none of the three.
    """
    if os.path.isfile(path):
        return checksums.damage(path)
    if not os.path.isdir(path):
        raise UsageError(Diagnostic("no-such-file", f"there is no file or folder `{path}`"))
    if (path / exported.NAME).is_file():
        return exported.damage(path)
    if not (path / checkpoint.NAME).is_file():
        message = f"`{path}` is neither a checkpoint nor an exported folder"
        notes = (f"these have a `{checkpoint.NAME}` and a `{exported.NAME}`, of which it has none",)
        raise UsageError(Diagnostic("nothing-to-verify", message, notes=notes))
    found = checkpoint.damage(path)
    if not found and (manifest := checkpoint.read(path)) is not None and manifest.complete:
        for output in map(Path, manifest.outputs):  # of a finished run they are what is left
            if output.suffix != ".nc":
                continue  # a stranger's manifest may name anything
            found += damage(output) if output.is_file() else [f"`{output}` is not there any more"]
    return found
