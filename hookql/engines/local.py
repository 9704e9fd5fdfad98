"""The local engine: one forward pass over the batches, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from attrs import define

from hookql.data.batches import Batch
from hookql.detectors import Detector, Selection, memory_advice
from hookql.errors import Diagnostic, HookQLError, ModelError
from hookql.models.hooks import StopForward, hooked, leaving, observing
from hookql.models.ports import HookPoint
from hookql.plan import Plan

# A row's place in the data is one number: the sample's times this, plus the tokens before it.
_SPAN = 2**36


@define
class Outcome:
    """What a run leaves: detectors with their states, and what was counted."""

    detectors: Mapping[HookPoint, Detector]
    kept: list[int]  # tokens kept, for each mask
    undefined: list[int]  # tokens dropped because the mask was undefined there, for each mask
    tokens: int = 0  # tokens that entered the model
    batches: int = 0
    skipped: int = 0  # tokens of batches none of whose rows was wanted, never run
    padding: int = 0
    width: int = 1  # what a chunk's positions are counted in, for `place`
    seconds: float = 0.0

    def place(self, order: int) -> tuple[int, int, int]:
        """The (sample, chunk, position) of a row's place in the data."""
        sample, rest = divmod(order, _SPAN)
        return sample, rest // self.width, rest % self.width


def run(
    plan: Plan,
    work: Iterable[tuple[Batch, Mapping[str, Any]]],
    *,
    width: int,
    tick: Callable[[Batch], None] = lambda batch: None,
) -> Outcome:
    """Run the plan's model over batches and their model inputs, stopping after the last hook.

    ``width`` is at least the longest context. The model is as it was afterwards, whatever happens.
    Raises ModelError where the model fails on a batch or a detector fails on a tensor.
    """
    detectors = plan.detectors()
    masks = len(plan.masks)
    outcome = Outcome(detectors, kept=[0] * masks, undefined=[0] * masks, width=width)
    started = time.perf_counter()
    module = plan.model.module
    taps = {point: detector.observe for point, detector in detectors.items()}

    def ready() -> bool:
        return all(d.fired == d.seen.calls for d in detectors.values())

    with observing(module), hooked(module, taps), leaving(module, plan.leave, ready):
        for batch, inputs in work:
            selections = _select(plan, batch, outcome)
            if any(selection.count for selection in selections):
                for detector in detectors.values():
                    detector.begin(batch, selections)
                _forward(plan, batch, inputs)
                for detector in detectors.values():
                    detector.finish()
                outcome.tokens += int(batch.mask.sum())
                outcome.padding += int((~batch.mask).sum())
                outcome.batches += 1
            else:
                outcome.skipped += int(batch.mask.sum())
            tick(batch)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _select(plan: Plan, batch: Batch, outcome: Outcome) -> list[Selection]:
    chunk = np.array([context.chunk for context in batch.contexts], dtype=np.int64)[:, None]
    position = np.arange(batch.mask.shape[1], dtype=np.int64)
    order = batch.sample * _SPAN + chunk * outcome.width + position
    selections = []
    for number, predicate in enumerate(plan.predicates):
        kept, undefined = (batch.mask, 0) if predicate is None else predicate(batch)
        selections.append(Selection(kept, order))
        outcome.kept[number] += selections[-1].count
        outcome.undefined[number] += undefined
    return selections


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
