"""Paths of a config: relative ones lie in its folder, wherever the command is given."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hookql.data.sources import ENDINGS

_MODELS = (".gguf",)


def file_place(given: str, folder: Path | None) -> str:
    """A path as the config means it; without ``folder``, relative to the current one."""
    path = Path(given)
    with contextlib.suppress(RuntimeError):  # `~nobody`: no such user, a name like another
        path = path.expanduser()
    return str(path if folder is None else folder / path)


def data_place(given: str, folder: Path | None) -> str:
    """The same for what may also be a data set's name, or stdin."""
    return given if given == "-" else _place(given, folder, ENDINGS)


def model_place(given: str, folder: Path | None) -> str:
    """The same for what may also be the name of a model."""
    return given if given == "demo" else _place(given, folder, _MODELS)


def _place(given: str, folder: Path | None, endings: tuple[str, ...]) -> str:
    beside = file_place(given, folder)
    like_a_path = given.startswith((".", "/", "~")) or given.lower().endswith(endings)
    try:
        there = Path(beside).exists()
        # What lies in the current folder alone is not what the config names.
        is_path = there or like_a_path or Path(given).exists()
    except (OSError, ValueError):  # no name that a file can have
        there = is_path = False
    if is_path and not there and not Path(beside).is_absolute():
        return f"./{beside}"  # `configs/mine` alone could be a name on the hub
    return beside if is_path else given
