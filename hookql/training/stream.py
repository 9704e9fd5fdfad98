"""Batches of one lane of an epoch: pools of rows are read, shuffled and cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from attrs import frozen

from hookql.training.order import Order, Pool
from hookql.training.rows import Reader, Rows, reader

Array = np.ndarray[Any, Any]

LABELS = {"sample": "<i8", "chunk": "<i4", "position": "<i4", "token_id": "<i4"}
_PLACES = {"file": "<i4", "row": "<i8"}
_SORTING = 20  # bytes of a row that making a pool's order takes


class TrainingBatch(NamedTuple):
    """Rows to train on, and where each is from.

    ``values`` (n, \\*row) are in the dtype of the file; the others (n,) are int32, ``sample`` and
    ``row`` int64. ``file`` is a number in the list of files that were given, ``row`` the row's
    number in its file, ``sample``, ``chunk``, ``position`` and ``token_id`` are those of the file.
    """

    values: torch.Tensor
    sample: torch.Tensor
    chunk: torch.Tensor
    position: torch.Tensor
    token_id: torch.Tensor
    file: torch.Tensor
    row: torch.Tensor


@frozen(eq=False)
class Stream:
    """All that says what batches there are; ``metadata`` where they say of rows whose they are."""

    files: Sequence[Rows]
    order: Order
    metadata: bool

    def batches(
        self, epoch: int, lane: int, lanes: int, given: int
    ) -> Iterator[torch.Tensor | TrainingBatch]:
        """The batches of one lane, where ``given`` of all lanes were given before."""
        with ExitStack() as stack:
            readers = [stack.enter_context(reader(rows)) for rows in self.files]
            memory: dict[str, Array] = {}
            for pool in self.order.pools(epoch, lane, lanes, given):
                memory = _filled(pool, readers, self._columns(), memory)
                end = 0
                for number, size in enumerate(pool.sizes):
                    start, end = end, end + size
                    if number >= pool.first:
                        yield self._batch(memory, pool, start, end)
                if pool.order is None:  # which was handed out as it is
                    memory = {}

    def _batch(
        self, memory: Mapping[str, Array], pool: Pool, start: int, end: int
    ) -> torch.Tensor | TrainingBatch:
        which = slice(start, end) if pool.order is None else pool.order[start:end]
        found = {name: torch.from_numpy(rows[which]) for name, rows in memory.items()}
        return TrainingBatch(**found) if self.metadata else found["values"]

    def _columns(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of what is kept of each row."""
        labels = {**LABELS, **_PLACES} if self.metadata else {}
        first = self.files[0]
        return {"values": (first.dtype, first.shape), **{n: (d, ()) for n, d in labels.items()}}


def row_cost(row_bytes: int, metadata: bool) -> int:
    """Bytes of memory that a row takes while its pool is given out."""
    labels = {**LABELS, **_PLACES}.values() if metadata else ()
    return row_bytes + _SORTING + sum(np.dtype(dtype).itemsize for dtype in labels)


def _filled(
    pool: Pool,
    readers: Sequence[Reader],
    columns: Mapping[str, tuple[str, tuple[int, ...]]],
    memory: dict[str, Array],
) -> dict[str, Array]:
    """The rows of a pool, in memory that is used again where it is large enough."""
    size = sum(pool.sizes)
    if not memory or len(memory["values"]) < size:
        memory.clear()  # before the new one is there
        memory = {name: np.empty((size, *shape), dtype) for name, (dtype, shape) in columns.items()}
    end = 0
    for piece in pool.pieces:
        start, end = end, end + piece.stop - piece.start
        source = readers[piece.file]
        source.read(piece.start, piece.stop, memory["values"][start:end])
        for name in LABELS.keys() & columns.keys():
            source.label(name, piece.start, piece.stop, memory[name][start:end])
        if "row" in columns:
            memory["file"][start:end] = piece.file
            memory["row"][start:end] = np.arange(piece.start, piece.stop)
    # Read past the end of a file that was cut, the library gives zeros.
    for number in {piece.file for piece in pool.pieces}:
        readers[number].check()
    return memory
