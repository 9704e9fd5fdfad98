"""Whether a disk has room for what will be written, asked before the model runs."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hookql.errors import Diagnostic, UsageError
from hookql.raw.tables import RawTable

NEARLY_FULL = 1 << 24  # bytes


def bytes_of(tables: Iterable[RawTable]) -> int:
    """How many bytes tables take uncompressed, without those whose number of rows is unknown."""
    return sum(
        np.dtype(variable.dtype).itemsize * math.prod(table.sizes[d] or 0 for d in variable.dims)
        for table in tables
        for variable in table.variables
    )


def check_room(needed: Mapping[Path, int], force: bool) -> None:
    """Raise UsageError `no-room` unless each disk has room for what goes to its folders, in bytes.

    Folders that are not there yet lie on the disk of the nearest one above them. With ``force``
    nothing is raised.
    """
    disks: dict[int, tuple[Path, int, int]] = {}
    for folder, size in needed.items():
        there = _nearest(folder)
        name, before, free = disks.get(there.stat().st_dev, (folder, 0, free_bytes(there)))
        disks[there.stat().st_dev] = name, before + size, free
    for folder, size, free in disks.values():
        if size > free and not force:
            raise UsageError(
                Diagnostic(
                    "no-room",
                    f"the raw values take {amount(size)}, and `{folder}` has {amount(free)} free",
                    help="take fewer samples (`--limit`), write to another disk, "
                    "or try it anyway with `--force`",
                )
            )


def amount(size: int) -> str:
    """Bytes for people: ``1.5 GB``."""
    unit, name = next(
        (u, n)
        for u, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
        if size >= u or u == 1
    )
    return f"{size / unit:,.1f} {name}" if unit > 1 else f"{size} bytes"


def full(folder: Path) -> bool:
    """Whether so little is free that a failed write needs no other reason."""
    return free_bytes(folder) < NEARLY_FULL


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, or of the nearest one above it that is there."""
    return shutil.disk_usage(_nearest(folder)).free


def _nearest(folder: Path) -> Path:
    return next(f for f in (folder.resolve(), *folder.resolve().parents) if f.is_dir())
