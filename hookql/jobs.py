"""Jobs: what one selector's rows at one place go into."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import evolve, frozen
from torch import Tensor

from hookql.expressions import Expression, Rows, prepare
from hookql.language import ast
from hookql.predicates.evaluate import Predicate
from hookql.predicates.groups import GroupTable
from hookql.predicates.values import Values
from hookql.selection import PairTable, Scene, Sees, Selection
from hookql.statistics import Groups, Places, Statistic, accumulators
from hookql.statistics.blocks import is_quick
from hookql.statistics.moments import Moments

_LATER = torch.iinfo(torch.int64).max

Wanted = Sequence[tuple[Statistic, Mapping[str, Any]]]


class NonFinite:
    """How many NaNs and infinities there were, and where the first row with one stands."""

    def __init__(self) -> None:
        self._count: Tensor | int = 0
        self._first: Tensor | int = _LATER

    def update(self, rows: Tensor, selection: Selection) -> None:
        """Take in rows (n, *axes)."""
        # A finite sum proves that all are finite and costs a tenth of looking at each; on a GPU
        # reading it would wait for the device, so there each is looked at.
        if rows.device.type == "cpu" and math.isfinite(float(rows.sum())):
            return
        if not rows.numel():
            return
        bad = ~rows.isfinite().reshape(rows.shape[0], -1)
        order = selection.places(rows.device).order
        place = order.masked_fill(~bad.any(1), _LATER).amin()
        self._count = bad.sum() + self._count
        self._first = place.clamp(max=self._first)

    @property
    def count(self) -> int:
        """How many values were NaN or infinite."""
        return int(self._count)

    @property
    def first(self) -> int | None:
        """The smallest order of a row that has one."""
        return int(self._first) if self.count else None


@frozen(eq=False)
class Piece:
    """Rows of one update that are kept as they are: their places, tokens and values.

    ``order`` and ``tokens`` are int64 (n,), shared by all places of a selection; ``rows``
    (n, \\*axes) are a copy, float32 or float64; on its way from a GPU until its stream is done.
    """

    node: ast.Expression
    call: int
    order: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    rows: Tensor


@frozen(eq=False)
class Want:
    """What a selector's rows are wanted for: an expression and the statistics of it.

    ``key_axis`` is the axis of the expression's rows that is a ragged `key`, taken apart by
    ``pairs``; the statistics are then grouped by it. ``raw`` says that the rows are kept as well.
    """

    expression: Expression
    statistics: Wanted
    raw: bool = False
    key_axis: int | None = None
    sees: Sees = (False, None)
    pairs: PairTable | None = None


class Job:
    """One selector at one place: how many rows there were, and the accumulators they went into."""

    def __init__(
        self,
        wants: Iterable[Want],
        calls: int,
        table: GroupTable | None,
        there: Sequence[Predicate] = (),
    ) -> None:
        """``table`` numbers the groups; it is shared by all jobs of the same keys.

        ``there`` are predicates that hold where each key has a value.
        """
        self.there = tuple(there)
        self.wants = tuple(wants)
        self.table = table
        self._leaves = frozenset(leaf for want in self.wants for leaf in want.expression.leaves)
        self._several = len(self.wants) > 1
        plain = bool(self.wants) and all(_is_plain(want) for want in self.wants)
        self._plain = table is None and plain
        self.kept = 0
        self.undefined = 0
        self.group_counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.nonfinite: dict[str, NonFinite] = {}  # by operand
        self.pieces: list[Piece] = []  # rows to be kept, until somebody takes them
        self.states: list[dict[ast.Expression, dict[Hashable, Any]]] = [
            {want.expression.node: self._fresh(want) for want in self.wants} for _ in range(calls)
        ]

    def _fresh(self, want: Want) -> dict[Hashable, Any]:
        grouped = self.table is not None or want.pairs is not None
        return accumulators(want.statistics, grouped=grouped)

    def select(
        self, scene: Scene, predicate: Predicate, values: Mapping[ast.Expression, Values]
    ) -> Selection:
        """The rows that a predicate over the place's own values keeps."""
        batch = evolve(scene.batch, values=values)
        kept, undefined = predicate(batch)
        self.undefined += undefined
        selection, nowhere = grouped(scene, kept, self.table, self.there)
        self.undefined += nowhere
        return selection

    def count(self, selection: Selection) -> None:
        """Count the rows of a selection: once, however often the module is called."""
        self.kept += selection.count
        if selection.groups is not None:
            counts = np.bincount(selection.groups.index, minlength=len(self.group_counts))
            counts[: len(self.group_counts)] += self.group_counts
            self.group_counts = counts

    def update(
        self,
        call: int,
        operands: Mapping[str, Tensor],
        selection: Selection,
        known: Mapping[ast.Expression, Tensor],
        fed: bool = False,
    ) -> None:
        """Take in the rows that are selected of operands (B * S, *axes), or of those ``fed``."""
        apart = fed and selection.scene.flat is not None
        if self._plain and not apart and self._update_plain(call, operands, selection):
            return
        device = operands["x"].device
        rows = Rows(
            # Accumulators keep no rows, so that the next site may have their memory.
            {name: selection.rows(x, f"rows of {name}", fed) for name, x in operands.items()},
            {leaf: selection.rows(selection.scene.column(leaf, device)) for leaf in self._leaves},
        )
        rows.memo.update({node: selection.rows(tensor) for node, tensor in known.items()})
        if self._several:
            prepare([want.expression for want in self.wants], rows)
        proven = False
        for want in self.wants:
            states = self.states[call][want.expression.node]
            values = want.expression(rows)
            # Float64 counts exactly; a float32 mean of zeros and ones does not.
            values = values.double() if want.expression.kind == "truth" else values
            if want.raw:
                order, tokens = selection.labels
                self.pieces.append(Piece(want.expression.node, call, order, tokens, _copy(values)))
            self._take(want, states, values, selection)
            proven |= want.expression.node == _X and _all_finite(states)
        for name, tensor in rows.operands.items():
            if name != "x" or not proven:
                self.nonfinite.setdefault(name, NonFinite()).update(tensor, selection)

    def _update_plain(
        self, call: int, operands: Mapping[str, Tensor], selection: Selection
    ) -> bool:
        """The same without a copy of the rows, where nearly all are kept; whether that was done."""
        left, x = selection.left, operands["x"]
        if left is None or not is_quick(x) or len(operands) > 1:
            return False
        states = self.states[call][_X]
        if not all(isinstance(state, Moments) for state in states.values()):
            return False
        for state in states.values():
            state.update_but(x, left)
        if not _all_finite(states):
            self.nonfinite.setdefault("x", NonFinite()).update(selection.rows(x), selection)
        return True

    def _take(
        self, want: Want, states: Mapping[Hashable, Any], values: Tensor, selection: Selection
    ) -> None:
        groups: Groups | None = selection.groups
        pairs = None
        if want.key_axis is not None and want.pairs is not None:
            keys = values.shape[1 + want.key_axis]
            pairs = selection.pairs(keys, want.sees, want.pairs)
            values, groups = pairs.rows(values, want.key_axis), pairs.groups
        for state in states.values():
            given: list[Any] = [values]
            if groups is not None:
                given.append(groups)
            if getattr(state, "places", False):
                places = selection.places(values.device)
                given.append(places if pairs is None else pairs.places(places))
            state.update(*given)

    @property
    def nbytes(self) -> int:
        """What the accumulators hold, in bytes."""
        return sum(
            state.nbytes
            for of_call in self.states
            for states in of_call.values()
            for state in states.values()
        )

    def settle(self, axes: Mapping[ast.Expression, Sequence[int]]) -> None:
        """Tell accumulators that saw no row what axes they have, and grouped ones how many groups.

        ``axes``: the sizes of each expression's axes, without a ragged key.
        """
        none = torch.zeros(0, dtype=torch.int64)
        for of_call in self.states:
            for want in self.wants:
                groups = self._groups(want)
                for state in of_call[want.expression.node].values():
                    given: list[Any] = [torch.empty(0, *axes[want.expression.node])]
                    if groups is not None:
                        given.append(Groups(np.zeros(0, np.int64), groups))
                    if getattr(state, "places", False):
                        given.append(Places(none, none))
                    if not self.kept:
                        state.update(*given)
                    if groups is not None:
                        state.grow(groups)
        if self.table is not None:
            missing = self.table.number - len(self.group_counts)
            self.group_counts = np.pad(self.group_counts, (0, missing))

    def _groups(self, want: Want) -> int | None:
        """How many groups an expression's accumulators have; None where they are not grouped."""
        if want.pairs is not None:
            return want.pairs.number
        return None if self.table is None else self.table.number

    def keep(self, groups: npt.NDArray[np.int64]) -> None:
        """Keep these groups alone, renumbered in this order: the others have been written out."""
        index = torch.from_numpy(groups)
        for of_call in self.states:
            for states in of_call.values():
                for key, state in states.items():
                    states[key] = state.select(index)
        self.group_counts = self.group_counts[groups]


_X = ast.Name("x")


def _is_plain(want: Want) -> bool:
    """Whether the rows themselves are wanted, of every token, and nothing of them is kept."""
    return want.expression.node == _X and not want.raw and want.key_axis is None


def _copy(values: Tensor) -> Tensor:
    """A copy on the CPU, half precision widened; from a GPU it may still be under way."""
    values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    if values.is_cpu:
        return values.clone(memory_format=torch.contiguous_format)
    memory = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
    return memory.copy_(values, non_blocking=True)


def grouped(
    scene: Scene,
    kept: npt.NDArray[np.bool_],
    table: GroupTable | None,
    there: Sequence[Predicate],
) -> tuple[Selection, int]:
    """The selection of a mask, its rows numbered by a table where they are grouped.

    And how many rows were dropped because a key is undefined: not all of ``there`` hold.
    """
    if table is None:
        return Selection(scene, kept), 0
    known = kept
    for has_key in there:
        known = known & has_key(scene.batch)[0]
    index = table.index(scene.batch, known)
    nowhere = int(np.count_nonzero(kept) - np.count_nonzero(known))
    return Selection(scene, known, Groups(index, table.number)), nowhere


def _all_finite(states: Mapping[Hashable, Any]) -> bool:
    """Whether running means prove, for next to nothing, that no value so far was NaN or infinite.

    On a CPU only: on a GPU reading the answer would wait for the device.
    """
    return any(getattr(state, "proves_finite", False) for state in states.values())
