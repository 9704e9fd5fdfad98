"""Promise 1: a model that HookQL has looked at is as it was, whatever happened meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookql
from hookql.binding import bind
from hookql.data.batches import collate
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.engines.local import Outcome
from hookql.engines.passes import Pass
from hookql.loading import get_model
from hookql.models import hooks
from hookql.models.mixing import Mixing
from hookql.source import open_source, open_texts
from hookql.statistics.extremes import Extreme
from hookql.statistics.moments import Moments
from tests.tiny import character_tokenizer, tiny

TEXTS = [
    "The model is looked at,",
    "not touched.",
    "a",
    "Whatever happens: nothing is left behind.",
]
QUERY = """
capture mean, std, min from ** isa linear
capture max from transformer.h[*], input, transformer.h[*].mlp:input where position >= 1
capture rms from output
"""
FAMILIES = ("gpt2", "llama", "falcon", "bert", "mixtral", "mamba", "albert")


def query_of(name: str) -> str:
    """A query that hooks a family's outputs and inputs everywhere."""
    return QUERY if name == "gpt2" else "capture mean, std, max from **, **:input"


def logits(model: nn.Module, tokenizer: Any) -> Tensor:
    """The first output of a plain, padded forward pass."""
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]


def bits(tensor: Tensor) -> bytes:
    """A tensor's bytes: NaN equals itself, 0 is not -0."""
    return tensor.detach().contiguous().numpy().tobytes()


def state(model: nn.Module) -> dict[str, Any]:
    """All of a model and of torch that a run could leave changed."""
    found: dict[str, Any] = {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "torch rng": bits(torch.random.get_rng_state()),
        "python rng": random.getstate(),
        "numpy rng": np.random.get_state()[1].tobytes(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    for name, module in model.named_modules():
        hooked = [
            tuple(hooks) if isinstance(hooks, dict) else hooks
            for attribute, hooks in sorted(vars(module).items())
            if "hook" in attribute
        ]
        found[name] = (id(module), module.training, hooked, sorted(vars(module)))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found[f"tensor {name}"] = (tensor.requires_grad, tensor.grad is None, bits(tensor))
    config = getattr(model, "config", None)
    found["config"] = None if config is None else config.to_json_string()
    return found


def hook_count(model: nn.Module) -> int:
    """How many hooks stand on a model, of all kinds."""
    return sum(
        len(hooks)
        for module in model.modules()
        for attribute, hooks in vars(module).items()
        if attribute.endswith("_hooks")
    )


def watched(model: nn.Module, during: Callable[[], None]) -> list[int]:
    """Let something happen in the first pass with hooks; the hook counts that were seen then."""
    counts: list[int] = []
    module = next(m for m in model.modules() if isinstance(m, nn.Embedding))
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        counts.append(hook_count(model))
        during()
        return original(*args, **kwargs)

    module.forward = forward
    return counts


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_bitwise_the_same(name: str) -> None:
    """Before and after a run every bit of the logits is the same, and the model is untouched."""
    model, tokenizer, _ = tiny(name)
    before, was = bits(logits(model, tokenizer)), state(model)
    hookql.run(query_of(name), model=model, tokenizer=tokenizer, texts=TEXTS, batch_size=3)
    assert was == state(model)
    assert before == bits(logits(model, tokenizer))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_bitwise_the_same_while_attached(name: str) -> None:
    """With HookQL's hooks on every module and reducing, the logits have the bits they had."""
    model, tokenizer, _ = tiny(name)
    before, already = bits(logits(model, tokenizer)), hook_count(model)
    wrapped = get_model(model, tokenizer, {})
    feed = open_source(wrapped, open_texts(None, TEXTS, None, {}), None, {}).feed
    plan = bind(hookql.check(query_of(name)), wrapped, feed)
    ids = tokenizer(TEXTS)["input_ids"]
    contexts = [
        Context(
            np.array(i), np.zeros(len(i), bool), np.zeros(len(i), np.int64), (Sample(n, "", {}),)
        )
        for n, i in enumerate(ids)
    ]
    outcome = Outcome.of(plan, 64)
    passes = Pass(plan, outcome)
    assert passes.begin(collate(contexts))
    with hooks.observing(model), hooks.hooked(model, passes.taps()):
        attached = bits(logits(model, tokenizer))
        assert len(outcome.detectors) == hook_count(model) - already
    assert passes.ready()
    assert before == attached
    assert before == bits(logits(model, tokenizer))


def test_training_flags_come_back_module_by_module() -> None:
    """A model half in training mode runs in evaluation mode, and is half in training mode after."""
    model, tokenizer, _ = tiny("gpt2")
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 0
    was = state(model)
    seen: list[bool] = []
    watched(model, lambda: seen.append(any(m.training for m in model.modules())))
    was = state(model)
    result = hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=TEXTS)
    assert was == state(model)
    assert {False} == set(seen)
    # Dropout would otherwise have made the numbers random.
    plain, _, _ = tiny("gpt2")
    wanted = hookql.run(QUERY, model=plain, tokenizer=tokenizer, texts=TEXTS)
    np.testing.assert_array_equal(wanted["output/model/rms"], result["output/model/rms"])


@pytest.mark.parametrize("grad", [True, False])
def test_gradient_mode_comes_back(grad: bool) -> None:
    """Gradients are off inside and what they were outside, and weights need them as before."""
    model, tokenizer, _ = tiny("llama")
    inside: list[bool] = []
    watched(model, lambda: inside.append(torch.is_grad_enabled()))
    was = state(model)
    with torch.set_grad_enabled(grad):
        hookql.run(
            "capture mean from model.layers[*]", model=model, tokenizer=tokenizer, texts=TEXTS
        )
        assert grad == torch.is_grad_enabled()
    assert {False} == set(inside)
    assert was == state(model)
    model(input_ids=torch.tensor([[7, 8, 9]])).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_random_numbers_are_not_drawn() -> None:
    """A run leaves the generators of torch, NumPy and Python where they were."""
    model, tokenizer, _ = tiny("gpt2")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    was = state(model)
    query = "capture mean from transformer.h[*] where random(0.5)"
    hookql.run(query, model=model, tokenizer=tokenizer, texts=TEXTS)
    assert was == state(model)
    assert torch.equal(expected, torch.rand(4))


def test_the_tokenizer_is_not_changed() -> None:
    """Padding side, pad token and truncation of the tokenizer are the user's."""
    model, _, _ = tiny("gpt2")
    tokenizer = character_tokenizer("left")
    tokenizer.pad_token = None
    was = (
        tokenizer.padding_side,
        tokenizer.pad_token,
        tokenizer.truncation_side,
        tokenizer._tokenizer.to_str(),
    )
    hookql.run("capture mean from transformer.h[*]", model=model, tokenizer=tokenizer, texts=TEXTS)
    now = (
        tokenizer.padding_side,
        tokenizer.pad_token,
        tokenizer.truncation_side,
        tokenizer._tokenizer.to_str(),
    )
    assert was == now


@pytest.mark.parametrize("accumulator", [Moments, Extreme])
def test_an_error_inside_a_detector(accumulator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accumulator that fails in a hook: one error that names the module, the model untouched."""
    model, tokenizer, _ = tiny("gpt2")
    before, was = bits(logits(model, tokenizer)), state(model)
    updates = []

    def update(self: Any, rows: Tensor) -> None:
        updates.append(rows.shape)
        if len(updates) == 6:
            raise RuntimeError("the accumulator is broken")

    monkeypatch.setattr(accumulator, "update", update)
    with pytest.raises(hookql.ModelError) as caught:
        hookql.run(
            "capture mean, max from transformer.h[*].mlp",
            model=model,
            tokenizer=tokenizer,
            texts=TEXTS,
            batch_size=1,
        )
    assert "detector-failed" == caught.value.code
    assert "`transformer.h.1.mlp:output`" in caught.value.message
    assert ("RuntimeError: the accumulator is broken",) == caught.value.notes
    assert was == state(model)
    assert before == bits(logits(model, tokenizer))


class Poisoned(nn.Module):
    """A layer that does something when a token comes by."""

    def __init__(self, inner: nn.Module, happens: Callable[[], None]) -> None:
        super().__init__()
        self.inner = inner
        self.happens = happens

    def forward(self, x: Tensor) -> Tensor:
        """Let it happen on the data, which is recognised by its batch of one sample."""
        if x.shape[0] == 1:
            self.happens()
        return self.inner(x)


def poisoned(error: BaseException) -> tuple[nn.Module, Any]:
    """A GPT-2 whose second block raises on batches of one sample (the probe's have more)."""

    def happens() -> None:
        raise error

    model, tokenizer, _ = tiny("gpt2")
    model.transformer.h[1].mlp = Poisoned(model.transformer.h[1].mlp, happens)
    return model, tokenizer


def probe_without_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the one probing pass that has a batch of one sample."""
    monkeypatch.setattr("hookql.models.probe.find_mixing", lambda *_: Mixing.NONE)


def test_an_error_inside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fails on some batch: a diagnostic with its words, and the model untouched."""
    probe_without_one_sample(monkeypatch)
    model, tokenizer = poisoned(ValueError("no such thing"))
    was = state(model)
    with pytest.raises(hookql.ModelError) as caught:
        hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=TEXTS, batch_size=1)
    assert "model-failed" == caught.value.code
    assert "ValueError: no such thing" in caught.value.notes
    assert was == state(model)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_inside_the_model(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a pass comes through as it is, and the model is untouched."""
    probe_without_one_sample(monkeypatch)
    model, tokenizer = poisoned(error())
    model.transformer.h[2].training = True
    was = state(model)
    with pytest.raises(error):
        hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=TEXTS, batch_size=1)
    assert was == state(model)


@pytest.mark.parametrize("error", [ValueError("small"), KeyboardInterrupt()])
def test_an_error_while_probing(error: BaseException) -> None:
    """What goes wrong before any data is run leaves nothing behind either."""
    model, tokenizer = poisoned(error)
    was = state(model)
    with pytest.raises((hookql.ModelError, KeyboardInterrupt)):
        hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=TEXTS)
    assert was == state(model)


def test_an_error_in_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that breaks off while the hooks are on: its error, and the model untouched."""
    model, tokenizer, _ = tiny("gpt2")
    was = state(model)
    query = "capture mean from transformer.h[*] where row.n > 1"
    with pytest.raises(hookql.DataError) as caught:
        hookql.run(
            query,
            model=model,
            tokenizer=tokenizer,
            data=[{"text": "fine", "n": 2}, {"text": "not", "n": "two"}],
            batch_size=1,
        )
    assert "mixed-types" == caught.value.code
    assert was == state(model)


def test_a_wrong_query_touches_nothing() -> None:
    """A query that does not fit the model is refused before a hook is put on."""
    model, tokenizer, _ = tiny("gpt2")
    counts = watched(model, lambda: None)
    was = state(model)
    with pytest.raises(hookql.QueryError):
        hookql.run("capture mean from h[0].nothing", model=model, tokenizer=tokenizer, texts=TEXTS)
    assert was == state(model)
    assert [] == counts


def test_hooks_are_only_there_during_a_pass() -> None:
    """In the data's pass there is one for each hook point and one to leave, then there is none.

    The probe's first pass traces every module and has more.
    """
    model, tokenizer, _ = tiny("gpt2")
    counts = watched(model, lambda: None)
    hookql.run(
        "capture mean, std from transformer.h[*] capture max from transformer.h[*], h[0].attn",
        model=model,
        tokenizer=tokenizer,
        texts=TEXTS,
    )
    assert 5 + 1 == counts[-1]
    assert 0 == hook_count(model)


def test_a_users_own_hooks_survive_and_fire() -> None:
    """Hooks of the user's own stay, keep their order, and see what they always saw."""
    model, tokenizer, _ = tiny("gpt2")
    seen: list[str] = []
    block = model.transformer.h[1]
    block.register_forward_pre_hook(lambda *_: seen.append("pre"))
    block.register_forward_hook(lambda *_: seen.append("post"))
    # One that changes the stream: HookQL must see the changed output, as a later module does.
    block.register_forward_hook(lambda module, args, out: out * 0 + 3)
    was = state(model)
    result = hookql.run(
        "capture mean, std from transformer.h[1]", model=model, tokenizer=tokenizer, texts=TEXTS
    )
    assert was == state(model)
    assert ["pre", "post"] == seen[:2]
    np.testing.assert_array_equal(3, result["mean"])
    np.testing.assert_array_equal(0, result["std"])
    seen.clear()
    logits(model, tokenizer)
    assert ["pre", "post"] == seen


class Catching(nn.Module):
    """A model that goes on after whatever goes wrong in its parts, as some do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.first = nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        self.caught = 0
        self.lasts = 0
        self.last.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.lasts += 1

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run the parts; swallow every Exception of the first."""
        x = self.embed(input_ids)
        try:
            x = self.first(x)
        except Exception:
            self.caught += 1
        return self.last(x)


def test_stopping_is_not_swallowed_by_the_model() -> None:
    """A model's own `except Exception` does not keep the pass from stopping."""
    torch.manual_seed(0)
    model = Catching().eval()
    query = "capture mean from first"
    plan_only = model.lasts
    hookql.explain(query, model=model, tokenizer=character_tokenizer())
    probing = model.lasts - plan_only
    assert probing > 0
    hookql.run(query, model=model, tokenizer=character_tokenizer(), texts=TEXTS)
    assert 2 * probing == model.lasts
    assert 0 == model.caught


@pytest.mark.parametrize("sites", ["first", "first, last"])
def test_a_detectors_error_is_not_swallowed_by_the_model(
    sites: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector's error that the model catches is reported all the same: no partial numbers."""
    model = Catching().eval()
    updates = []

    def update(self: Any, rows: Tensor) -> None:
        updates.append(rows)
        if len(updates) == 1:
            raise RuntimeError("broken")

    monkeypatch.setattr(Moments, "update", update)
    with pytest.raises(hookql.ModelError) as caught:
        hookql.run(
            f"capture mean from {sites}",
            model=model,
            tokenizer=character_tokenizer(),
            texts=TEXTS,
            batch_size=2,
        )
    assert "detector-failed" == caught.value.code
    assert "`first:output`" in caught.value.message
