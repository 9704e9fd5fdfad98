"""Batches that do not fit into memory: run in parts, with the numbers of the whole."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hookql
from hookql.detectors import Detector
from hookql.engines.local import Outcome
from hookql.statistics.moments import Moments
from tests import oracle
from tests.engines.planted import (
    DATA,
    WORDS,
    Bound,
    above,
    assert_same,
    bound,
    counted,
    every_second,
    failing,
    left_clean,
    several,
    tree,
)
from tests.tiny import tiny

ALL = "count, sum, std, max, top(x, k=3), hist(x, 4, -2, 2)"
WHEN = {"several": several, "every second": every_second, "above 40": above(40)}


@functools.cache
def of(query: str) -> Bound:
    """A query bound to the tiny GPT-2, to be run often; with eager attention for its weights."""
    module = tiny("gpt2")[0]
    if "@pattern" in query:
        module.set_attn_implementation("eager")
    return bound(query, module)


def halved_as_whole(case: Bound, place: str, when: Any, **options: Any) -> Any:
    """Run with planted failures and without: the same result and counts. The failing outcome."""
    whole = case.run()
    assert (0, None) == (whole.halved, whole.too_large)
    with failing(case.module, place, when, **options) as passes:
        outcome = case.run()
    assert passes.raised
    left_clean(case)
    assert outcome.halved
    assert_same(tree(case, whole), tree(case, outcome))
    assert counted(whole) == counted(outcome)
    return outcome


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(
    "place", ["transformer.wte", "transformer.h.0", "transformer.h.1.mlp", "transformer.h.3"]
)
def test_wherever_memory_runs_out(place: str, when: str) -> None:
    """Before the first hook point, between two, in the last block: nothing counts twice."""
    query = f"capture {ALL} from transformer.h[*] capture {ALL} from h[1].mlp where position > 0"
    halved_as_whole(of(query), place, WHEN[when])


@pytest.mark.parametrize("when", WHEN)
def test_at_the_head(when: str) -> None:
    """Every block has been reduced when the logits do not fit."""
    halved_as_whole(of(f"capture {ALL} from h[*], lm_head"), "lm_head", WHEN[when])


def test_after_the_last_hook() -> None:
    """The model's own end: all calls have been taken, none again."""
    halved_as_whole(of(f"capture {ALL} from h[*], output"), "", several, after=True)


QUERIES = {
    "surprisal": "capture sum, count from h[*] where surprisal > 3",
    "surprisal beside": "capture sum from h[0] where surprisal > 3 capture sum from h[1]",
    "by rank": "capture sum from h[1] where rank < 100 by row.label",
    "own values": "capture sum, count from h[*] where norm(x) > 1.2",
    "own values by": "capture sum from h[*] where x[0] > 0 by row.label",
    "undefined": "capture sum from h[*] where next > 5",
    "undefined expression": "capture mean(x[0] * surprisal) as s from h[*]",
    "by position": "capture sum, max from h[*] by position",
    "by label": "capture sum, std, top(x, k=2) from h[*] by row.label",
    "by two": "capture sum from h[2] by row.label, position where position < 9",
    "by sample": "capture sum from h[1] by sample",
    "input": "capture sum(x - input) as s from h[*].mlp",
    "shared": "capture sum(norm(x)) as s from h[*] by row.label "
    "capture sum(norm(x)) as s from h[*]",
    "quantile": "capture quantile(x, 0.25, 0.5), cov, corr, gram from h[1]",
    "pattern": "capture sum, max from @pattern[*]",
    "pattern by": "capture sum from @pattern[0] by row.label",
    "key": "capture sum(x[key=2]) as s, count from @pattern[*]",
}


@pytest.mark.parametrize("place", ["transformer.h.1", "transformer.h.3", "lm_head"])
@pytest.mark.parametrize("query", QUERIES)
def test_whatever_is_asked(query: str, place: str) -> None:
    """Selections that wait, that differ from place to place, groups, ragged keys, inputs."""
    halved_as_whole(of(QUERIES[query] + " capture sum from lm_head as all"), place, several)


def test_numpy_says_so_too() -> None:
    """Sums by hand, sample by sample, of a run in which every second batch was halved."""
    case = of(f"capture {oracle.ALL} from h[*]")
    outcome = halved_as_whole(case, "transformer.h.2", every_second)
    ids = oracle.encode(case.plan.model.tokenizer, WORDS)
    names = [f"transformer.h.{n}" for n in range(4)]
    rows = oracle.outputs_of(case.module, names, ids)
    data = tree(case, outcome).dataset
    for layer, name in enumerate(names):
        oracle.assert_agrees(data.isel(layer=layer), np.concatenate(rows[name]))


@pytest.mark.parametrize("call", [0, 1, 2])
def test_a_module_that_runs_several_times(call: int) -> None:
    """ALBERT's one layer runs three times; memory runs out in each of them."""
    layer = "encoder.albert_layer_groups.0.albert_layers.0"
    case = bound(f"capture {ALL}, sum(x - input) as change from {layer}", "albert")
    count = {"calls": 0, "pass": 0}

    def when(passes: Any) -> bool:
        if passes.number != count["pass"]:
            count["calls"], count["pass"] = 0, passes.number
        count["calls"] += 1
        return passes.rows > 1 and count["calls"] == call + 1

    halved_as_whole(case, f"{layer}.attention", when)


@pytest.mark.parametrize("when", WHEN)
def test_texts_and_targets(when: str) -> None:
    """Halves of a batch with a decoder: each stream is cut to its own longest row."""
    query = f"capture {ALL} from encoder.block[*] as e capture {ALL} from decoder.block[*] as d"
    case = bound(query, "t5", target="answer")
    for place in ("encoder.block.1", "decoder.block.0", "decoder.block.2"):
        halved_as_whole(case, place, WHEN[when])


def test_token_ids_with_what_lies_beside_them() -> None:
    """Token types of a half are those of its samples, left padding or not."""
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    ids = torch.arange(20, 40).reshape(4, 5) * mask
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids % 2 * mask}
    case = bound(f"capture {ALL} from encoder.layer[*]", "bert", inputs=inputs)
    halved_as_whole(case, "encoder.layer.1", several)


def test_pixels() -> None:
    """Inputs that are no tokens: a half is a slice of the tensors."""
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    case = bound(
        f"capture {ALL} from embeddings capture sum from ** isa Linear by sample as linear", "vit",
        inputs={"pixel_values": pixels},
    )  # fmt: skip
    halved_as_whole(case, "embeddings", several, after=True)


def test_split_and_packed_samples() -> None:
    """Chunks, and several samples in a context."""
    for overflow in ("split", "pack"):
        case = bound(
            "capture sum, std from h[*] capture sum from h[0] by chunk, sample as parts", "gpt2",
            max_length=6, overflow=overflow,
        )  # fmt: skip
        halved_as_whole(case, "transformer.h.2", several)


def test_nan_is_counted_once_and_its_place_is_right() -> None:
    """The first NaN stands where it stood."""
    case = bound("capture sum, count from h[*]", "gpt2")
    tokenizer = case.plan.model.tokenizer
    with torch.no_grad():
        case.module.transformer.wte.weight[tokenizer.convert_tokens_to_ids("y")] = float("nan")
    halved_as_whole(case, "transformer.h.3", several)


def test_what_was_reduced_is_not_reduced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block's rows of a batch that fails later go into its accumulator whole, once."""
    case = bound("capture sum from h[0], h[3]", "gpt2", data=DATA[:3], batch_size=3)
    rows: list[int] = []
    original = Moments.update

    def update(self: Moments, values: Any) -> None:
        rows.append(len(values))
        original(self, values)

    monkeypatch.setattr(Moments, "update", update)
    with failing(case.module, "transformer.h.2", several):
        case.run()
    lengths = sorted(map(len, WORDS[:3]))
    assert sum(lengths) == rows[0]
    assert lengths == sorted(rows[1:])


# --- what is remembered -------------------------------------------------------------------------


def test_later_batches_are_split_beforehand() -> None:
    """After the first failure no pass as large is tried again, and the least is remembered."""
    case = bound("capture sum from h[*]", "gpt2", data=DATA * 8, tokens_per_batch=64)
    with failing(case.module, "transformer.h.1", above(40)) as passes:
        outcome = case.run()
    sizes = [rows * positions for rows, positions in passes.sizes]
    failed = [size for size in sizes if size > 40]
    assert sorted(failed, reverse=True) == failed, "each failure was smaller than those before"
    assert len(set(failed)) == len(failed)
    assert min(failed) == outcome.too_large
    assert max(size for size in sizes if size <= 40) == outcome.fits
    assert passes.raised < outcome.halved <= outcome.done
    assert outcome.batches == len(sizes) - passes.raised


def test_counters_of_tokens() -> None:
    """Tokens that entered count once; padding is that of the passes that came through."""
    case = of("capture sum from h[*]")
    whole = case.run()
    with failing(case.module, "transformer.h.1", several):
        outcome = case.run()
    assert (whole.tokens, 0) == (outcome.tokens, outcome.padding)
    assert len(WORDS) == outcome.batches
    assert whole.done == outcome.done == outcome.halved


def test_a_half_that_nobody_wants_is_not_run() -> None:
    """Its tokens are skipped ones, though the whole batch had to be tried."""
    case = bound("capture sum from h[0] where sample == 2", "gpt2", data=DATA[:4], batch_size=4)
    with failing(case.module, "transformer.h.0", several):
        outcome = case.run()
    assert len(WORDS[2]) == outcome.tokens
    assert sum(len(WORDS[n]) for n in (0, 1, 3)) == outcome.skipped


# --- errors -------------------------------------------------------------------------------------


def test_a_single_context_that_does_not_fit_is_an_error() -> None:
    """There is nothing to halve: the error of a batch that fails, with advice."""
    case = of("capture sum from h[*]")
    case.module.train()
    with (
        failing(case.module, "transformer.h.1", lambda passes: passes.positions > 15),
        pytest.raises(hookql.ModelError) as caught,
    ):
        case.run()
    assert "model-failed" == caught.value.code
    assert "on a batch of 1 x 21 tokens" in caught.value.message
    assert "--tokens-per-batch" in str(caught.value.help)
    assert "the batch holds sample 8" in caught.value.notes
    left_clean(case)
    assert all(module.training for module in case.module.modules())


def test_memory_that_runs_out_in_a_detector_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accumulator has half taken in cannot be tried again, even if a model swallows it."""
    case = of("capture sum from h[*]")

    def update(self: Moments, values: Any) -> None:
        raise MemoryError("no room for sums")

    monkeypatch.setattr(Moments, "update", update)
    with pytest.raises(hookql.ModelError) as caught:
        case.run()
    assert "detector-failed" == caught.value.code
    left_clean(case)


class Swallowing(nn.Module):
    """Catches what its first layer's hook raises, then runs out of memory itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.layer = nn.Linear(8, 8)
        self.full = False

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Run the layer twice over, whatever happens."""
        x = self.embed(input_ids)
        with contextlib.suppress(Exception):
            x = self.layer(x)
        if self.full and len(x) > 1:
            raise MemoryError
        return x


@pytest.mark.parametrize("full", [False, True])
def test_a_model_that_swallows_a_detectors_error(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are half taken in: an error, even where the model then fails for memory."""
    case = bound("capture sum from layer", Swallowing().eval())
    case.module.full = full
    calls: list[int] = []
    original = Moments.update

    def update(self: Moments, values: Any) -> None:
        calls.append(len(values))
        if len(calls) == 1:
            raise MemoryError("no room for sums")
        original(self, values)

    monkeypatch.setattr(Moments, "update", update)
    with pytest.raises(hookql.ModelError) as caught:
        case.run()
    assert "detector-failed" == caught.value.code
    assert 1 == len(calls)


@pytest.mark.parametrize("operand", ["x", "input"])
def test_a_model_that_swallows_memory_running_out_in_a_hook(
    operand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that did not fit is not a row less: the batch is run in parts."""
    query = {"x": "capture sum from layer where norm(x) > 0", "input": "capture sum(input) as s"}
    case = bound(f"{query['input']} from layer" if operand == "input" else query["x"],
                 Swallowing().eval())  # fmt: skip
    whole = case.run()
    original = Detector._rows

    def rows(self: Detector, name: str, tensor: Any) -> Any:
        if name == operand and len(tensor) > 1:
            raise MemoryError
        return original(self, name, tensor)

    monkeypatch.setattr(Detector, "_rows", rows)
    outcome = case.run()
    assert outcome.halved == outcome.done
    assert counted(whole) == counted(outcome)
    assert_same(tree(case, whole), tree(case, outcome))


def test_other_errors_are_not_tried_again() -> None:
    """A model that raises anything else stops the run at once."""
    case = of("capture sum from h[*]")
    with (
        failing(case.module, "transformer.h.1", several, ValueError("no")) as passes,
        pytest.raises(hookql.ModelError) as caught,
    ):
        case.run()
    assert (1, "model-failed") == (passes.number, caught.value.code)
    left_clean(case)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_all_ways_of_saying_so(error: Exception) -> None:
    """Python, torch on a GPU, torch on a CPU, CUDA's libraries."""
    case = of("capture sum from h[*]")
    with failing(case.module, "transformer.h.2", several, error):
        outcome = case.run()
    assert outcome.halved == outcome.done


def test_memory_that_runs_out_while_rows_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that wait for the prediction are copied in the hook: nothing is taken in, so retried."""
    case = of("capture sum, count from h[*] where surprisal > 3")
    whole = case.run()
    original = torch.Tensor.clone

    def clone(self: Any, **options: Any) -> Any:
        if self.ndim == 2 and 32 == self.shape[1] and len(self) > 32:
            raise MemoryError
        return original(self, **options)

    monkeypatch.setattr(torch.Tensor, "clone", clone)
    outcome = case.run()
    assert outcome.halved
    assert_same(tree(case, whole), tree(case, outcome))
    assert counted(whole) == counted(outcome)


def test_an_interrupt_is_not_swallowed() -> None:
    """Ctrl-C in the middle of a pass, and of a retry: it comes out, and no hook is left."""
    case = of("capture sum from h[*]")
    case.module.train()
    with (
        failing(case.module, "transformer.h.2", lambda p: p.number > 1, KeyboardInterrupt()),
        failing(case.module, "transformer.h.1", several),
        pytest.raises(KeyboardInterrupt),
    ):
        case.run()
    left_clean(case)
    assert all(module.training for module in case.module.modules())


@pytest.mark.parametrize("place", ["transformer.h.0", "transformer.h.2", "lm_head"])
@pytest.mark.parametrize("where", ["", " where surprisal > 3", " where norm(x) > 1.2"])
def test_raw_rows_are_kept_once(place: str, where: str) -> None:
    """`values` of each block: every row of the whole run, none twice."""
    case = of(f"capture values from h[*]{where} capture sum from lm_head as all")

    def rows(outcome: Outcome) -> dict[str, tuple[Any, Any]]:
        found = {}
        for name, detector in outcome.detectors.items():
            pieces = [piece for job in detector.jobs.values() for piece in job.pieces]
            if pieces:
                order = np.concatenate([piece.order for piece in pieces])
                values = torch.cat([piece.rows for piece in pieces]).numpy()
                found[str(name)] = np.sort(order), values[np.argsort(order)]
        return found

    whole = rows(case.run())
    assert 4 == len(whole)
    with failing(case.module, place, several):
        outcome = case.run()
    halved = rows(outcome)
    assert outcome.halved
    assert list(whole) == list(halved)
    for name, (order, values) in whole.items():
        np.testing.assert_array_equal(order, halved[name][0])
        np.testing.assert_allclose(values, halved[name][1], atol=1e-5)
