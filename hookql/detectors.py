"""Detectors: what stands at a site and reduces its rows as they come by.

A detector sees tensors inside the forward pass, takes the rows that masks keep, works out the value
expressions and updates accumulators at once. Nothing of a tensor is kept longer than its batch; no
value is read back from a GPU, unless a predicate asks for the site's own values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from hookql.errors import Diagnostic, HookQLError, ModelError
from hookql.expressions import Expression, Rows, prepare
from hookql.jobs import Job
from hookql.language import ast
from hookql.models.ports import HookPoint
from hookql.models.probe import Seen, varying_calls
from hookql.models.views import View
from hookql.predicates.evaluate import Predicate
from hookql.predicates.values import Values
from hookql.selection import Scene, Selection


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, a device's or the machine's, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _NO_MEMORY)


# What torch and CUDA's libraries say in a plain RuntimeError.
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "_alloc_failed")


def memory_advice(error: Exception) -> str | None:
    """What helps where memory ran out; None for every other error."""
    if not out_of_memory(error):
        return None
    return "run smaller batches: `--tokens-per-batch` or `--batch-size`"


@frozen
class Place:
    """What `x` is somewhere: a hook point, and how its rows are to be seen."""

    point: HookPoint
    view: View | None = None

    def __str__(self) -> str:
        return str(self.point)


@frozen(eq=False)
class Watched:
    """All that a plan wants of one place, ready for detectors to be made of.

    ``masks`` are the predicates, by the number of their selector, that need this place's own values
    or the model's prediction; ``values`` are the expressions that they ask for.
    """

    place: Place
    seen: Mapping[str, Seen]  # of "x", and of "input" where some expression needs it
    masks: Mapping[int, Predicate]
    values: Mapping[ast.Expression, Expression]
    shared: tuple[Expression, ...]  # that several selectors need: where it pays, once on all rows
    waits: bool  # whether the model's prediction has to be known first


class Detector:
    """Reduces one place's rows: a `Job` for each selector."""

    def __init__(self, watched: Watched, jobs: Mapping[int, Job]) -> None:
        self.watched = watched
        self.jobs = jobs
        self.seen = watched.seen["x"]
        self.fired = 0  # the calls that came in this pass
        self.taken = 0  # the calls whose rows are in the jobs, of this pass or one before it
        self._holds = False
        self._scene: Scene
        self._selections: Sequence[Selection | None] = ()
        self._shared: tuple[Expression, ...] = ()  # of this batch
        self._inputs: list[Tensor | None] = []
        self._held: list[dict[str, Tensor]] = []
        self.failure: Exception | None = None  # of `observe`: a model may swallow what is raised

    @property
    def points(self) -> dict[str, HookPoint]:
        """The hook points that it reads, by the operand each is."""
        return {name: seen.point for name, seen in self.watched.seen.items()}

    def begin(
        self,
        scene: Scene,
        selections: Sequence[Selection | None],
        *,
        taken: int = 0,
        hold: bool = False,
    ) -> None:
        """Expect the pass over a batch, with the selection of each selector by number.

        None stands for one that is only known later, or differs from place to place. The first
        ``taken`` calls have been reduced in an earlier pass over these rows, which did not come to
        its end: they are not again. With ``hold`` nothing is reduced until the pass is over.
        """
        self._scene = scene
        self._selections = selections
        self._shared = self._worth_sharing()
        self._holds = hold or self.watched.waits
        self.drop()
        self.fired, self.taken = 0, taken

    def _worth_sharing(self) -> tuple[Expression, ...]:
        """The shared expressions that all rows of this batch make no dearer than those kept.

        Rare tokens under several masks are fewer than all, even where one stands under two.
        """
        rows = math.prod(self._scene.size)
        found = []
        for expression in self.watched.shared:
            users = [n for n, job in self.jobs.items() if expression.node in job.states[0]]
            chosen = [self._selections[number] for number in users]
            if sum(rows if kept is None else kept.count for kept in chosen) > rows:
                found.append(expression)
        return tuple(found)

    def drop(self) -> None:
        """Let go of what is held of a pass."""
        self._inputs, self._held, self.failure = [], [], None

    def observe(self, operand: str, tensor: Tensor) -> None:
        """Take in a tensor. Raises ModelError naming the module if that fails."""
        try:
            if operand == "input":
                # The module may change its input before its output comes.
                needed = len(self._inputs) >= self.taken
                self._inputs.append(self._rows(operand, tensor).clone() if needed else None)
            else:
                self._observe(tensor)
        except Exception as error:
            # A model may catch what is raised inside its forward; `finish` raises it then.
            self.failure = self.failure or error
            raise

    def finish(self, selections: Sequence[Selection | None]) -> None:
        """Say that the pass is over, and what is selected now that the prediction is known.

        Raises ModelError if the module ran too seldom, and the error of `observe` where the model
        swallowed it.
        """
        if self.failure is not None:
            raise self.failure
        if self.fired != self.seen.calls:
            raise varying_calls(self.seen.point, self.seen.calls)
        self._selections = selections
        for call, operands in enumerate(self._held, start=self.taken):
            self._guarded(call, operands)
        self.drop()

    def _observe(self, tensor: Tensor) -> None:
        if self.fired >= self.seen.calls:
            raise varying_calls(self.seen.point, self.seen.calls)
        call, self.fired = self.fired, self.fired + 1
        if call < self.taken:
            return
        operands = {"x": self._rows("x", tensor)}
        if "input" in self.watched.seen:
            given = self._inputs[call] if call < len(self._inputs) else None
            if given is None:
                raise varying_calls(self.watched.seen["input"].point, self.seen.calls)
            operands["input"] = given
        if self._holds:
            # The model may change its tensors before its prediction is known.
            self._held.append({name: rows.clone() for name, rows in operands.items()})
        else:
            self._guarded(call, operands)
            self.taken = call + 1

    def _rows(self, operand: str, tensor: Tensor) -> Tensor:
        """A tensor as (U * s, *axes), or as (B * S, *axes) where all rows are reckoned with."""
        seen, (batch, positions) = self.watched.seen[operand], self._scene.fed
        rows = self._scene.rows(seen.layout, tensor.detach())
        if rows.shape[0] != batch * positions:
            message = f"`{seen.point}` gave {rows.shape[0]} rows for a batch of {batch, positions}"
            raise ModelError(Diagnostic("unaligned", message))
        view = self.watched.place.view
        rows = self._scene.spread(rows) if self._whole else rows
        return rows if view is None or operand != "x" else view(rows)

    @property
    def _whole(self) -> bool:
        """Whether expressions are worked out on all rows of a batch, and not on those kept."""
        return bool(self._shared or self.watched.values)

    def _guarded(self, call: int, operands: dict[str, Tensor]) -> None:
        """Reduce, and name the module where that fails."""
        try:
            self._reduce(call, operands)
        except HookQLError:
            raise
        except Exception as error:
            name, shape = self.seen.point, tuple(operands["x"].shape)
            message = f"the statistics of `{name}` failed on rows of shape {shape}"
            notes = (f"{type(error).__name__}: {error}",)
            advice = memory_advice(error)
            raise ModelError(
                Diagnostic("detector-failed", message, help=advice, notes=notes)
            ) from error

    def _reduce(self, call: int, operands: dict[str, Tensor]) -> None:
        known: dict[ast.Expression, Tensor] = {}
        selections = list(self._selections)
        if self._whole:
            rows = Rows(operands, self._leaves(operands["x"].device))
            prepare([*self._shared, *self.watched.values.values()], rows)
            known = {e.node: e(rows) for e in self._shared}
            known |= {node: e(rows) for node, e in self.watched.values.items()}
            values = {node: self._value(e, rows) for node, e in self.watched.values.items()}
            for number, predicate in self.watched.masks.items():
                if predicate.values:
                    selections[number] = self.jobs[number].select(self._scene, predicate, values)
        for number, job in self.jobs.items():
            selection = selections[number]
            assert selection is not None
            if call == 0:
                job.count(selection)
            if selection.count:
                job.update(call, operands, selection, known, fed=not self._whole)

    def _leaves(self, device: torch.device) -> dict[ast.Expression, Tensor]:
        """The token columns that expressions over all rows need."""
        wanted = (*self._shared, *self.watched.values.values())
        return {leaf: self._scene.column(leaf, device) for e in wanted for leaf in e.leaves}

    def _value(self, expression: Expression, rows: Rows) -> Values:
        """One number a token, for a predicate, (B, S)."""
        value = expression(rows).reshape(self._scene.size).cpu().numpy()
        defined = np.array(True)
        for leaf in expression.leaves:
            defined = defined & self._scene.values(leaf).defined
        for key in expression.keys:  # a weight that is not there is no 0
            defined = defined & self._scene.sees(key, (bool(self.seen.causal), self.seen.window))
        return Values(value, np.broadcast_to(defined, self._scene.size))


def with_signals(scene: Scene, signals: Mapping[str, Values]) -> None:
    """Put the model's own prediction into a scene's batch."""
    scene.batch = evolve(scene.batch, signals=signals)
