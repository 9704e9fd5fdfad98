"""Raw values for other tools: `export` copies them out of a result file into a folder of shards."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from hookql.errors import Diagnostic, HookQLError, UsageError, did_you_mean
from hookql.exports import manifest
from hookql.exports.files import Folder
from hookql.exports.progress import bar
from hookql.exports.source import opened
from hookql.exports.tables import Node, Source
from hookql.exports.target import check, check_room, hidden, put

FORMATS = ("safetensors", "zarr", "parquet", "npy")
_NEEDS = {"parquet": "pyarrow"}


class Format(Protocol):
    """A module that writes nodes in its format."""

    def write(self, nodes: Sequence[Node], folder: Folder, shard_bytes: int) -> None:
        """Write all files of all nodes but the manifest, row by row."""


def export(
    path: Path,
    to: str,
    output: Path | None = None,
    *,
    shard_bytes: int = 1_000_000_000,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Copy the raw values of a result file into a folder of shards; returns the folder.

    ``to`` is one of ``FORMATS``; ``output`` is ``acts.safetensors`` beside ``acts.nc`` if not
    given. A shard holds at most ``shard_bytes`` of numbers, or a single row. Every number is bit
    for bit that of the file. Memory does not grow with the file. The folder appears when it is
    whole; with ``overwrite`` it replaces an earlier export, but nothing else. ``progress``: None
    shows a bar where there is a terminal, False says nothing.

    Raises UsageError for a file without raw values, a folder that exists and a disk without room,
    HookQLError for a file that cannot be read or an output that cannot be written.
    """
    path = Path(path)
    writer = _format(to)
    if isinstance(shard_bytes, bool) or not isinstance(shard_bytes, int) or shard_bytes < 1:
        message = f"`shard_bytes` must be a whole number of 1 or more, not {shard_bytes!r}"
        raise UsageError(Diagnostic("bad-option", message))
    with opened(path) as source:
        shown = Path(output) if output is not None else _beside(path, to)
        check(shown, overwrite)
        check_room(shown, _bytes(source))
        try:
            _write(source, to, writer, shown, shard_bytes, overwrite, progress)
        except OSError as error:
            message = f"cannot write `{shown}`: {error.strerror or error}"
            raise HookQLError(Diagnostic("cannot-write", message)) from error
    return shown


def _write(
    source: Source,
    to: str,
    writer: Format,
    shown: Path,
    shard_bytes: int,
    overwrite: bool,
    progress: bool | None,
) -> None:
    """Write all under a temporary name, of which nothing is left if anything goes wrong."""
    target = shown.resolve()  # so that a link stays one, to the new folder
    temporary = hidden(target, "tmp")
    try:
        temporary.mkdir()
        with bar(_bytes(source), progress) as tick:
            folder = Folder(temporary, tick)
            writer.write(source.nodes, folder, shard_bytes)
            manifest.save(folder, source, to)
        check(shown, overwrite)
        put(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _format(to: str) -> Format:
    if to not in FORMATS:
        notes = (f"formats: {', '.join(FORMATS)}",)
        message, advice = f"unknown format `{to}`", did_you_mean(to, FORMATS)
        raise UsageError(Diagnostic("unknown-format", message, help=advice, notes=notes))
    needed = _NEEDS.get(to)
    if needed is not None and importlib.util.find_spec(needed) is None:
        message = f"writing {to} needs the package `{needed}`"
        advice = "run `pip install 'hookql[export]'`"
        raise UsageError(Diagnostic("missing-package", message, help=advice))
    return cast(Format, importlib.import_module(f"hookql.exports.{to}"))


def _beside(path: Path, to: str) -> Path:
    return path.with_name(f"{path.name.removesuffix('.nc')}.{to}")


def _bytes(source: Source) -> int:
    return sum(node.rows * node.row_bytes for node in source.nodes)
