"""The local engine: one forward pass over the batches, in this process."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from attrs import define, field, frozen

from hookql.data.batches import EVERYTHING, Batch
from hookql.detectors import out_of_memory
from hookql.engines.cached import Cached
from hookql.engines.failures import Failure, device_lost, model_failed, reason_of, skipped_of
from hookql.engines.generating import Generator
from hookql.engines.outcome import Outcome
from hookql.engines.parts import checksum, halves, padded_tokens
from hookql.engines.passes import Pass, Taken
from hookql.errors import DataError, Diagnostic, HookQLError, UsageError
from hookql.models.hooks import StopForward, hooked, leaving, observing
from hookql.models.precision import calm, casting, keeping_casts
from hookql.plan import Plan

__all__ = ["OnError", "Outcome", "Sink", "Work", "run"]

Sink = Callable[[Outcome, Batch], None]
OnError = Literal["stop", "skip"]


@frozen(eq=False)
class Work:
    """What an engine is given: batches, and the model inputs of each, or of a part of it."""

    batches: Iterable[Batch]
    inputs: Callable[[Batch], Mapping[str, Any]]


def run(
    plan: Plan,
    work: Work,
    *,
    width: int,
    tick: Callable[[Batch], None] = lambda batch: None,
    sink: Sink | None = None,
    group_bytes: int = 1 << 30,
    outcome: Outcome | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_error: OnError = "stop",
) -> Outcome:
    """Run the plan's model over batches and their model inputs, stopping after the last hook.

    ``width`` is at least the longest context. ``sink(outcome, batch)`` is called after every batch.
    What is kept of groups may hold ``group_bytes``. The model is as it was afterwards, whatever
    happens.

    An ``outcome`` of an earlier run of the same work, left early, is continued: the batches that it
    has done are read but not run. Once ``stop()`` says so no further batch is run, and the
    outcome is ``interrupted``. Batches that do not fit into memory are run in parts. With
    ``on_error="skip"`` contexts on which the model fails are left out and listed in the outcome,
    and the rows of a pass are held until it is over.

    Raises:
        ModelError: where the model fails on a batch, or memory does not suffice for a single
            context, and with ``skip`` only where it is the device that fails; where a detector
            fails on a tensor.
        UsageError: where there are too many groups.
        DataError: where the batches done are not those that the outcome has done.
    """
    outcome = Outcome.of(plan, width) if outcome is None else outcome
    outcome.interrupted = False
    started = time.perf_counter() - outcome.seconds
    module = plan.model.module
    passes = Pass(plan, outcome, hold=on_error == "skip")
    generation, generator = plan.query.generation, None
    if generation is not None:
        generator = Generator(plan, passes, generation.arguments)
    runner = _Runner(plan, work.inputs, passes, group_bytes, on_error == "skip", generator)
    done, pinned = 0, 0
    with observing(module), keeping_casts(plan.model), _attached(plan, passes, generator):
        for batch in work.batches:
            done, pinned = done + 1, checksum(batch, pinned)
            if done > outcome.done:
                runner.run(batch)
                outcome.done, outcome.pinned = done, pinned
                outcome.seconds = time.perf_counter() - started
                if sink is not None:
                    sink(outcome, batch)
                check_bytes(outcome, group_bytes)
            elif done == outcome.done and pinned != outcome.pinned:
                raise _other_data(done)
            tick(batch)
            if batch.complete != EVERYTHING and stop():
                outcome.interrupted = True
                break
    if done < outcome.done and not outcome.interrupted:
        raise _other_data(outcome.done)
    outcome.seconds = time.perf_counter() - started
    return outcome


@contextlib.contextmanager
def _attached(plan: Plan, passes: Pass, generator: Generator | None) -> Iterator[None]:
    """The hooks of a run: they stop the pass where nothing more is needed, unless it generates."""
    module = plan.model.module
    if generator is not None:
        with generator.attached():
            yield
        return
    taps = {point: calm(plan.model, tap) for point, tap in passes.taps().items()}
    with hooked(module, taps), leaving(module, plan.leave, passes.ready):
        yield


@define(eq=False)
class _Runner:
    """Runs a batch whole or, where that does not go, in halves of its contexts, and so on."""

    plan: Plan
    inputs: Callable[[Batch], Mapping[str, Any]]
    passes: Pass
    group_bytes: int
    skip: bool
    generator: Generator | None = None
    cached: Cached = field(init=False)

    @cached.default
    def _cached(self) -> Cached:
        return Cached(self.plan, self.passes)

    def run(self, batch: Batch) -> None:
        """Run a batch of the work."""
        if self._run(batch, None):
            self.passes.outcome.halved += 1

    def _run(self, batch: Batch, taken: Taken | None) -> bool:
        """Run a batch or a part of one; whether memory did not suffice for it as it is.

        ``taken`` are the calls of detectors that had its rows in a pass that failed.
        """
        outcome, several = self.passes.outcome, len(batch.contexts) > 1
        if several and outcome.too_large is not None and padded_tokens(batch) >= outcome.too_large:
            self._run_halves(batch, taken)
            return True
        if self.generator is None and not self.passes.begin(batch, taken):
            outcome.skipped += int(batch.rows.sum())
            self.cached.note(batch, ran=False)
            return False
        check_bytes(outcome, self.group_bytes)
        # Nothing of the error may live on where memory is short: it holds the pass's tensors.
        failure = self._attempt(batch, taken)
        if failure is None:
            return False
        taken = self.passes.abandon()
        if failure.memory:
            self._make_room(batch)
        if several:
            return self._run_halves(batch, taken) or failure.memory
        outcome.failed += int(batch.mask.sum())
        outcome.skipped_contexts += skipped_of(batch, failure.reason)
        return False

    def _run_halves(self, batch: Batch, taken: Taken | None) -> bool:
        first, second = (self._run(half, taken) for half in halves(batch))
        return first or second

    def _attempt(self, batch: Batch, taken: Taken | None) -> Failure | None:
        """The forward pass. Raises ModelError for a failure that no part of the batch can mend."""
        several = len(batch.contexts) > 1
        try:
            fed = batch
            if self.generator is not None:
                fed = self.generator(batch, taken)
            else:
                _forward(self.plan, self.cached.inputs(batch, self.inputs(batch)))
            for swallowed in self.passes.failures():
                raise swallowed
        except HookQLError:
            raise
        except Exception as error:
            for other in self.passes.failures():
                if isinstance(other, HookQLError):
                    raise other from None
                if not out_of_memory(other):
                    raise model_failed(batch, other) from other
            memory = out_of_memory(error)
            if (self.skip and not device_lost(error)) or (memory and several):
                return Failure(reason_of(error), memory)
            raise model_failed(batch, error) from error
        if self.generator is None:
            self.passes.finish()
        else:
            self.passes.outcome.generated += self.generator.made
        self._succeeded(fed, padded_tokens(batch))
        return None

    def _succeeded(self, batch: Batch, size: int) -> None:
        self.cached.note(batch, ran=True)
        outcome = self.passes.outcome
        mask = batch.given[1]
        outcome.tokens += int(mask.sum())
        outcome.padding += int((~mask).sum())
        if batch.feeding is not None:
            outcome.spared += int(batch.rows.sum() - mask.sum())
        outcome.batches += 1
        if outcome.too_large is None or size < outcome.too_large:
            outcome.fits = max(outcome.fits, size)

    def _make_room(self, batch: Batch) -> None:
        outcome, size = self.passes.outcome, padded_tokens(batch)
        if len(batch.contexts) > 1:
            outcome.too_large = min(size, outcome.too_large or size)
            outcome.fits = outcome.fits if outcome.fits < size else 0
        gc.collect()
        if self.plan.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _forward(plan: Plan, inputs: Mapping[str, Any]) -> None:
    with contextlib.suppress(StopForward), casting(plan.model):
        plan.model.module(**inputs)


def _other_data(done: int) -> DataError:
    batches = "batch is not the one" if done == 1 else f"{done:,} batches are not those"
    message = f"the data's first {batches} that the run before had done"
    advice = "the data, or how it is cut into batches, has changed: begin anew"
    return DataError(Diagnostic("data-changed", message, help=advice))


def check_bytes(outcome: Outcome, limit: int) -> None:
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
