"""The sample of each row, worked out of how many rows each sample has."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from hookql.exports.faults import reading, unlike
from hookql.exports.tables import Array, Column
from hookql.exports.watch import Watch

SAMPLES = 2**18  # samples whose numbers of rows are read at once


def samples(watched: Watch, group: Any, sizes: Any, rows: int) -> Column:
    """The column ``sample``, int64 (rows,); ``sizes`` has the ``rows`` rows of all samples.

    HookQLError where these do not add up.
    """
    path = watched.path
    if len(sizes.dimensions) != 1 or sizes.dtype not in (np.int32, np.int64):
        raise unlike(path, f"`{sizes.name}` has type {sizes.dtype} and shape {sizes.shape}")
    (dim,) = sizes.dimensions
    labels = group.variables.get(dim)
    starts = [0]  # the first row of each block of samples, and the end of the last one

    def block(variable: Any, number: int) -> Array:
        with reading(path):
            read = variable[number * SAMPLES : (number + 1) * SAMPLES]
        return np.asarray(read, np.int64)

    for number in range(-(-sizes.shape[0] // SAMPLES)):
        counts = block(sizes, number)
        watched.take(number * SAMPLES, counts.astype(sizes.dtype, copy=False))
        if counts.min() < 0 or counts.max() > rows:
            raise unlike(path, f"`{sizes.name}` is not between 0 and {rows:,} everywhere")
        starts.append(starts[-1] + int(counts.sum()))
    if starts[-1] != rows:
        raise unlike(path, f"`{sizes.name}` adds up to {starts[-1]:,}, for {rows:,} rows")

    def read(start: int, stop: int) -> Array:
        parts = [np.empty(0, np.int64)]
        number = bisect_right(starts, start) - 1
        while start < stop:
            ends = starts[number] + np.cumsum(block(sizes, number))
            until = min(stop, starts[number + 1])
            which = np.searchsorted(ends, np.arange(start, until), side="right")
            known = labels is not None
            parts.append(block(labels, number)[which] if known else which + number * SAMPLES)
            start, number = until, number + 1
        return np.concatenate(parts).astype("<i8", copy=False)

    told = {"long_name": "number of the sample"}
    return Column("sample", "<i8", (), (), read, told)
