"""The local engine: one forward pass over the batches, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field
from torch import Tensor

from hookql.assembly import bytes_a_group, group_tables, make_detectors
from hookql.data.batches import Batch
from hookql.detectors import Detector, Place, memory_advice, with_signals
from hookql.errors import Diagnostic, HookQLError, ModelError, UsageError
from hookql.jobs import grouped
from hookql.models.hooks import StopForward, hooked, leaving, observing
from hookql.models.ports import HookPoint
from hookql.models.signals import read_signals
from hookql.plan import Plan
from hookql.predicates.groups import GroupTable
from hookql.selection import SPAN, PairTable, Scene, Selection

Sink = Callable[["Outcome", int], None]


@define(eq=False)
class Outcome:
    """What a run leaves: detectors with their states, and what was counted."""

    detectors: Mapping[Place, Detector]
    tables: Mapping[object, GroupTable]  # the groups, by (keys, stream)
    pairs: Mapping[object, PairTable]  # the (group, key) pairs of ragged keys, by selector
    group_bytes: Mapping[object, int]  # about what each group holds, likewise
    kept: list[int]  # tokens kept, for each selector that does not ask for a place's values
    undefined: list[int]  # tokens dropped because it was undefined there, likewise
    tokens: int = 0  # tokens that entered the model
    batches: int = 0
    skipped: int = 0  # tokens of batches none of whose rows was wanted, never run
    padding: int = 0
    width: int = 1  # what a chunk's positions are counted in, for `place`
    seconds: float = 0.0

    @classmethod
    def of(cls, plan: Plan, width: int) -> Outcome:
        """Of a plan, before anything has run."""
        tables = group_tables(plan)
        pairs: dict[object, PairTable] = {}
        detectors = make_detectors(plan, tables, pairs)
        numbers = len(plan.selectors)
        sizes: dict[object, int] = dict(bytes_a_group(plan).items())
        return cls(detectors, tables, pairs, sizes, [0] * numbers, [0] * numbers, width=width)

    def place(self, order: Any) -> tuple[Any, Any, Any]:
        """The (sample, chunk, position) of a row's place in the data, or of an array of them."""
        sample, rest = order // SPAN, order % SPAN
        return sample, rest // self.width, rest % self.width


def run(
    plan: Plan,
    work: Iterable[tuple[Batch, Mapping[str, Any]]],
    *,
    width: int,
    tick: Callable[[Batch], None] = lambda batch: None,
    sink: Sink | None = None,
    group_bytes: int = 1 << 30,
) -> Outcome:
    """Run the plan's model over batches and their model inputs, stopping after the last hook.

    ``width`` is at least the longest context. ``sink(outcome, complete)`` is called whenever all
    samples below an index have run. What is kept of groups may hold ``group_bytes``. The model is
    as it was afterwards, whatever happens. Raises ModelError where the model fails on a batch or a
    detector fails on a tensor, UsageError where there are too many groups.
    """
    outcome = Outcome.of(plan, width)
    started = time.perf_counter()
    module = plan.model.module
    passes = Pass(plan, outcome)
    with (
        observing(module),
        hooked(module, passes.taps()),
        leaving(module, plan.leave, passes.ready),
    ):
        for batch, inputs in work:
            runs = passes.begin(batch)
            _check_bytes(outcome, group_bytes)
            if runs:
                _forward(plan, batch, inputs)
                passes.finish()
                outcome.tokens += int(batch.mask.sum())
                outcome.padding += int((~batch.mask).sum())
                outcome.batches += 1
            else:
                outcome.skipped += int(batch.mask.sum())
            if sink is not None and batch.complete:
                sink(outcome, batch.complete)
            _check_bytes(outcome, group_bytes)
            tick(batch)
    outcome.seconds = time.perf_counter() - started
    return outcome


@define(eq=False)
class Pass:
    """One batch after another: what is selected of it before its pass, and after."""

    plan: Plan
    outcome: Outcome
    scenes: dict[str, Scene] = field(factory=dict)
    selections: list[Selection | None] = field(factory=list)
    predicted: bool = True

    def taps(self) -> dict[HookPoint, Callable[[Tensor], None]]:
        """What to call with each hook point's tensor."""
        users: dict[HookPoint, list[tuple[Detector, str]]] = {}
        for detector in self.outcome.detectors.values():
            for operand, point in detector.points.items():
                users.setdefault(point, []).append((detector, operand))
        taps = {point: _dispatch(of_point) for point, of_point in users.items()}
        if (logits := self.plan.logits) is not None:
            others = taps.get(logits)
            taps[logits] = self._predict if others is None else _both(others, self._predict)
        return taps

    def begin(self, batch: Batch) -> bool:
        """Take up a batch; whether it has to run at all."""
        plan = self.plan
        self.scenes = {"text": Scene(batch, self.outcome.width, plan.columns)}
        if batch.target is not None:
            self.scenes["target"] = Scene(batch.target, self.outcome.width, plan.columns)
        self.selections = [None] * len(plan.selectors)
        later = False
        for number in range(len(plan.selectors)):
            if plan.own(number) or plan.signals(number):
                later = True
            else:
                self._select(number)
        if not later and not any(s.count for s in self.selections if s is not None):
            return False
        self.predicted = plan.logits is None
        for place, detector in self.outcome.detectors.items():
            stream = plan.probe.seen[place.point].layout.stream
            detector.begin(self.scenes[stream], self.selections)
        return True

    def ready(self) -> bool:
        """Whether all that is needed of a pass has been seen."""
        detectors = self.outcome.detectors.values()
        return self.predicted and all(d.fired == d.seen.calls for d in detectors)

    def finish(self) -> None:
        """The pass is over: select what waited for the prediction, and let detectors finish."""
        for number in range(len(self.plan.selectors)):
            if self.plan.signals(number) and not self.plan.own(number):
                self._select(number)
        for detector in self.outcome.detectors.values():
            detector.finish(self.selections)

    def _select(self, number: int) -> None:
        selector, predicate = self.plan.selectors[number], self.plan.predicates[number]
        scene = self.scenes[selector.stream]
        kept, undefined = (scene.batch.mask, 0) if predicate is None else predicate(scene.batch)
        table = self.outcome.tables.get((selector.keys, selector.stream))
        selection, nowhere = grouped(scene, kept, table, self.plan.has(selector.keys))
        self.selections[number] = selection
        self.outcome.kept[number] += selection.count
        self.outcome.undefined[number] += undefined + nowhere

    def _predict(self, logits: Tensor) -> None:
        """Read what the model predicts of the batch off its logits."""
        scene = self.scenes["text"]
        wanted = frozenset[str]().union(*(c.signals for c in self.plan.columns.values()))
        wanted |= frozenset[str]().union(*(p.signals for p in self.plan.predicates if p))
        with_signals(scene, read_signals(logits, scene.batch, wanted))
        self.predicted = True


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


def _check_bytes(outcome: Outcome, limit: int) -> None:
    """Refuse to fill the memory with groups."""
    if not outcome.tables:
        return
    jobs = [job for d in outcome.detectors.values() for job in d.jobs.values() if job.table]
    held = sum(job.nbytes for job in jobs)
    # Groups that this batch brings have no memory yet: said before it is asked for. How much that
    # will be is a guess, twice too high at times.
    coming = [outcome.tables[k].number * n for k, n in outcome.group_bytes.items()]
    held = max(held, sum(coming) // 2)
    if held > limit:
        groups = max(table.number for table in outcome.tables.values())
        message = (
            f"the {groups:,} groups so far hold {held / 1e6:,.0f} MB, more than the "
            f"{limit / 1e6:,.0f} MB that they may"
        )
        advice = "group by something of fewer values, capture fewer modules, or give --group-memory"
        raise UsageError(Diagnostic("too-many-groups", message, help=advice))


def _forward(plan: Plan, batch: Batch, inputs: Mapping[str, Any]) -> None:
    try:
        plan.model.module(**inputs)
    except StopForward:
        pass
    except HookQLError:
        raise
    except Exception as error:
        samples = sorted({s.index for c in batch.contexts for s in c.samples})
        rows, positions = batch.mask.shape
        message = f"the model failed on a batch of {rows} x {positions} tokens"
        held = f"samples {samples[0]} to {samples[-1]}" if samples else "no samples"
        held = f"sample {samples[0]}" if len(samples) == 1 else held
        notes = (f"{type(error).__name__}: {error}", f"the batch holds {held}")
        advice = memory_advice(error)
        raise ModelError(Diagnostic("model-failed", message, help=advice, notes=notes)) from error
