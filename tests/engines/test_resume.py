"""Runs that are left early and continued: the same bits as a run in one go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import hookql
from hookql.data.batches import EVERYTHING, Batch
from hookql.engines.local import Outcome
from tests.engines.planted import (
    DATA,
    WORDS,
    Bound,
    above,
    assert_same,
    bound,
    counted,
    failing,
    left_clean,
    tree,
)

QUERIES = {
    "plain": "capture sum, std, max, top(x, k=3), quantile(x, 0.5), cov from h[*]",
    "groups": "capture sum, std, top(x, k=2) from h[*] by row.label, position",
    "surprisal": "capture sum from h[*] where surprisal > 3 by row.label",
    "own values": "capture sum, count from h[*] where norm(x) > 1.2 by row.label",
    "undefined": "capture count, sum from h[1] where next > 5",
}


@functools.cache
def of(query: str) -> Bound:
    """A query bound to the tiny GPT-2, to be run often."""
    return bound(query, "gpt2")


def after(batches: int) -> Callable[[], bool]:
    """To be asked after each batch: stop once there were so many."""
    asked = iter(range(1, 10_000))
    return lambda: next(asked) >= batches


@pytest.mark.parametrize("query", QUERIES)
def test_a_run_continued_is_the_run_in_one_go(query: str) -> None:
    """Stopped after each batch in turn and continued, tables of groups and all: bit for bit."""
    case = of(QUERIES[query])
    whole = case.run()
    for batches in range(1, whole.done):
        outcome = case.run(stop=after(batches))
        assert (True, batches) == (outcome.interrupted, outcome.done)
        left_clean(case)
        assert outcome is case.run(outcome=outcome)
        assert not outcome.interrupted
        assert_same(tree(case, whole), tree(case, outcome), exactly=True)
        assert counted(whole) == counted(outcome)
        assert (whole.tokens, whole.padding, whole.batches, whole.pinned) == (
            outcome.tokens, outcome.padding, outcome.batches, outcome.pinned
        )  # fmt: skip


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_what_memory_sufficed_for_is_remembered(on_error: str) -> None:
    """A continued run splits beforehand what the one before it found too large: the same bits."""
    case = of(QUERIES["plain"])
    with failing(case.module, "transformer.h.1", above(40)):
        whole = case.run(on_error=on_error)
        outcome = case.run(on_error=on_error, stop=after(2))
        case.run(on_error=on_error, outcome=outcome)
    assert whole.halved > 1
    assert_same(tree(case, whole), tree(case, outcome), exactly=True)
    assert (whole.halved, whole.fits, whole.too_large) == (
        outcome.halved, outcome.fits, outcome.too_large
    )  # fmt: skip


def test_batches_that_are_done_are_not_run_again() -> None:
    """Nor given to the sink; the progress bar is told of them."""
    case = of(QUERIES["plain"])
    outcome = case.run(stop=after(2))
    told: list[Batch] = []
    ticked: list[Batch] = []
    with failing(case.module, "transformer.h.0", lambda _: False) as passes:
        case.run(outcome=outcome, sink=lambda _, batch: told.append(batch), tick=ticked.append)
    assert outcome.done == len(ticked) == passes.number + 2 == len(told) + 2


def test_the_sink_sees_every_batch_done() -> None:
    """Called once it is counted, whether or not it had to be run."""
    case = bound("capture sum from h[0] where sample == 2", "gpt2", batch_size=2)
    seen: list[tuple[int, int, float]] = []

    def sink(outcome: Outcome, batch: Batch) -> None:
        seen.append((outcome.done, outcome.tokens + outcome.skipped, batch.complete))

    outcome = case.run(sink=sink)
    assert list(range(1, outcome.done + 1)) == [done for done, _, _ in seen]
    assert sum(map(len, WORDS)) == seen[-1][1]
    assert EVERYTHING == seen[-1][2]


def test_a_sink_may_fail() -> None:
    """A full disk, say: its error comes out as it is, and the model is as it was."""
    case = of(QUERIES["plain"])

    def sink(outcome: Outcome, batch: Batch) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        case.run(sink=sink)
    left_clean(case)


def test_asked_to_stop_after_the_last_batch_a_run_is_complete() -> None:
    """There is nothing left to be interrupted."""
    case = of(QUERIES["plain"])
    whole = case.run()
    assert not case.run(stop=after(whole.done)).interrupted
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images = bound("capture sum from embeddings", "vit", inputs={"pixel_values": pixels},
                   batch_size=2)  # fmt: skip
    assert not images.run(stop=after(3)).interrupted
    outcome = images.run(stop=after(2))
    assert outcome.interrupted
    images.run(outcome=outcome)
    assert_same(tree(images, images.run()), tree(images, outcome), exactly=True)


CHANGED: dict[str, Any] = {
    "a word": [{**row, "text": row["text"].replace("two", "six")} for row in DATA],
    "the order": DATA[::-1],
    "fewer": DATA[:2],
    "lengths": [{**row, "text": row["text"] + "x"} for row in DATA],
}


@pytest.mark.parametrize("change", CHANGED)
def test_other_data_cannot_be_continued(change: str) -> None:
    """Batches that hold other tokens than those done before: an error, not a mixture."""
    case = of(QUERIES["plain"])
    whole = case.run()
    outcome = case.run(stop=after(whole.done - 1))
    other = bound(QUERIES["plain"], case.module, data=CHANGED[change])
    with pytest.raises(hookql.DataError) as caught:
        other.run(outcome=outcome)
    assert "data-changed" == caught.value.code
    left_clean(case)


def test_other_batches_cannot_be_continued() -> None:
    """The same data cut in another way."""
    case = of(QUERIES["plain"])
    outcome = case.run(stop=after(2))
    other = bound(QUERIES["plain"], case.module, tokens_per_batch=40)
    with pytest.raises(hookql.DataError):
        other.run(outcome=outcome)
