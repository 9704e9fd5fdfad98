"""Small facts about this machine, measured once and kept in the user's cache folder.

What is kept only makes runs quicker: a folder that cannot be written to is no error, and a file
that somebody damaged counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_LARGEST = 1 << 16  # bytes of a file of ours


def cache_folder() -> Path:
    """``$HOOKQL_CACHE``, else ``hookql`` in the system's own folder for caches."""
    if named := os.environ.get("HOOKQL_CACHE"):
        return Path(named).expanduser()
    system = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(system) if system else Path("~/.cache").expanduser()) / "hookql"


def recalled(kind: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of a key; None where nothing is, or what is there cannot be read."""
    with suppress(OSError, ValueError, RecursionError, RuntimeError):
        with _path(kind, key).open("rb") as file:
            known = json.loads(file.read(_LARGEST))
        if isinstance(known, dict) and known.get("key") == _plain(key):
            return known
    return None


def remember(kind: str, key: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Keep facts of a key, whole or not at all; what is known of it from now on.

    Where another process was quicker its facts stand, so that both go by the same ones.
    """
    known: dict[str, Any] = {**facts, "key": _plain(key)}
    # RuntimeError: a user without a home.
    with suppress(OSError, RuntimeError):
        path = _path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(known, file, indent=1)
            if recalled(kind, key) is None:
                with suppress(FileNotFoundError):
                    path.unlink()  # damaged
            try:
                os.link(name, path)  # fails where there is one by now
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                os.replace(name, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)
    return recalled(kind, key) or known


def _path(kind: str, key: Mapping[str, Any]) -> Path:
    text = json.dumps(_plain(key), sort_keys=True)
    return cache_folder() / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key as it comes back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(dict(key)))
    return found
