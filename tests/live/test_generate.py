"""The user's own `generate`, and their own loops with a cache, under a live plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hookql
from tests.generation.plain import Text, assert_close, greedy
from tests.live.seen import QUERY, alone, ids_of, near, plan_for
from tests.tiny import BOS, PAD, tiny

PROMPTS = [ids_of(n, seed=n).tolist() for n in (9, 2, 5, 1)]
NEW = 6
GREEDY: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD}


def left(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left, and their mask."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), PAD)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def written(model: Any, ends: tuple[int, ...] = (2,), new: int = NEW) -> list[Text]:
    """The prompts' continuations by plain passes."""
    return [greedy(model, prompt, new, ends) for prompt in PROMPTS]


FAMILIES = {
    "gpt2": "transformer.h.1",
    "llama": "model.layers.1",
    "mistral-window": "model.layers.1",
    "gemma3": "model.layers.1",
    "opt": "model.decoder.layers.1",
    "bloom": "transformer.h.1",
    "mixtral": "model.layers.1",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_padded(name: str) -> None:
    """Each token that is fed counts once, with the values of the whole text."""
    model, tokenizer, _ = tiny(name)
    site = FAMILIES[name]
    ids, mask = left(PROMPTS)
    told = written(model)
    base = f"capture mean, var, max, count from {site}"
    plan = plan_for(model, tokenizer, base)
    phases = plan_for(model, tokenizer, base + " by phase")
    steps = plan_for(model, tokenizer, base + " by step during generate")
    with plan, phases, steps:
        output = model.generate(ids, attention_mask=mask, **GREEDY)
    for row, text in zip(output.tolist(), told, strict=True):
        assert text.written == row[ids.shape[1] :][: len(text.written)]
    rows = alone(model, [t.fed for t in told], site)
    near(plan.result(), rows)
    numbers = np.concatenate([t.steps for t in told])
    node = phases.result().dataset.isel(layer=0)
    for phase, keep in (("prompt", numbers < 0), ("generated", numbers >= 0)):
        assert keep.sum() == int(node["count"].sel(phase=phase))
        assert_close(rows[keep].mean(0), node["mean"].sel(phase=phase))
    node = steps.result().dataset.isel(layer=0)
    assert sorted(set(numbers[numbers >= 0].tolist())) == node["step"].values.tolist()
    for step in node["step"].values.tolist():
        keep = numbers == step
        assert keep.sum() == int(node["count"].sel(step=step))
        assert_close(rows[keep].mean(0), node["mean"].sel(step=step))


ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "by name": {"by_name": True},
    "no cache": {"use_cache": False},
    "dynamic cache": {"cache_implementation": "dynamic"},
    "chunks": {"prefill_chunk_size": 3},
    "dictionary": {"return_dict_in_generate": True, "output_logits": True},
    "hidden states": {"return_dict_in_generate": True, "output_hidden_states": True},
    "all logits": {"logits_to_keep": 0},
    "config": {"config": True},
}


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("how", ARGUMENTS)
def test_ways_of_calling(how: str, end: bool) -> None:
    """However `generate` is asked, and where some texts end early: the same rows."""
    model, tokenizer, _ = tiny("gpt2")
    given = dict(ARGUMENTS[how])
    ids, mask = left(PROMPTS)
    told = written(model, ())
    ends = (2,)
    if end:
        ends = (told[0].written[2],)
        given["eos_token_id"] = ends[0]
    told = written(model, ends)
    assert not end or len({len(t.written) for t in told}) > 1
    plan = plan_for(model, tokenizer)
    arguments = {**GREEDY, **{k: v for k, v in given.items() if k not in ("by_name", "config")}}
    if given.get("config"):
        from transformers import GenerationConfig

        arguments = {"generation_config": GenerationConfig(**arguments)}
    if given.get("by_name"):
        arguments["input_ids"] = ids
        plain = model.generate(attention_mask=mask, **arguments)
        with plan:
            output = model.generate(attention_mask=mask, **arguments)
    else:
        plain = model.generate(ids, attention_mask=mask, **arguments)
        with plan:
            output = model.generate(ids, attention_mask=mask, **arguments)
    assert torch.equal(getattr(plain, "sequences", plain), getattr(output, "sequences", output))
    near(plan.result(), alone(model, [t.fed for t in told]))


def test_little_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are reduced before all is known, as memory asks for it, are the same ones."""
    monkeypatch.setattr("hookql.live.passes._HELD", 0)
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = left(PROMPTS)
    end = written(model, ())[0].written[2]
    told = written(model, (end,))
    query = "capture mean, var, max, count from transformer.h[1]"
    plan, steps = plan_for(model, tokenizer, query), plan_for(model, tokenizer, query + " by step")
    with plan, steps:
        model.generate(ids, attention_mask=mask, **{**GREEDY, "eos_token_id": end})
    rows = alone(model, [t.fed for t in told])
    near(plan.result(), rows)
    assert 1 < plan.result().attrs["batches"]
    assert sum(len(t.fed) for t in told) == plan.result().attrs["tokens_run"]
    numbers = np.concatenate([t.steps for t in told])
    node = steps.result().dataset.isel(layer=0)
    for step in node["step"].values.tolist():
        assert_close(rows[numbers == step].mean(0), node["mean"].sel(step=step))


def test_signals() -> None:
    """What comes after a token is known of generated ones too, as `generate` is over by then."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = left(PROMPTS)
    told = written(model)
    query = "capture mean(loss) as l, mean(surprisal) as s, mean(rank) as r from @resid_post[1]"
    plan = plan_for(model, tokenizer, query + " by phase, sample")
    with plan:
        model.generate(ids, attention_mask=mask, logits_to_keep=0, **GREEDY)
    node = plan.result().dataset.isel(layer=0)
    for sample, text in enumerate(told):
        with torch.no_grad():
            logits = model(torch.tensor([text.fed])).logits[0].double()
        follow = torch.tensor(text.fed[1:])
        loss = -logits.log_softmax(-1)[:-1].gather(1, follow[:, None])[:, 0].numpy()
        own = logits[:-1].gather(1, follow[:, None])
        rank = (logits[:-1] > own).sum(-1).double().numpy()
        steps = text.steps
        for phase, keep in (("prompt", steps < 0), ("generated", steps >= 0)):
            here = node.sel(phase=phase, sample=sample)
            for name, values, at in (
                ("l", loss, keep[:-1]),
                ("r", rank, keep[:-1]),
                ("s", loss, keep[1:]),
            ):
                expected = values[at].mean() if at.any() else np.nan
                assert_close(expected, here[name], f"{name} {phase} {sample}")


def test_without_a_mask() -> None:
    """One prompt, or prompts of one length, need none; padding is guessed as `generate` does."""
    model, tokenizer, _ = tiny("gpt2")
    prompts = ids_of(3, 4, seed=8)
    told = [greedy(model, row, NEW, (2,)) for row in prompts.tolist()]
    plan = plan_for(model, tokenizer)
    with plan:
        model.generate(prompts, **GREEDY)
    near(plan.result(), alone(model, [t.fed for t in told]))
    plan.reset()
    ids, _ = left(PROMPTS)
    with plan:
        output = model.generate(ids, **GREEDY)
    told = written(model)
    same = all(
        t.written == row[ids.shape[1] :][: len(t.written)]
        for t, row in zip(told, output.tolist(), strict=True)
    )
    assert same
    near(plan.result(), alone(model, [t.fed for t in told]))


def test_a_prompt_that_holds_the_end() -> None:
    """An end inside a prompt ends nothing; a pad id that is fed as a token counts."""
    model, tokenizer, _ = tiny("gpt2")
    end = greedy(model, PROMPTS[0], NEW, ()).written[2]
    prompt = [end, *PROMPTS[0][:3], end, PAD, 9]
    told = greedy(model, prompt, NEW, (end,))
    plan = plan_for(model, tokenizer)
    ids = torch.tensor([prompt])
    with plan:
        model.generate(ids, attention_mask=torch.ones_like(ids), **{**GREEDY, "eos_token_id": end})
    near(plan.result(), alone(model, [told.fed]))


def test_sampling() -> None:
    """What is drawn is the caller's affair: the rows are those of the texts that came out."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = left(PROMPTS)
    plan = plan_for(model, tokenizer)
    arguments = {
        **GREEDY,
        "do_sample": True,
        "top_k": 0,
        "temperature": 2.0,
        "eos_token_id": [2, 3],
    }
    torch.manual_seed(5)
    bare = model.generate(ids, attention_mask=mask, **arguments)
    torch.manual_seed(5)
    with plan:
        output = model.generate(ids, attention_mask=mask, **arguments)
    assert torch.equal(bare, output)
    fed = []
    for prompt, row in zip(PROMPTS, output[:, ids.shape[1] :].tolist(), strict=True):
        ends = [n for n, token in enumerate(row) if token in (2, 3)]
        fed.append([*prompt, *row[: ends[0] + 1 if ends else len(row)]][:-1])
    near(plan.result(), alone(model, fed))


def test_an_earlier_turn() -> None:
    """A second `generate` goes on from the cache of the first: nothing is counted twice."""
    model, tokenizer, _ = tiny("llama")
    query = QUERY.replace("transformer.h", "model.layers")
    plan, second = plan_for(model, tokenizer, query), plan_for(model, tokenizer, query)
    prompt = torch.tensor([PROMPTS[0]])
    with plan:
        turn = model.generate(
            prompt, return_dict_in_generate=True, **{**GREEDY, "eos_token_id": None}
        )
        more = torch.cat([turn.sequences, torch.tensor([PROMPTS[2]])], 1)
        with second:
            output = model.generate(
                more, past_key_values=turn.past_key_values, **{**GREEDY, "eos_token_id": None}
            )
    whole = output[0].tolist()
    rows = alone(model, [whole[:-1]], "model.layers.1")
    # The first turn fed all but its last token; the second the rest.
    first = turn.sequences.shape[1] - 1
    near(plan.result(), rows)
    near(second.result(), rows[first:])


@pytest.mark.parametrize("several", [1, 2])
def test_a_loop_with_a_cache(several: int) -> None:
    """Written by hand: a prompt, then one or two tokens at a time."""
    model, tokenizer, _ = tiny("llama")
    plan = plan_for(model, tokenizer, QUERY.replace("transformer.h", "model.layers"))
    text = ids_of(3, 10, seed=4)
    with plan, torch.no_grad():
        for _ in range(2):
            out = model(text[:, :4], use_cache=True)
            for at in range(4, 10, several):
                out = model(
                    text[:, at : at + several],
                    past_key_values=out.past_key_values,
                    use_cache=True,
                )
                half = plan.result() if at == 6 else None
                if half is not None:
                    assert 0 < int(half["count"])
    rows = alone(model, text.tolist(), "model.layers.1")
    near(plan.result(), np.concatenate([rows, rows]))


def test_a_loop_with_a_cache_and_padding() -> None:
    """The mask grows with the tokens; positions are those of the text."""
    model, tokenizer, _ = tiny("llama")
    query = "capture mean, count from model.layers[1] by position"
    plan = plan_for(model, tokenizer, query)
    ids, mask = left(PROMPTS)
    told = [greedy(model, prompt, 4, ()) for prompt in PROMPTS]
    with plan, torch.no_grad():
        out = model(
            ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
        )
        for step in range(3):
            ids = torch.tensor([[t.written[step]] for t in told])
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            out = model(
                ids,
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=out.past_key_values,
                use_cache=True,
            )
    rows = alone(model, [t.fed for t in told], "model.layers.1")
    places = np.concatenate([np.arange(len(t.fed)) for t in told])
    node = plan.result().dataset.isel(layer=0)
    assert sorted(set(places.tolist())) == node["position"].values.tolist()
    for place in node["position"].values.tolist():
        keep = places == place
        assert keep.sum() == int(node["count"].sel(position=place)), place
        assert_close(rows[keep].mean(0), node["mean"].sel(position=place), f"{place}")


class Stop(BaseException):
    """As Ctrl-C is, no Exception."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("at", [0, 3])
def test_generate_that_fails(error: type[BaseException], at: int) -> None:
    """The calls before the one that failed count; what comes afterwards too."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    calls: list[int] = []

    def hook(*_: Any) -> None:
        calls.append(1)
        if len(calls) == at + 1:
            raise error("planted")

    ids, mask = left(PROMPTS)
    told = written(model, ())
    handle = model.transformer.h[2].register_forward_hook(hook)
    arguments = {**GREEDY, "eos_token_id": None}
    with plan:
        with pytest.raises(error):
            model.generate(ids, attention_mask=mask, **arguments)
        failed = plan.result()
        model.generate(ids, attention_mask=mask, **arguments)
        with torch.no_grad():
            model(ids_of(2, 6))
    handle.remove()
    rows = alone(model, [t.fed for t in told])
    part = [t.ids[: t.prompt + at - 1] for t in told] if at else []
    if at:
        near(failed, alone(model, part))
    assert sum(map(len, part)) == int(failed["count"])
    plain = alone(model, ids_of(2, 6).tolist())
    parts = [rows, plain] if not at else [alone(model, part), rows, plain]
    near(plan.result(), np.concatenate(parts))


def test_a_result_inside_generate() -> None:
    """Of a `generate` that goes on nothing is in the result yet, and all of it later."""
    model, tokenizer, _ = tiny("gpt2")
    plan = plan_for(model, tokenizer)
    counts: list[int] = []

    class Looks:
        """Called by `generate` between two passes."""

        def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
            counts.append(int(plan.result()["count"]))
            return torch.zeros(len(ids), dtype=torch.bool)

    ids, mask = left(PROMPTS)
    with plan, pytest.warns(hookql.HookQLWarning, match="nothing-seen"):
        model.generate(ids, attention_mask=mask, stopping_criteria=[Looks()], **GREEDY)
    assert {0} == set(counts)
    near(plan.result(), alone(model, [t.fed for t in written(model)]))


@pytest.mark.parametrize("held", [0, 1 << 30])
@pytest.mark.parametrize("end", [None, 3])
def test_criteria_of_ones_own(end: int | None, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end a text without an end id: padding behind it is no token. Without ends all go on."""
    monkeypatch.setattr("hookql.live.passes._HELD", held)
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = left(PROMPTS)
    numbers = (2, 6, 4, 1)
    told = [greedy(model, p, n if end else 6, ()) for p, n in zip(PROMPTS, numbers, strict=True)]
    width = ids.shape[1]
    pad = told[0].written[-1] if end is None else BOS

    class Ends:
        """Each sample after so many tokens of its own."""

        def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
            return torch.tensor([ids.shape[1] - width >= number for number in numbers])

    plan = plan_for(model, tokenizer)
    with plan:
        output = model.generate(
            ids,
            attention_mask=mask,
            stopping_criteria=[Ends()],
            **{**GREEDY, "eos_token_id": end, "pad_token_id": pad},
        )
    assert [t.written for t in told] == [
        row[: len(t.written)] for row, t in zip(output[:, width:].tolist(), told, strict=True)
    ]
    near(plan.result(), alone(model, [t.fed for t in told]))


def test_prompts_alone() -> None:
    """`during prompt` leaves out what is generated."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = left(PROMPTS)
    plan = plan_for(model, tokenizer, QUERY + " during prompt")
    with plan, torch.no_grad():
        model.generate(ids, attention_mask=mask, **GREEDY)
        model(ids_of(2, 6))
    near(plan.result(), alone(model, [*PROMPTS, *ids_of(2, 6).tolist()]))


def test_generation_alone() -> None:
    """`during generate` looks at `generate` alone, not at passes of the user's."""
    model, tokenizer, _ = tiny("gpt2")
    ids, mask = left(PROMPTS)
    plan = plan_for(model, tokenizer, QUERY + " during generate")
    with plan, torch.no_grad():
        model(ids_of(2, 6))
        model.generate(ids, attention_mask=mask, **GREEDY)
        model(ids_of(2, 6))
    near(plan.result(), alone(model, [t.fed for t in written(model)]))


def test_settings_that_are_taken_away() -> None:
    """`eos_token_id=None` beats the model's own: what would be an end is a token like others."""
    model, tokenizer, _ = tiny("gpt2")
    told = greedy(model, PROMPTS[0], NEW, ())
    model.generation_config.eos_token_id = told.written[1]
    model.generation_config.cache_implementation = "hybrid"
    plan = plan_for(model, tokenizer)
    ids = torch.tensor([PROMPTS[0]])
    with plan:
        output = model.generate(ids, **{**GREEDY, "eos_token_id": None})
    assert told.ids == output[0].tolist()
    near(plan.result(), alone(model, [told.fed]))
