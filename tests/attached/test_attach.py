"""`attach`: which modules, whose hooks, and passes that go on as they would."""

from __future__ import annotations

import copy
import gc
import pickle
import resource
from typing import Any

import pytest
import torch
from torch import nn

import hookql
from hookql.attached import Detector, LayerActivationDetector, StatisticsDetector, attach
from hookql.models.load import Model
from tests.attached.made import Counting, Failing, batch, by_hand, gpt2, hook_count


def test_a_class_is_made_for_each_match_and_an_instance_is_shared() -> None:
    """As the user says: fresh ones by a class or a function, one by an instance."""
    model, _ = gpt2()
    one = Counting()
    given: dict[str, Any] = {
        "transformer.h[0:2].attn": one,
        "h[0:2].mlp": Counting,
        "@resid_post[0]": [one],
    }
    with attach(model, given) as found:
        model(**batch())
    assert 3 == one.metadata["calls"]
    assert ["transformer.h.0.attn", "transformer.h.1.attn", "transformer.h.0.mlp",
            "transformer.h.1.mlp", "transformer.h.0"] == list(found)  # fmt: skip
    assert [one] == found["transformer.h.0.attn"] == found["transformer.h.1.attn"]
    fresh = found["transformer.h.0.mlp"][0]
    assert fresh is not found["transformer.h.1.mlp"][0]
    assert 1 == fresh.metadata["calls"]
    assert fresh.id != one.id


def test_overlapping_keys_show_a_call_once() -> None:
    """One detector that two keys put at the same place sees each call once."""
    model, _ = gpt2()
    one = Counting()
    with attach(model, {"h[0]": one, "@resid_post[0]": one, "h[0]:input": one}):
        model(**batch())
    assert 2 == one.metadata["calls"]


def test_a_call_says_where_and_when() -> None:
    """`self.call` knows the path, the batch, the keywords, ids and mask; only while it is shown."""
    model, _ = gpt2()
    seen: list[Any] = []

    class Asking(Detector):
        def process_activations(
            self, module: nn.Module, input: tuple[Any, ...], output: Any
        ) -> None:
            call = self.call
            assert call.mask is not None
            seen.append((call.path, call.batch, call.mask.tolist(), output is None))
            assert model.get_submodule(call.path) is module
            assert call.ids is not None
            assert torch.equal(inputs["input_ids"], call.ids)

    inputs = batch(["abc", "a"], side="left")
    asking = Asking()
    with attach(model, {"h[1]:input": asking}):
        model(**inputs)
        model(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    mask = [[True, True, True], [False, False, True]]
    assert [("transformer.h.1", 0, mask, True), ("transformer.h.1", 1, mask, True)] == seen
    with pytest.raises(hookql.UsageError):
        _ = asking.call


def test_a_disabled_detector_is_not_shown_calls() -> None:
    """`disable` and `enable`, and `clear_captured`."""
    model, _ = gpt2()
    one = Counting()
    with attach(model, {"h[0]": one}):
        one.disable()
        model(**batch())
        assert {} == one.get_captured()
        one.enable()
        model(**batch())
    assert 1 == one.get_captured()["calls"]
    assert not one.tensor_metadata["last"].requires_grad
    one.clear_captured()
    assert {} == one.get_captured()


def test_what_a_model_computes_stays_the_same() -> None:
    """The logits are bit for bit those without detectors; train mode and gradients too."""
    model, _ = gpt2()
    model.train()
    inputs = batch()

    def trained() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        return loss.detach(), model.transformer.h[0].attn.c_attn.weight.grad.clone()

    bare = trained()
    with attach(model, {"** except lm_head": LayerActivationDetector, "**:input": Counting()}):
        looked_at = trained()
        assert model.training
    assert torch.equal(bare[0], looked_at[0])
    assert torch.equal(bare[1], looked_at[1])


def test_contexts_may_be_left_in_any_order() -> None:
    """Each takes its own hooks off; a user's own hook stays."""
    model, _ = gpt2()
    calls: list[int] = []
    handle = model.transformer.h[0].register_forward_hook(lambda *_: calls.append(1))
    before = hook_count(model)
    first, second = Counting(), Counting()
    one, two = attach(model, {"h[*]": first}), attach(model, {"h[0]": second})
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    model(**batch())
    assert {} == first.metadata
    assert 1 == second.metadata["calls"]
    two.__exit__(None, None, None)
    assert before == hook_count(model)
    assert [1] == calls
    handle.remove()


def twice(model: nn.Module, detector: Detector) -> None:
    """Two passes with a detector."""
    with attach(model, {"h[0]": detector}):
        model(**batch())
        model(**batch())


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()])
def test_hooks_are_removed_after_an_exception(error: BaseException) -> None:
    """Whatever ends the pass, from a detector or from the user's own code."""
    model, _ = gpt2()
    before = hook_count(model)
    with pytest.raises((hookql.ModelError, KeyboardInterrupt)):
        twice(model, Failing(error))
    with pytest.raises(type(error)), attach(model, {"h[0]": Counting}):
        raise error
    assert before == hook_count(model)


def test_a_thousand_rounds_leave_nothing() -> None:
    """Neither hooks nor memory grow over 1,000 rounds of attaching and detaching."""
    model, _ = gpt2()
    inputs = batch(["ab"])
    before = hook_count(model)

    def rounds(number: int) -> None:
        for _ in range(number):
            with attach(model, {"h[0]": LayerActivationDetector, "h[1].mlp": Counting()}):
                pass
        with attach(model, {"h[0]": LayerActivationDetector}):
            model(**inputs)
        gc.collect()

    rounds(20)
    objects, peak = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds(1000)
    assert before == hook_count(model)
    assert len(gc.get_objects()) - objects < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # kB


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_shows_each_call_once(reentrant: bool) -> None:
    """What a backward pass runs again is not shown again."""
    model, _ = gpt2()
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    runs: list[int] = []
    model.transformer.h[0].ln_1.register_forward_hook(lambda *_: runs.append(1))
    one = Counting()
    with attach(model, {"h[0].ln_1": one}):
        inputs = batch()
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    assert 2 == len(runs)
    assert 1 == one.metadata["calls"]


def test_a_module_that_runs_twice_is_shown_twice() -> None:
    """A loop inside the model is no recomputation."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Twice the layer."""
            y: torch.Tensor = self.layer(self.layer(x))
            return y

    one = Counting()
    with attach(Twice(), {"layer": one}) as found:
        assert ["layer"] == list(found)
        Twice()(torch.ones(1, 4))
        assert {} == one.metadata
    model = Twice()
    with attach(model, {"layer": one}):
        model(torch.ones(1, 4))
    assert 2 == one.metadata["calls"]


def test_autocast_and_inference_mode() -> None:
    """Sums stay float64 and states ordinary tensors, whatever the pass is run under."""
    model, _ = gpt2()
    inputs = batch()
    statistics, kept = StatisticsDetector("mean", "cov"), LayerActivationDetector("float32")
    with attach(model, {"h[0].mlp": [statistics, kept]}):
        with torch.inference_mode():
            model(**inputs)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            model(**inputs)
    rows = torch.cat([t[inputs["attention_mask"].bool()] for t in kept.get_captured()]).double()
    found = statistics.get_captured()
    assert ["bfloat16", 2] == [kept.metadata["dtype"], kept.metadata["calls"]]
    assert not any(tensor.is_inference() for tensor in kept.get_captured())
    torch.testing.assert_close(found["mean"], rows.mean(0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found["cov"], rows.T.cov(correction=0), rtol=1e-4, atol=1e-7)


def test_hookqls_own_passes_are_not_shown() -> None:
    """A query over the same model, with its probe, is nothing that a detector sees."""
    model, tokenizer = gpt2()
    one = Counting()
    with attach(model, {"h[0]": one}):
        hookql.run("capture mean from h[0]", model=model, tokenizer=tokenizer, texts=["hello"])
        assert {} == one.metadata
        model(**batch())
    assert 1 == one.metadata["calls"]


def test_copies_and_pickles_of_a_model_have_no_detectors() -> None:
    """A copy made meanwhile keeps hooks that do nothing: nobody would remove them."""
    model, _ = gpt2()
    one = Counting()
    with attach(model, {"h[0]": one}):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for each in copies:
            each(**batch())
    assert {} == one.metadata


def test_smollm2_by_keyword(smollm2: Model) -> None:
    """Llama's attention is called by keyword: its keywords are there, and so is its input."""
    seen: list[Any] = []

    class Keywords(Detector):
        def process_activations(
            self, module: nn.Module, input: tuple[Any, ...], output: Any
        ) -> None:
            seen.append((len(input), "hidden_states" in self.call.kwargs, self.call.tensor.shape))

    module: Any = smollm2.module
    ids = smollm2.tokenizer("The cat sat", return_tensors="pt")
    width = module.config.hidden_size
    layer = LayerActivationDetector()
    given = {"model.layers[0].self_attn:input": Keywords(), "@resid_post[3]": layer}
    with attach(smollm2, given), torch.no_grad():
        smollm2.module(**ids)
    assert [(0, True, (1, ids["input_ids"].shape[1], width))] == seen
    expected = by_hand(smollm2.module, "model.layers.3", dict(ids))
    assert torch.equal(expected, layer.get_captured()[0])
