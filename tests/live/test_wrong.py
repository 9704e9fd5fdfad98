"""What is said of models, queries and calls that a live plan does not follow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookql
from tests.live.seen import QUERY, ids_of, plan_for
from tests.tiny import tiny
from tests.told import told

Golden = Callable[[str, str], None]
Patch = pytest.MonkeyPatch


def bind(query: str = QUERY, change: Callable[[Any], Any] = lambda model: model) -> Any:
    """A query bound to a small GPT-2, changed beforehand."""
    model, tokenizer, _ = tiny("gpt2")
    return plan_for(change(model), tokenizer, query)


def compiled(model: nn.Module) -> Any:
    """As torch.compile makes it."""
    return torch.compile(model, backend="eager")


def compiled_in_place(model: nn.Module) -> nn.Module:
    """As `model.compile()` leaves it."""
    model.compile(backend="eager")
    return model


def compiled_block(model: Any) -> nn.Module:
    """One of its blocks is compiled."""
    model.transformer.h[2].compile(backend="eager")
    return model  # type: ignore[no-any-return]


def scripted_part(model: Any) -> nn.Module:
    """One of its modules is a traced one."""
    model.transformer.h[1].mlp.act = torch.jit.trace(nn.GELU(), torch.zeros(1, 2, 8))
    return model  # type: ignore[no-any-return]


def test_models_and_queries(golden: Golden, tmp_path: Path) -> None:
    """Refused when they are bound."""
    cases = {
        "compiled": lambda _: bind(change=compiled),
        "compiled in place": lambda _: bind(change=compiled_in_place),
        "compiled block": lambda _: bind(change=compiled_block),
        "traced part": lambda _: bind(change=scripted_part),
        "data parallel": lambda _: bind(change=nn.DataParallel),
        "no module": lambda _: hookql.compile(QUERY).bind(3),  # type: ignore[arg-type]
        "values": lambda _: bind("capture values from h[1]"),
        "into": lambda _: bind('capture mean from h[1] into "x.nc"'),
        "arguments of generate": lambda _: bind(QUERY + " during generate(max_new_tokens=3)"),
        "unknown module": lambda _: bind("capture mean from h[9]"),
        "no generate": lambda _: plan_for(
            tiny("bert")[0], None, "capture mean from encoder.layer[0] during generate"
        ),
        "encoder-decoder generates": lambda _: plan_for(
            tiny("t5")[0], None, "capture mean from decoder.block[0] during generate"
        ),
        "a column of data": lambda _: bind('capture mean from h[1] where row.label == "a"'),
        "roles": lambda _: bind("capture mean from h[1] where role == user"),
        "within": lambda _: bind('capture mean from h[1] where within "a"'),
        "no tokenizer": lambda _: plan_for(
            tiny("gpt2")[0], None, 'capture mean from h[1] where token == "a" or special'
        ),
    }
    golden("live/binding.txt", told(cases, tmp_path))


def under(call: Callable[[Any], object], query: str = QUERY, name: str = "gpt2") -> Any:
    """A call of a model under a plan; afterwards an ordinary one must count as ever."""
    model, tokenizer, _ = tiny(name)
    plan = plan_for(model, tokenizer, query)
    if name != "t5" and "looks" not in query and "loss" not in query:
        with plan:
            with pytest.raises(hookql.HookQLError):
                call(model)
            with torch.no_grad():
                model(ids_of(2, 5))
        assert 10 == int(plan.result()["count"])
        plan.reset()
    with plan:
        call(model)


def generate(**given: Any) -> Callable[[Any], object]:
    """A `generate` of two prompts."""

    def call(model: Any) -> object:
        arguments = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, **given}
        return model.generate(ids_of(2, 4), **arguments)

    return call


def unknown_past(model: Any) -> object:
    """A loop whose beginning was not seen."""
    other = tiny("gpt2")[0]
    past = other(ids_of(2, 3), use_cache=True).past_key_values
    return model(ids_of(2, 1), past_key_values=past)


def looking_ahead(model: Any) -> object:
    """A loop of a plan that asks for what comes next."""
    past = model(ids_of(2, 3), use_cache=True).past_key_values
    return model(ids_of(2, 1), past_key_values=past)


def test_calls(golden: Golden, tmp_path: Path) -> None:
    """Refused when they are made; what is called right afterwards counts as ever."""
    ids = ids_of(2, 4)
    packed = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]])
    query = "capture count, mean from transformer.h[1]"

    def case(call: Callable[[Any], object], said: str = query) -> Callable[[Patch], object]:
        return lambda patch: under(call, said)

    cases: dict[str, Callable[[Patch], object]] = {
        "beams": case(generate(num_beams=2)),
        "several sequences": case(generate(num_return_sequences=2, do_sample=True)),
        "assisted": case(lambda model: generate(assistant_model=model)(model)),
        "prompt lookup": case(generate(prompt_lookup_num_tokens=2)),
        "static cache": case(generate(cache_implementation="static")),
        "no ids": case(lambda m: m.generate(inputs_embeds=torch.zeros(1, 3, 32), max_new_tokens=2)),
        "no prompt at all": case(lambda m: m.generate(max_new_tokens=2)),
        "mask of another shape": case(generate(attention_mask=torch.ones(2, 6))),
        "embeddings": case(lambda m: m(inputs_embeds=torch.zeros(1, 3, 32))),
        "ids of one axis": case(lambda m: m(torch.tensor([5, 6, 7]))),
        "mask of four axes": case(lambda m: m(ids, attention_mask=torch.ones(2, 1, 4, 4))),
        "mask too wide": case(lambda m: m(ids, attention_mask=torch.ones(2, 7))),
        "packed": case(lambda m: m(ids, position_ids=packed)),
        "unknown past": case(unknown_past),
        "looks ahead": case(looking_ahead, "capture mean(loss) from transformer.h[1]"),
        "one logit": case(
            lambda m: m(ids, logits_to_keep=1), "capture mean(loss) from transformer.h[1]"
        ),
        "decoder not given": lambda _: under(
            lambda m: m(ids, decoder_inputs_embeds=torch.zeros(2, 4, 32)),
            "capture mean from decoder.block[0]",
            "t5",
        ),
        "entered twice": lambda _: twice(),
        "busy": lambda _: busy(),
    }
    golden("live/calls.txt", told(cases, tmp_path))


def twice() -> None:
    """A plan inside its own `with`."""
    plan = bind()
    with plan, plan:
        pass


def busy() -> None:
    """A result that is asked for in the midst of a pass."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    model.transformer.h[2].register_forward_hook(lambda *_: plan.result() and None)
    with plan:
        model(ids_of(1, 3))


def test_another_thread_is_seen() -> None:
    """Passes of another thread are passes of the model."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    with plan:
        thread = threading.Thread(target=lambda: model(ids_of(2, 5)))
        thread.start()
        thread.join()
    assert 10 == int(plan.result()["count"])
