"""The manifest of an exported folder: what is in it, and how to tell that it still is."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hookql.exports.files import Folder, synced
from hookql.exports.tables import Node, Source
from hookql.results.attributes import plain_text

NAME = "_manifest.json"  # readers of Parquet take whatever has no `_` in front for data
VERSION = 1
_MOST = 2**26  # bytes of a manifest; one of 100,000 files has half of that
_BLOCK = 2**22


def save(folder: Folder, source: Source, format: str) -> None:
    """Write the manifest of all files in a folder, synced, and have the folders' names on disk."""
    manifest: dict[str, object] = {
        "hookql_export": VERSION,
        "format": format,
        "source": {"file": plain_text(source.path.name), "bytes": source.path.stat().st_size},
        "query": source.attributes.get("query"),
        "model": source.attributes.get("model"),
        "nodes": [_node(node) for node in source.nodes],
        "files": sorted(folder.files, key=lambda file: str(file["path"])),
        "attributes": dict(source.attributes),
    }
    manifest["sha256"] = _checksum(manifest)
    text = (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode()
    if len(text) > _MOST:
        message = f"{len(folder.files):,} files are too many for one manifest: take larger shards"
        raise OSError(errno.EFBIG, message)
    with (folder.root / NAME).open("xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    for below, _, _ in os.walk(folder.root, topdown=False):
        synced(Path(below))


def _node(node: Node) -> dict[str, object]:
    arrays = {
        column.name: {
            "dtype": np.dtype(column.dtype).name,
            "shape": [node.rows, *column.shape],
            "dims": ["obs", *column.dims],
            "attributes": dict(column.attributes),
        }
        for column in node.columns
    }
    return {
        "node": node.name,
        "folder": node.name.strip("/") or ".",
        "rows": node.rows,
        "samples": node.samples,
        "arrays": arrays,
        "coordinates": dict(node.coordinates),
        "attributes": dict(node.attributes),
    }


def _checksum(manifest: Mapping[str, object]) -> str:
    """The hash of everything in a manifest but the hash, however it is laid out."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def load(folder: Path) -> dict[str, Any] | None:
    """The manifest of an exported folder; None where there is none that can be read."""
    if not (folder / NAME).is_file():  # a pipe would be waited for
        return None
    try:
        with (folder / NAME).open("rb") as file:
            text = file.read(_MOST + 1)
        manifest = json.loads(text) if len(text) <= _MOST else None
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or "hookql_export" not in manifest:
        return None
    return manifest


def strangers(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is in a folder and no part of the export: files, links, folders with nothing in them."""
    known = {NAME, *(str(file["path"]) for file in _files(manifest))}
    above = {str(parent) for path in known for parent in PurePosixPath(path).parents}
    found = []
    for below, folders, files in os.walk(folder):
        here = Path(below).relative_to(folder)
        found += [path for name in files if (path := (here / name).as_posix()) not in known]
        found += [path for name in folders if (path := (here / name).as_posix()) not in above]
    return sorted(found)


def damage(folder: Path) -> list[str]:
    """What is wrong with an exported folder, as sentences; nothing if it is whole.

    Reads every file. Files that are no part of the export are no damage.
    """
    manifest = load(folder)
    if manifest is None:
        return [f"`{NAME}` is missing or cannot be read"]
    if manifest["hookql_export"] != VERSION:
        return [f"`{NAME}` is of version {manifest['hookql_export']!r}, not {VERSION}"]
    if manifest.get("sha256") != _checksum(manifest):
        return [f"`{NAME}` was changed: its checksum differs"]
    try:
        wrong = [said for file in _files(manifest) if (said := _damage(folder, file)) is not None]
        return wrong + list(_gaps(manifest))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return [f"`{NAME}` is not as HookQL writes it"]


def _damage(folder: Path, file: Mapping[str, Any]) -> str | None:
    """What is wrong with one file."""
    inside = folder / file["path"]
    path = "".join(c if c.isprintable() else "�" for c in file["path"])
    # A manifest may be anybody's: it names nothing outside its folder.
    if not inside.resolve().is_relative_to(folder.resolve()):
        return f"`{path}` is not in the folder"
    if not inside.is_file():
        return f"`{path}` is missing"
    rows = f": rows {_range(file['rows'])} of {file['node']}" if file.get("rows") else ""
    try:
        size = inside.stat().st_size
        if size != file.get("bytes"):
            return f"`{path}` has {size:,} bytes instead of {file.get('bytes'):,}{rows}"
        if _hash(inside) != file.get("sha256"):
            return f"`{path}` was changed: its checksum differs{rows}"
    except OSError as error:
        return f"`{path}` cannot be read: {error.strerror}{rows}"
    return None


def _hash(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _gaps(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Arrays whose rows are not all in the files, each row once."""
    parts: dict[tuple[str, str], list[list[int]]] = {}
    for file in _files(manifest):
        for array in file.get("arrays", ()):
            parts.setdefault((file["node"], array), []).append(file["rows"])
    for node in manifest["nodes"]:
        for array in node["arrays"]:
            at = 0
            for start, stop in sorted(parts.get((node["node"], array), ())):
                at = stop if start == at else -1
            if at != node["rows"]:
                yield f"the files do not hold each row of {array} of {node['node']} once"


def _files(manifest: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    files = manifest.get("files")
    return files if isinstance(files, list) else ()


def _range(rows: Sequence[int]) -> str:
    return f"{rows[0]:,} to {rows[1]:,}"
