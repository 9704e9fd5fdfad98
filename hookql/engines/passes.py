"""Passes: what is selected of a batch before its forward pass, during it, and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field
from torch import Tensor

from hookql.data.batches import Batch
from hookql.detectors import Detector, Place, with_signals
from hookql.engines.outcome import Outcome
from hookql.errors import Diagnostic, ModelError
from hookql.jobs import grouped
from hookql.models.ports import HookPoint
from hookql.models.signals import read_signals
from hookql.plan import Plan
from hookql.selection import Read, Scene, Selection

Taken = Mapping[Place, int]
"""The calls of each place whose rows were reduced in an earlier pass over the same contexts."""


@define(eq=False)
class Pass:
    """One pass after another. Nothing counts of a pass that does not come to ``finish``.

    But for what detectors reduced of it, which ``taken`` says and the next pass over the same
    contexts must be told. With ``hold`` they reduce nothing before ``finish``.
    """

    plan: Plan
    outcome: Outcome
    hold: bool = False
    scenes: dict[str, Scene] = field(factory=dict)
    selections: list[Selection | None] = field(factory=list)
    undefined: list[int] = field(factory=list)
    predicted: bool = True
    muted: bool = False  # whether a pass runs of which nothing counts
    _failure: Exception | None = None

    def taps(self) -> dict[HookPoint, Callable[[Tensor], None]]:
        """What to call with each hook point's tensor."""

        def heard(tap: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
            return lambda tensor: None if self.muted else tap(tensor)

        users: dict[HookPoint, list[tuple[Detector, str]]] = {}
        for detector in self.outcome.detectors.values():
            for operand, point in detector.points.items():
                users.setdefault(point, []).append((detector, operand))
        taps = {point: _dispatch(of_point) for point, of_point in users.items()}
        if (logits := self.plan.logits) is not None:
            others = taps.get(logits)
            taps[logits] = self._predict if others is None else _both(others, self._predict)
        return {point: heard(tap) for point, tap in taps.items()}

    def begin(self, batch: Batch, taken: Taken | None = None, read: Read | None = None) -> bool:
        """Take up a batch; whether it has to run at all. If not, it is finished.

        ``read`` makes rows of tensors whose tokens do not lie as the batch's do.
        """
        plan = self.plan
        self.scenes = {"text": Scene(batch, self.outcome.width, plan.columns, read)}
        if batch.target is not None:
            self.scenes["target"] = Scene(batch.target, self.outcome.width, plan.columns)
        self.selections = [None] * len(plan.selectors)
        self.undefined = [0] * len(plan.selectors)
        later = False
        for number in range(len(plan.selectors)):
            if plan.own(number) or plan.signals(number):
                later = True
            else:
                self._select(number)
        if not later and not any(s.count for s in self.selections if s is not None):
            self._count()
            return False
        self.predicted, self._failure = plan.logits is None, None
        for place, detector in self.outcome.detectors.items():
            stream = plan.probe.seen[place.point].layout.stream
            before = 0 if taken is None else taken[place]
            detector.begin(self.scenes[stream], self.selections, taken=before, hold=self.hold)
        return True

    def expect(self, taken: Taken | None) -> None:
        """A pass is to come: should it fail before it begins, ``taken`` is all that was reduced."""
        for place, detector in self.outcome.detectors.items():
            detector.taken = 0 if taken is None else taken[place]

    def ready(self) -> bool:
        """Whether all that is needed of a pass has been seen."""
        detectors = self.outcome.detectors.values()
        if self.muted:
            return True
        return self.predicted and all(d.fired == d.seen.calls for d in detectors)

    def failures(self) -> list[Exception]:
        """What went wrong in a detector, or in reading the prediction: a model may swallow it."""
        found = [self._failure, *(d.failure for d in self.outcome.detectors.values())]
        return [failure for failure in found if failure is not None]

    def finish(self) -> None:
        """The pass is over: select what waited for the prediction, count, let detectors finish."""
        for number in range(len(self.plan.selectors)):
            if self.plan.signals(number) and not self.plan.own(number):
                self._select(number)
        self._count()
        for detector in self.outcome.detectors.values():
            detector.finish(self.selections)

    def abandon(self) -> Taken:
        """Let go of a pass that failed; the calls of it that were reduced all the same."""
        self._failure = None
        self.scenes, self.selections = {}, []
        for detector in self.outcome.detectors.values():
            detector.drop()
        return {place: d.taken for place, d in self.outcome.detectors.items()}

    def _select(self, number: int) -> None:
        selector, predicate = self.plan.selectors[number], self.plan.predicates[number]
        scene = self.scenes[selector.stream]
        kept, undefined = (scene.batch.rows, 0) if predicate is None else predicate(scene.batch)
        table = self.outcome.tables.get((selector.keys, selector.stream))
        selection, nowhere = grouped(scene, kept, table, self.plan.has(selector.keys))
        self.selections[number] = selection
        self.undefined[number] = undefined + nowhere

    def _count(self) -> None:
        """Count the tokens that selectors kept, and those at which they are undefined."""
        for number, selection in enumerate(self.selections):
            self.outcome.kept[number] += 0 if selection is None else selection.count
            self.outcome.undefined[number] += self.undefined[number]

    def _predict(self, logits: Tensor) -> None:
        """Read what the model predicts of the batch off its logits."""
        scene = self.scenes["text"]
        wanted = frozenset[str]().union(*(c.signals for c in self.plan.columns.values()))
        wanted |= frozenset[str]().union(*(p.signals for p in self.plan.predicates if p))
        try:
            point = self.plan.logits
            assert point is not None
            rows = scene.rows(self.plan.probe.seen[point].layout, logits)
            if len(rows) != math.prod(scene.size):
                raise _too_few_logits(len(rows), scene.size)
            with_signals(scene, read_signals(rows.reshape(*scene.size, -1), scene.batch, wanted))
        except Exception as error:
            self._failure = error
            raise
        self.predicted = True


def _too_few_logits(rows: int, size: tuple[int, int]) -> ModelError:
    message = f"the model gave logits of {rows} tokens for a batch of {size[0]} x {size[1]}"
    help = "call it with `logits_to_keep=0`: the query asks for the prediction at every token"
    return ModelError(Diagnostic("unaligned", message, help=help))


def _dispatch(users: Sequence[tuple[Detector, str]]) -> Callable[[Tensor], None]:
    def tap(tensor: Tensor) -> None:
        for detector, operand in users:
            detector.observe(operand, tensor)

    return tap


def _both(
    first: Callable[[Tensor], None], second: Callable[[Tensor], None]
) -> Callable[[Tensor], None]:
    def tap(tensor: Tensor) -> None:
        second(tensor)
        first(tensor)

    return tap
