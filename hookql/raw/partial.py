"""A file whose rows were counted beforehand, and of which fewer came: a run that was left early."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import netCDF4

from hookql.raw.ragged import RaggedFile, columns_of
from hookql.raw.tables import RawTable

PIECE = 1 << 24  # bytes copied at once


def cut_short(path: Path, made: Sequence[RawTable], cut: Sequence[RawTable], compress: str) -> None:
    """Copy a file of tables as they were ``made`` to one of tables as they are ``cut``, in place.

    The variables of a file cannot shrink. Where nothing needs to, the file stays as it is.
    """
    if all(_grows(table, short) for table, short in zip(made, cut, strict=True)):
        return
    copy = path.with_name(f"{path.name}.cut")
    try:
        with netCDF4.Dataset(path) as source:
            file = RaggedFile(copy, cut, compress)
            try:
                for table in cut:
                    _copy(source, table, file)
                file.close()
            except BaseException:
                file.abandon()
                raise
        os.replace(copy, path)
    finally:
        copy.unlink(missing_ok=True)


def _grows(made: RawTable, cut: RawTable) -> bool:
    """Whether a table's file has its right size already, as one of unknown size has."""
    return all(size in (None, 0, cut.sizes[dim]) for dim, size in made.sizes.items())


def _copy(source: netCDF4.Dataset, table: RawTable, file: RaggedFile) -> None:
    group = source if table.group == "/" else source[table.group]
    for name, (variable, before) in columns_of(table).items():
        found = group.variables[variable.name]
        found.set_auto_maskandscale(False)
        growing = variable.dims[len(before)]
        length = table.sizes[growing] or 0
        row = found.dtype.itemsize
        for dim in variable.dims[len(before) + 1 :]:
            row *= max(1, table.sizes[dim] or 1)
        step = max(1, PIECE // row)
        for start in range(0, length, step):
            rows = found[(*before, slice(start, min(start + step, length)))]
            file.append(table.name, {name: rows})
