"""How a variable of raw rows lies in its file: in one piece, or in chunks, compressed or not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hookql.raw.tables import RawVariable

# What a chunk holds at most: docs/raw.md says why, `python -m benchmarks.storage` measures it.
CHUNK_BYTES = 2**19
CHUNK_ROWS = 2**12
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "zstd": {"compression": "zstd", "complevel": 1},
    "zlib": {"compression": "zlib", "complevel": 1, "shuffle": True},
}


def chunk_rows(dtype: str, shape: tuple[int, ...], size: int | None) -> int:
    """How many rows a chunk holds: a power of two of at most ``CHUNK_BYTES``, or all that come."""
    row = max(1, math.prod(shape)) * np.dtype(dtype).itemsize
    most = min(max(1, CHUNK_BYTES // row), CHUNK_ROWS)
    return min(1 << most.bit_length() - 1, size or CHUNK_ROWS)


def layout(before: int, chunk: int, shape: tuple[int, ...]) -> dict[str, Any]:
    """What netCDF4 is told of it: ``before`` dimensions, chunks of so many rows (0: one piece)."""
    if not chunk:
        return {"contiguous": True}
    return {"chunksizes": (*[1] * before, chunk, *(max(1, size) for size in shape))}


def make_variable(group: Any, variable: RawVariable, layout: dict[str, Any], compress: str) -> Any:
    """A variable of a file: never filled, for every number will be written."""
    made = group.createVariable(
        variable.name,
        np.dtype(variable.dtype),
        variable.dims,
        endian="little",
        fill_value=False,
        **layout,
        **FILTERS[compress],
    )
    made.set_auto_maskandscale(False)
    made.setncatts(dict(variable.attributes))
    return made
