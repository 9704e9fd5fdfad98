"""Which row comes when: an epoch's order, worked out of numbers alone.

The rows of all files, cut into short blocks, are laid one behind another in random order. That is
the line of an epoch. Each rank takes a piece of it, each worker (a *lane*) a piece of that, and of
a lane's piece a *pool* of as many batches as memory bears is read and shuffled at a time. Batch i
of a rank is the next one of lane i % lanes. So an order needs no memory of rows, and a batch is
found from its number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from attrs import frozen

Array = np.ndarray[Any, Any]


@frozen
class Piece:
    """Rows [start, stop) of a file, by its number."""

    file: int
    start: int
    stop: int


@frozen(eq=False)
class Pool:
    """Rows that are in memory together: where they are read, and in which order they are given.

    ``order`` is None where they are given as they are read. ``sizes`` are those of its batches,
    ``first`` is the number of the first batch to give.
    """

    pieces: Sequence[Piece]
    order: Array | None
    sizes: Sequence[int]
    first: int


@frozen
class Order:
    """An epoch's order. Whatever else is equal, equal numbers give equal orders.

    ``rows`` and ``blocks`` are of each file: how many rows it has, and how many of them lie
    together. ``pool`` is how many rows all lanes together may hold.
    """

    rows: tuple[int, ...]
    blocks: tuple[int, ...]
    batch_size: int
    pool: int
    shuffle: bool
    seed: int
    drop_last: bool
    rank: int = 0
    world_size: int = 1

    @property
    def share(self) -> tuple[int, int]:
        """This rank's piece of the line, [from, to)."""
        total = sum(self.rows)
        if self.drop_last:
            step = self.batch_size * self.world_size
            each = total // step * self.batch_size
            return self.rank * each, (self.rank + 1) * each
        each, more = divmod(total, self.world_size)
        first = self.rank * each + min(self.rank, more)
        return first, first + each + (self.rank < more)

    @property
    def batches(self) -> int:
        """How many batches this rank has; without ``drop_last`` the last one may be smaller."""
        first, end = self.share
        return -(-(end - first) // self.batch_size)

    def pools(self, epoch: int, lane: int, lanes: int, given: int) -> Iterator[Pool]:
        """The pools of a lane, where ``given`` batches of the rank were given before."""
        skip = of_lane(given, lane, lanes)
        line = _Line.of(self, epoch)
        if self.shuffle:
            yield from self._shuffled(line, epoch, lane, lanes, skip)
            return
        start, end = self.share
        for batch in range(lane + skip * lanes, self.batches, lanes):
            first = start + batch * self.batch_size
            last = min(first + self.batch_size, end)
            yield Pool(line.pieces(first, last), None, (last - first,), 0)

    def _shuffled(
        self, line: _Line, epoch: int, lane: int, lanes: int, skip: int
    ) -> Iterator[Pool]:
        start, end = self._piece(lane, lanes)
        count = of_lane(self.batches, lane, lanes)
        each = max(1, self.pool // lanes // self.batch_size)
        parts = -(-count // each)
        for part in range(parts):
            begin, stop = part * count // parts, (part + 1) * count // parts
            if stop <= skip:
                continue
            first = start + begin * self.batch_size
            last = min(start + stop * self.batch_size, end)
            sizes = [self.batch_size] * (stop - begin)
            sizes[-1] -= (stop - begin) * self.batch_size - (last - first)
            order = _permutation(last - first, self.seed, epoch, 1, first)
            yield Pool(line.pieces(first, last), order, sizes, max(0, skip - begin))

    def _piece(self, lane: int, lanes: int) -> tuple[int, int]:
        """A lane's piece of the line: whole batches, but for the last batch of the rank."""
        start, end = self.share
        missing = self.batches * self.batch_size - (end - start)
        edges = [start]
        for each in range(lanes):
            edges.append(edges[-1] + of_lane(self.batches, each, lanes) * self.batch_size)
            if self.batches and each == (self.batches - 1) % lanes:
                edges[-1] -= missing
        return edges[lane], edges[lane + 1]


def of_lane(batches: int, lane: int, lanes: int) -> int:
    """How many of the first so many batches are a lane's."""
    return max(0, -(-(batches - lane) // lanes))


@frozen(eq=False)
class _Line:
    """The blocks of an epoch in their order: which they are, and where each ends in the line."""

    order: Order
    blocks: Array
    ends: Array

    @classmethod
    def of(cls, order: Order, epoch: int) -> _Line:
        counts = [-(-rows // block) for rows, block in zip(order.rows, order.blocks, strict=True)]
        total = sum(counts)
        sizes = np.repeat(np.array(order.blocks, np.int64), counts)
        last = np.cumsum(counts) - 1
        for at, rows, block in zip(last, order.rows, order.blocks, strict=True):
            sizes[at] -= -rows % block
        blocks = _permutation(total, order.seed, epoch, 0) if order.shuffle else np.arange(total)
        return cls(order, blocks, np.cumsum(sizes[blocks]))

    def pieces(self, first: int, last: int) -> list[Piece]:
        """What rows [first, last) of the line are, sorted as they lie in the files."""
        begin, stop = np.searchsorted(self.ends, (first, last - 1), side="right")
        numbers = self.blocks[begin : stop + 1]
        behind = self.ends[begin : stop + 1]  # where each block ends in the line
        rows, block = np.array(self.order.rows), np.array(self.order.blocks)
        before = np.cumsum([0, *-(-rows // block)])  # blocks of the files before each
        file = np.searchsorted(before, numbers, side="right") - 1
        starts = (numbers - before[file]) * block[file]
        stops = np.minimum(starts + block[file], rows[file])
        missing = np.maximum(0, first - (behind - (stops - starts)))
        stops -= np.maximum(0, behind - last)
        starts += missing
        lying = np.lexsort((starts, file))  # as they lie in the files
        found = (each[lying].tolist() for each in (file, starts, stops))
        return list(map(Piece, *found))


def _permutation(size: int, *seed: int) -> Array:
    """A permutation that stays the same in every version of NumPy.

    Of a generator's methods only the raw numbers are promised not to change.
    """
    drawn = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(size)
    return np.argsort(drawn, kind="stable")
