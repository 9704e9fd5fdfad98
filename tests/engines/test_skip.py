"""A model that raises on some contexts: they are left out of everything, and listed."""

from __future__ import annotations

from typing import Any

import pytest

import hookql
from hookql.data.tokens import Skipped
from hookql.engines.local import Outcome
from hookql.statistics.moments import Moments
from tests.engines.planted import (
    DATA,
    WORDS,
    Bound,
    assert_same,
    bound,
    counted,
    failing,
    left_clean,
    several,
    tree,
)
from tests.tiny import character_tokenizer

BAD = {2, 5, 11}  # they hold a character that the model cannot stand
MARK = character_tokenizer().convert_tokens_to_ids("#")
MARKED = [
    {**row, "text": "#" + row["text"]} if number in BAD else row for number, row in enumerate(DATA)
]
LEFT = [{**row, "text": ""} if number in BAD else row for number, row in enumerate(MARKED)]


def choosy(case: Bound, place: str, error: Exception | None = None) -> list[Any]:
    """Make a model fail at a module on every batch that holds the mark; the handles to undo it."""
    seen: dict[str, Any] = {}

    def begin(_: Any, args: Any, kwargs: Any) -> None:
        seen["ids"] = kwargs["input_ids"]

    def fail(*_: Any) -> None:
        if bool((seen["ids"] == MARK).any()):
            raise error or ValueError("a mark")

    root = case.module.register_forward_pre_hook(begin, with_kwargs=True)
    return [root, case.module.get_submodule(place).register_forward_pre_hook(fail)]


def skipping(case: Bound, place: str, error: Exception | None = None, **options: Any) -> Outcome:
    """A run that skips what the model fails on."""
    handles = choosy(case, place, error)
    try:
        return case.run(on_error="skip", **options)
    finally:
        for handle in handles:
            handle.remove()


QUERIES = {
    "plain": "capture sum, count, max, top(x, k=2) from h[*] capture sum from h[1] where next > 3",
    "by label": "capture sum, std from h[*] by row.label",
    "by position": "capture sum from h[*] by position",
    "by sample": "capture sum from h[1] by sample",
    "surprisal": "capture sum, count from h[*] where surprisal > 3",
    "own values": "capture sum, count from h[*] where norm(x) > 1.2 by row.label",
    "input": "capture sum(x - input) as s from h[*].mlp",
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("place", ["transformer.wte", "transformer.h.3"])
def test_nothing_of_a_skipped_sample_counts(query: str, place: str) -> None:
    """The result is that of data in which those samples are empty; its coordinates too."""
    query = QUERIES[query] + " capture sum from lm_head as all"
    case = bound(query, "gpt2", data=MARKED)
    outcome = skipping(case, place)
    left_clean(case)
    plain = bound(query, "gpt2", data=LEFT)
    expected = plain.run()
    assert_same(tree(plain, expected), tree(case, outcome))
    known = {name: n for name, n in counted(expected).items() if name not in ("read", "done")}
    assert known == {name: counted(outcome)[name] for name in known}
    assert [Skipped(n, 0, "ValueError: a mark") for n in sorted(BAD)] == sorted(
        outcome.skipped_contexts, key=lambda skipped: skipped.sample
    )
    tokens = sum(len(row["text"]) for row in LEFT)
    failed = sum(len(WORDS[n]) + 1 for n in BAD)
    assert (tokens, failed, 0) == (outcome.tokens, outcome.failed, outcome.halved)


def test_skipping_changes_nothing_where_nothing_fails() -> None:
    """Rows that wait for the pass to end give the same bits."""
    case = bound(QUERIES["plain"] + " capture sum, std from h[*].mlp by row.label as l", "gpt2")
    plain, skipped = case.run(), case.run(on_error="skip")
    assert_same(tree(case, plain), tree(case, skipped), exactly=True)
    assert counted(plain) == counted(skipped)
    assert [] == skipped.skipped_contexts


def test_chunks_of_a_split_sample() -> None:
    """Only the piece that fails is left out; the list says which."""
    texts = ["abcdef#hij", "xyz", "kl#"]
    case = bound("capture sum from h[1] by sample", "gpt2", data=texts, max_length=4)
    outcome = skipping(case, "transformer.h.0")
    assert [(0, 1), (2, 0)] == sorted((s.sample, s.chunk) for s in outcome.skipped_contexts)
    found = tree(case, outcome).dataset
    assert [0, 1] == found["sample"].values.tolist()
    assert [6, 3] == found["count"].values.tolist()


def test_every_sample_of_a_packed_context_is_listed() -> None:
    """Each with the number of its own chunk."""
    case = bound("capture count from h[1]", "gpt2", data=["abcdef", "gh#", "ij"],
                 max_length=8, overflow="pack")  # fmt: skip
    outcome = skipping(case, "transformer.h.0")
    assert [(1, 1), (2, 0)] == [(s.sample, s.chunk) for s in outcome.skipped_contexts]
    job = next(iter(outcome.detectors.values())).jobs
    assert outcome.tokens == sum(j.kept for j in job.values())


def test_memory_is_halved_and_a_context_too_large_is_skipped() -> None:
    """In this mode one context that does not fit alone does not end a run of hours."""
    case = bound("capture sum, count from h[*]", "gpt2")
    with failing(case.module, "transformer.h.1", lambda p: p.positions > 20 or several(p)):
        outcome = case.run(on_error="skip")
    left = [{**r, "text": ""} if len(r["text"]) > 20 else r for r in DATA]
    plain = bound("capture sum, count from h[*]", "gpt2", data=left)
    assert_same(tree(plain, plain.run()), tree(case, outcome))
    assert [Skipped(8, 0, "MemoryError: planted")] == outcome.skipped_contexts
    assert outcome.halved


def test_errors_of_the_query_are_not_skipped() -> None:
    """A label that is no number at one sample says so, as ever."""
    data = [{"text": "abc", "label": 1}, {"text": "def", "label": "x"}]
    case = bound("capture sum from h[1] by row.label", "gpt2", data=data)
    with pytest.raises(hookql.DataError):
        case.run(on_error="skip")
    left_clean(case)


def test_errors_of_detectors_are_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statistic that fails is no fault of a sample."""
    case = bound("capture sum from h[1]", "gpt2")

    def update(self: Moments, values: Any) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(Moments, "update", update)
    with pytest.raises(hookql.ModelError) as caught:
        case.run(on_error="skip")
    assert "detector-failed" == caught.value.code


def test_an_error_in_a_hook_is_not_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the prediction, or the rows: a mistake there would be one of every sample."""
    case = bound("capture sum from h[1] where surprisal > 1", "gpt2")

    def fails(*_: Any) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("hookql.engines.passes.read_signals", fails)
    with pytest.raises(hookql.ModelError) as caught:
        case.run(on_error="skip")
    assert "model-failed" == caught.value.code
    monkeypatch.undo()
    monkeypatch.setattr("hookql.detectors.Detector._rows", fails)
    with pytest.raises(hookql.ModelError) as caught:
        case.run(on_error="skip")
    assert "model-failed" == caught.value.code
    left_clean(case)


def test_a_device_that_is_gone_is_an_error() -> None:
    """After an error of CUDA every pass would fail: nothing is skipped for it."""
    case = bound("capture sum from h[*]", "gpt2", data=MARKED)
    lost = RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(hookql.ModelError) as caught:
        skipping(case, "transformer.h.1", lost)
    assert "device-side assert" in caught.value.notes[0]


def test_an_interrupt_is_not_skipped() -> None:
    """Ctrl-C is no error of a sample."""
    case = bound("capture sum from h[*]", "gpt2")
    with (
        failing(case.module, "transformer.h.1", lambda _: True, KeyboardInterrupt()),
        pytest.raises(KeyboardInterrupt),
    ):
        case.run(on_error="skip")
    left_clean(case)


def test_a_failure_that_depends_on_the_batch_skips_nothing() -> None:
    """Each half goes through: nothing is left out, and nothing said of memory."""
    case = bound("capture sum, count from h[*]", "gpt2")
    whole = case.run()
    with failing(case.module, "transformer.h.1", several, ValueError("too many at once")):
        outcome = case.run(on_error="skip")
    assert_same(tree(case, whole), tree(case, outcome))
    assert ([], None, 0) == (outcome.skipped_contexts, outcome.too_large, outcome.halved)
