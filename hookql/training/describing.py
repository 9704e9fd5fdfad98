"""What there is of the rows of a variable, worked out of its open file."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from hookql.exports.faults import reading, unlike
from hookql.exports.tables import PLACES
from hookql.raw.crc import GROUP
from hookql.training.inplace import offset_of
from hookql.training.rows import Column, Rows, stamp

BLOCK = 2**16  # bytes of rows that are read together: few, so that they mix well
SLICE = 2**18  # the same where the library reads them, which takes its time for each slice
MOST_BLOCKS = 2**21  # of a file; of a larger one the blocks are longer


def describe(
    path: Path,
    node: str,
    variable: str,
    layers: tuple[int, ...] | None,
    single: bool,
    labels: bool,
) -> Rows:
    """The rows of a variable, and with ``labels`` what says of them where they are from.

    HookQLError where they cannot be read, or do not lie as HookQL writes them.
    """
    import netCDF4

    with reading(path), netCDF4.Dataset(path, "r") as file:
        file.set_auto_maskandscale(False)  # nothing is a fill value
        group = file[node] if node != "/" else file
        found = group.variables[variable]
        sizes = next(v for v in group.variables.values() if "sample_dimension" in v.ncattrs())
        obs = str(sizes.getncattr("sample_dimension"))
        at = found.dimensions.index(obs)
        if (layers is not None and found.dimensions[0] != "layer") or at > 2:
            raise unlike(path, f"`{variable}` has the dimensions {', '.join(found.dimensions)}")
        if missing := [name for name in PLACES if labels and name not in group.variables]:
            raise unlike(path, f"it has no `{missing[0]}`")
        columns = {variable: _column(path, found, at)}
        if labels:
            columns |= {name: _column(path, group.variables[name], 0) for name in PLACES}
            columns["row_size"] = _column(path, sizes, 0)
        kept = [
            (dim, len(layers) if dim == "layer" and layers else int(size))
            for dim, size in zip(found.dimensions, found.shape, strict=True)
            if dim != obs and not (dim == "layer" and single)
        ]
        named = group.variables.get(sizes.dimensions[0]) if labels else None
        return Rows(
            path=path,
            node=node,
            variable=variable,
            count=columns[variable].shape[at],
            dtype=columns[variable].dtype,
            dims=tuple(dim for dim, _ in kept),
            shape=tuple(size for _, size in kept),
            layers=layers,
            single=single,
            block=_block(found, columns[variable]),
            columns=columns,
            samples=None if named is None else tuple(map(int, named[...])),
            identity=_identity(path, file),
            stamp=stamp(path),
        )


def _column(path: Path, variable: Any, along: int) -> Column:
    dtype = np.dtype(variable.dtype).newbyteorder("<").str
    shape = tuple(map(int, variable.shape))
    return Column(dtype, shape, along, offset_of(path, variable, along))


def _block(variable: Any, column: Column) -> int:
    """How many rows are read together: some bytes of them; of chunks, all rows of one."""
    if variable.chunking() != "contiguous":
        return int(variable.chunking()[column.along])
    row = math.prod(column.shape[column.along + 1 :]) * np.dtype(column.dtype).itemsize
    size = SLICE if column.offset is None else BLOCK
    return max(1, size // row, -(-column.shape[column.along] // MOST_BLOCKS))


def _identity(path: Path, file: Any) -> str:
    """What tells a file from another one: its checksums, or its size where it has none."""
    if GROUP in file.groups:
        sums = np.asarray(file.groups[GROUP]["crc"][...])
        return f"crc {zlib.crc32(sums.tobytes()):08x}"
    return f"{path.stat().st_size} bytes"
