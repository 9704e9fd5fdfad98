"""Kept rows in the place of a model: the plan's own detectors reduce them, and nothing runs.

Where, by, expressions and statistics are the ordinary code. Batches are contexts as they come, so
that the rows of each lie together in the file that they were kept in.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from attrs import evolve
from torch import Tensor

from hookql.data.batches import EVERYTHING, Batch, collate
from hookql.data.encode import Context
from hookql.detectors import Detector, Place
from hookql.engines.held import ready
from hookql.engines.local import Sink, check_bytes
from hookql.engines.outcome import Outcome
from hookql.engines.passes import Pass
from hookql.plan import Plan
from hookql.selection import Scene, Selection


class KeptRows(Protocol):
    """Where rows come from that a model gave in an earlier run."""

    viewed: frozenset[Place]
    """The places whose rows are kept as the place sees them, its view taken already."""

    def __call__(self, place: Place, scene: Scene, wanted: npt.NDArray[np.int64]) -> Tensor:
        """A place's rows (B * S, *axes) of a batch; ``wanted`` int64 (n,) are those looked at.

        The others may be anything finite.
        """


def replay(
    plan: Plan,
    contexts: Iterable[Context],
    rows: KeptRows,
    *,
    tokens: int,
    width: int,
    tick: Callable[[Batch], None],
    sink: Sink,
    group_bytes: int,
    outcome: Outcome,
    stop: Callable[[], bool],
) -> None:
    """Reduce kept rows as a run would reduce the model's; the arguments are those of `run`.

    ``tokens`` is how many positions a batch has at most. Raises what ``rows`` does, ModelError
    where a detector fails, UsageError where there are too many groups.
    """
    started = time.perf_counter()
    passes = Pass(plan, outcome)
    pad_id = getattr(plan.feed, "pad_id", 0)
    with _as_kept(outcome, rows.viewed):
        for batch in in_order(contexts, tokens, pad_id):
            outcome.skipped += int(batch.rows.sum())
            if passes.begin(batch, None, ready):
                check_bytes(outcome, group_bytes)
                for place, detector in outcome.detectors.items():
                    _observe(place, detector, passes, rows)
                passes.finish()
            outcome.done += 1
            sink(outcome, batch)
            check_bytes(outcome, group_bytes)
            tick(batch)
            if batch.complete != EVERYTHING and stop():
                outcome.interrupted = True
                break
    outcome.seconds = time.perf_counter() - started


def in_order(contexts: Iterable[Context], tokens: int, pad_id: int) -> Iterator[Batch]:
    """Batches of successive contexts, of at most ``tokens`` positions unless one has more."""
    held: list[Context] = []
    widest = 0
    for context in contexts:
        width = max(widest, len(context.ids))
        if held and (len(held) + 1) * width > tokens:
            yield evolve(collate(held, pad_id), complete=context.samples[0].index)
            held, width = [], len(context.ids)
        held.append(context)
        widest = width
    if held:
        yield evolve(collate(held, pad_id), complete=EVERYTHING)


def _observe(place: Place, detector: Detector, passes: Pass, rows: KeptRows) -> None:
    scene = passes.scenes["text"]
    chosen = [passes.selections[number] for number in detector.jobs]
    wanted = _wanted(scene, chosen)
    for operand, point in sorted(detector.points.items()):  # `input` before `x`
        detector.observe(operand, rows(place if operand == "x" else Place(point), scene, wanted))


def _wanted(scene: Scene, chosen: list[Selection | None]) -> npt.NDArray[np.int64]:
    """The rows that selectors keep; all tokens where one looks at the rows to know."""
    known = [selection.index for selection in chosen if selection is not None]
    if len(known) < len(chosen):
        return np.flatnonzero(scene.batch.rows)
    return known[0] if len(known) == 1 else np.unique(np.concatenate(known))


@contextlib.contextmanager
def _as_kept(outcome: Outcome, viewed: frozenset[Place]) -> Iterator[None]:
    """While detectors take no view of rows that were kept through it."""
    before = {place: outcome.detectors[place].watched for place in viewed}
    for place, watched in before.items():
        outcome.detectors[place].watched = evolve(watched, place=Place(place.point))
    try:
        yield
    finally:
        for place, watched in before.items():
            outcome.detectors[place].watched = watched
