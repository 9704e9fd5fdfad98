"""The shelf: rows of a batch wait here until their samples are complete, and leave in data order.

Batches are sorted by length, so the rows of a sample come at any time within a window of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import evolve, frozen

from hookql.data.batches import EVERYTHING
from hookql.detectors import Place
from hookql.engines.local import Outcome
from hookql.jobs import Piece
from hookql.language import ast
from hookql.raw.tables import Columns, RawTable
from hookql.selection import SPAN

Ints = npt.NDArray[np.int64]

# Rows leave in slices of about so many bytes: little beside the rows that wait, and enough for the
# disk.
SLICE = 1 << 24


@frozen
class Kept:
    """One column of rows: of which place, expression and call they are, and how they are stored.

    ``shape`` is that of one row.
    """

    column: str
    place: Place
    selector: int
    node: ast.Expression
    call: int
    dtype: str
    shape: tuple[int, ...]
    rounds: bool = False  # whether the user asked for a dtype, which may be narrower


class Shelf:
    """The rows of one table on their way to the disk."""

    def __init__(
        self, table: RawTable, columns: Sequence[Kept], width: int, *, tokens: bool = True
    ) -> None:
        """``width`` is what a chunk's positions are counted in, as of an Outcome.

        ``tokens`` says whether the inputs are tokens at all, and not patches or frames.
        """
        self.table = table
        self.columns = tuple(columns)
        self._width = width
        self._tokens = tokens
        self._pieces: dict[str, list[Piece]] = {kept.column: [] for kept in columns}
        self._done = 0  # samples below this one have left
        self.given = 0  # rows that have left
        self.infinite = 0  # finite numbers too large for the dtype that was asked for
        self._sizes: Ints = np.zeros(0, np.int64)
        row = sum(np.dtype(k.dtype).itemsize * int(np.prod(k.shape)) for k in columns) + 12
        self._step = max(1, SLICE // row)

    def take(self, outcome: Outcome) -> None:
        """Take in what the jobs have kept of a batch; they are cleared by whoever asks all."""
        for kept in self.columns:
            job = outcome.detectors[kept.place].jobs[kept.selector]
            mine = self._pieces[kept.column]
            mine += [p for p in job.pieces if p.node == kept.node and p.call == kept.call]

    def give(self, complete: int) -> Iterator[Columns]:
        """The rows of all samples below an index, in their order; others stay.

        With EVERYTHING all rows leave, and `row_size` is left for `rest`, which knows how many
        samples there are.
        """
        limit = EVERYTHING if complete == EVERYTHING else complete * SPAN
        sorted_: dict[str, _Sorted] = {}
        known: dict[tuple[int, ...], _Sorted] = {}
        _arrived()
        for name, pieces in self._pieces.items():
            key = tuple(id(piece.order) for piece in pieces)
            if key not in known:
                known[key] = _Sorted(pieces, limit)
            sorted_[name] = known[key]
        first, *others = sorted_.values()
        if not all(other is first or np.array_equal(first.order, other.order) for other in others):
            raise RuntimeError(f"the places of `{self.table.name}` kept different rows")
        self._sizes = np.bincount(first.order // SPAN - self._done).astype(np.int64)
        if complete != EVERYTHING:
            yield self._row_sizes(complete)
        self.given += len(first.order)
        for start in range(0, len(first.order), self._step):
            part = slice(start, start + self._step)
            columns = self._labels(first.order[part], first.tokens[part])
            for kept in self.columns:
                rows = sorted_[kept.column].rows(self._pieces[kept.column], part)
                columns[kept.column] = self._stored(rows, kept)
            yield columns
        for name in self._pieces:
            self._pieces[name] = [
                left for piece in self._pieces[name] if (left := _behind(piece, limit)) is not None
            ]

    def _stored(self, rows: npt.NDArray[Any], kept: Kept) -> npt.NDArray[Any]:
        """Rows in the dtype of their column: rounded only where the user asked for it."""
        if np.can_cast(rows.dtype, kept.dtype):
            return rows.astype(kept.dtype, copy=False)
        if not kept.rounds:
            raise RuntimeError(f"`{kept.column}` gave {rows.dtype}, and {kept.dtype} was expected")
        with np.errstate(over="ignore"):
            stored = rows.astype(kept.dtype)
        self.infinite += int(np.count_nonzero(np.isinf(stored) & np.isfinite(rows)))
        return stored

    def rest(self, samples: int | None) -> Columns:
        """The last sizes, once everything was given: of the data's samples up to the last.

        None: up to the last that had a row, where a run was left early.
        """
        return self._row_sizes(self._done + len(self._sizes) if samples is None else samples)

    def cut(self) -> RawTable:
        """The table as it is now: with those rows and samples that have left, and no more."""
        sizes = {**self.table.sizes, "obs": self.given, "sample": self._done}
        return evolve(self.table, sizes=sizes)

    def _row_sizes(self, complete: int) -> Columns:
        sizes = np.zeros(max(0, complete - self._done), np.int64)
        sizes[: len(self._sizes)] = self._sizes
        self._done, self._sizes = complete, np.zeros(0, np.int64)
        return {"row_size": sizes}

    def _labels(self, order: Ints, tokens: Ints) -> dict[str, npt.NDArray[Any]]:
        within = order % SPAN
        labels = {
            "position": within % self._width,
            "token_id": tokens if self._tokens else np.full_like(tokens, -1),
        }
        labels["chunk"] = within // self._width
        return {name: values.astype(np.int32) for name, values in labels.items()}

    def state(self) -> dict[str, Any]:
        """What waits, as arrays and tensors, for a checkpoint."""
        _arrived()
        return {
            "done": self._done,
            "given": self.given,
            "infinite": self.infinite,
            "pieces": {
                name: [(p.order, p.tokens, p.rows) for p in pieces]
                for name, pieces in self._pieces.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Wait with what a checkpoint had."""
        self._done, self.given = state["done"], state["given"]
        self.infinite = state["infinite"]
        for kept in self.columns:
            self._pieces[kept.column] = [
                Piece(kept.node, kept.call, order, tokens, rows)
                for order, tokens, rows in state["pieces"][kept.column]
            ]


class _Sorted:
    """The order of the rows of some pieces that lie below a limit."""

    def __init__(self, pieces: Sequence[Piece], limit: int) -> None:
        none: Ints = np.zeros(0, np.int64)
        order = np.concatenate([none, *(piece.order for piece in pieces)])
        tokens = np.concatenate([none, *(piece.tokens for piece in pieces)])
        below = np.flatnonzero(order < limit)
        self._index = below[np.argsort(order[below], kind="stable")]
        self.order: Ints = order[self._index]
        self.tokens: Ints = tokens[self._index]
        self._starts = np.cumsum([0, *(len(piece.order) for piece in pieces)])

    def rows(self, pieces: Sequence[Piece], part: slice) -> npt.NDArray[Any]:
        """A slice of the sorted rows, (n, \\*shape), in the dtype that they have."""
        index = self._index[part]
        like = pieces[0].rows.numpy() if pieces else np.zeros(0, np.float32)
        made = np.empty((len(index), *like.shape[1:]), like.dtype)
        owner = np.searchsorted(self._starts, index, side="right") - 1
        by_owner = np.argsort(owner, kind="stable")
        edges = np.flatnonzero(np.diff(owner[by_owner], prepend=-1))
        for places in np.split(by_owner, edges[1:]):
            number = int(owner[places[0]])
            made[places] = pieces[number].rows.numpy()[index[places] - self._starts[number]]
        return made


def _arrived() -> None:
    """Wait for copies from GPUs that are still under way, of each: a model may lie on several."""
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.synchronize(device)


def _behind(piece: Piece, limit: int) -> Piece | None:
    """What of a piece is not below a limit; None where nothing is."""
    left = np.flatnonzero(piece.order >= limit)
    if not len(left) or limit == EVERYTHING:
        return None
    index = torch.from_numpy(left)
    rows = piece.rows.index_select(0, index)
    return evolve(piece, order=piece.order[left], tokens=piece.tokens[left], rows=rows)
