"""What is exported: nodes with columns of rows, of which a slab is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen

Array = np.ndarray[Any, Any]

SLAB = 16 * 2**20  # bytes read at once, but for a single row that is larger
DTYPES = ("<f4", "<f8", "<i4", "<i8")
PLACES = ("position", "token_id", "chunk")


@frozen(eq=False)
class Column:
    """An array with one row a token.

    ``dims`` and ``shape`` are those of a row; ``read(start, stop)`` gives rows (stop - start,
    \\*shape), contiguous and little-endian, bit for bit as they are in the file.
    """

    name: str
    dtype: str  # one of DTYPES
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    read: Callable[[int, int], Array]
    attributes: Mapping[str, object] = field(factory=dict)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        size = np.dtype(self.dtype).itemsize
        for length in self.shape:  # Python's numbers do not overflow
            size *= length
        return size

    def slabs(self, start: int, stop: int) -> Iterator[Array]:
        """The rows from start to stop, some at a time, in order."""
        step = max(1, SLAB // self.row_bytes)
        for at in range(start, stop, step):
            yield self.read(at, min(at + step, stop))


@frozen(eq=False)
class Node:
    """The raw part of one group of a file.

    ``columns`` are its values, then ``position``, ``token_id``, ``chunk`` and ``sample``.
    ``coordinates`` label the axes of a row (``layer``, ``module``), where they are labelled.
    """

    name: str  # "/" or "/acts/transformer.h"
    rows: int
    samples: int
    columns: tuple[Column, ...]
    coordinates: Mapping[str, object]
    attributes: Mapping[str, object]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all columns."""
        return sum(column.row_bytes for column in self.columns)

    def parts(self, limit: int) -> list[tuple[int, int]]:
        """The rows (from, to) of each shard of at most ``limit`` bytes, or of a single row.

        Where there is no row there is one empty shard, which says what there would have been.
        """
        step = max(1, limit // self.row_bytes)
        return [(at, min(at + step, self.rows)) for at in range(0, self.rows, step)] or [(0, 0)]


@frozen(eq=False)
class Source:
    """An opened result file: its nodes with raw values, and the attributes of its root."""

    path: Path
    nodes: tuple[Node, ...]
    attributes: Mapping[str, object]
