"""What a live plan leaves behind: nothing. And the wrappers and copies of models under it."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hookql
from tests.live.seen import alone, check, hooks, ids_of, near, plan_for, recorded
from tests.tiny import tiny


def test_a_thousand_rounds() -> None:
    """Entering and leaving adds no hook, no attribute and no memory."""
    model, tokenizer, _ = tiny("gpt2")
    before, attributes = hooks(model), set(vars(model))
    plan = plan_for(model, tokenizer, "capture mean from transformer.h[*]")
    ids = ids_of(1, 2)

    def rounds(number: int) -> None:
        for turn in range(number):
            with plan:
                if turn % 100 == 0:
                    model(ids)
            if turn % 100 == 50:
                plan.reset()
        gc.collect()

    rounds(200)
    tracemalloc.start()
    rounds(100)
    held = tracemalloc.get_traced_memory()[0]
    rounds(900)
    grown = tracemalloc.get_traced_memory()[0] - held
    tracemalloc.stop()
    assert grown < 50_000, grown
    assert before == hooks(model)
    assert attributes == set(vars(model))
    assert "generate" not in vars(model)


@pytest.mark.parametrize("how", ["error", "reset", "nested", "unseen"])
def test_hooks_are_gone(how: str) -> None:
    """Whatever happens inside, the model is afterwards as it was."""
    model, tokenizer, _ = tiny("gpt2")
    plan, other = plan_for(model, tokenizer), plan_for(model, tokenizer)
    mine = model.transformer.h[1].register_forward_hook(lambda *_: None)
    before, attributes = hooks(model), dict(vars(model))
    if how == "error":
        with pytest.raises(KeyboardInterrupt), plan:
            raise KeyboardInterrupt
    elif how == "reset":
        with plan:
            number = hooks(model)
            plan.reset()
            assert number == hooks(model)
    elif how == "nested":
        with plan:
            number = hooks(model)
            with other:
                model.generate(ids_of(1, 3), max_new_tokens=2, do_sample=False)
            assert number == hooks(model)
    else:
        with pytest.raises(hookql.HookQLError), plan:
            model(inputs_embeds=torch.zeros(1, 3, 32))
    assert before == hooks(model)
    assert list(attributes) == list(vars(model))
    assert mine.id in model.transformer.h[1]._forward_hooks


def test_entered_twice() -> None:
    """A plan can be entered again once it was left, and goes on counting."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with recorded(model) as seen, torch.no_grad():
        for _ in range(3):
            with plan:
                model(ids_of(2, 4))
    check(plan.result(), np.concatenate([each.reshape(-1, 32) for each in seen]))


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "state_dict"])
def test_copies(how: str) -> None:
    """A copy made inside the `with` is a plain model: what runs there is not counted."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    ids = ids_of(2, 5)
    with plan, torch.no_grad():
        if how == "deepcopy":
            other = copy.deepcopy(model)
        elif how == "pickle":
            other = pickle.loads(pickle.dumps(model))
        elif how == "torch.save":
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            other = torch.load(file, weights_only=False)
        else:
            other = tiny("gpt2")[0]
            other.load_state_dict(model.state_dict())
        assert torch.equal(model(ids).logits, other(ids).logits)
        arguments: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        output = other.generate(ids, **arguments)
        assert torch.equal(output, type(model).generate(other, ids, **arguments))
    near(plan.result(), alone(model, ids.tolist()))
    with torch.no_grad():
        other(ids)
    assert 10 == int(plan.result()["count"])


def test_distributed_is_seen_through() -> None:
    """Passes of a DistributedDataParallel are those of what it wraps; gradients are its own."""
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model, tokenizer, _ = tiny("gpt2")
        wrapped = nn.parallel.DistributedDataParallel(model)
        plan = plan_for(wrapped, tokenizer)
        with plan, recorded(model) as seen:
            wrapped(ids_of(2, 5)).logits.sum().backward()
            wrapped(input_ids=ids_of(2, 6))
        check(plan.result(), np.concatenate([each.reshape(-1, 32) for each in seen]))
        assert model.transformer.wte.weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()


def test_demo_and_smollm2(smollm2: Any) -> None:
    """The models that people begin with: a pass and a `generate` of each."""
    for model, site in (
        (hookql.load_model("demo"), "transformer.h.2"),
        (smollm2, "model.layers.2"),
    ):
        plan = hookql.compile("capture mean, var, max from @resid_post[2]").bind(model)
        texts = [model.tokenizer(text)["input_ids"] for text in ("Once upon a time", "You")]
        with plan, torch.no_grad():
            for text in texts:
                model.module(torch.tensor([text]))
            output = model.module.generate(
                torch.tensor([texts[0]]), max_new_tokens=4, do_sample=False, eos_token_id=None
            )
        near(plan.result(), alone(model.module, [*texts, output[0].tolist()[:-1]], site))
