"""What reviewers found: calls that look like a text's next token and are not, and the like."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn
from torch.utils.checkpoint import checkpoint

import hookql
from hookql.live import passes
from tests.tiny import VOCABULARY, character_tokenizer, tiny

Golden = Callable[[str, str], None]
QUERY = "capture count, mean from transformer.h[1]"
GIVEN: dict[str, Any] = {
    "max_new_tokens": 6,
    "do_sample": False,
    "pad_token_id": 0,
    "eos_token_id": None,
}


def ids_of(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Ids of ordinary tokens, int64 (rows, columns)."""
    return torch.randint(7, VOCABULARY, (rows, columns), generator=torch.manual_seed(seed))


def bound(query: str = QUERY, family: str = "gpt2") -> tuple[Any, Any]:
    """A model and a plan."""
    model, tokenizer, _ = tiny(family)
    return model, hookql.compile(query).bind(model, tokenizer)


class Calls(hf.LogitsProcessor):
    """Does something at each step of a `generate`."""

    def __init__(self, act: Callable[[torch.Tensor], object]) -> None:
        self.act = act

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores as they are."""
        self.act(input_ids)
        return scores


class Wrapped(nn.Module):
    """A model inside another one that has `generate` call the inner one's."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config
        self.generation_config = inner.generation_config

    def forward(self, input_ids: Any = None, **given: Any) -> Any:
        """What the inner one computes."""
        return self.inner(input_ids, **given)

    def can_generate(self) -> bool:
        """It does."""
        return True

    def generate(self, *args: Any, **given: Any) -> Any:
        """The inner one's."""
        return self.inner.generate(*args, **given)


def test_what_is_refused(golden: Golden) -> None:
    """Calls that are no text's next token are errors, and no numbers."""
    said = []

    def refused(what: str, call: Callable[[Any, Any], object], query: str = QUERY) -> None:
        model, plan = bound(query)
        with pytest.raises(hookql.HookQLError) as caught, plan:
            call(model, plan)
        said.append(f"# {what}\n{caught.value}\n")

    def step(act: Callable[[torch.Tensor], object]) -> dict[str, Any]:
        return {**GIVEN, "logits_processor": hf.LogitsProcessorList([Calls(act)])}

    def looped(model: Any, plan: Any) -> None:
        out = model(ids_of(2, 5), use_cache=True)
        model(ids_of(2, 1), past_key_values=out.past_key_values, use_cache=True)

    def interleaved(model: Any, plan: Any) -> None:
        one = model(ids_of(1, 5), use_cache=True).past_key_values
        model(ids_of(1, 5, seed=1), use_cache=True)
        model(ids_of(1, 1), past_key_values=one, use_cache=True)

    refused("surprisal in a loop", looped, f"{QUERY} where surprisal != none")
    refused("caches that take turns", interleaved)
    refused("guidance", lambda m, p: m.generate(ids_of(2, 5), guidance_scale=2.0, **GIVEN))
    refused(
        "a call meanwhile",
        lambda m, p: m.generate(ids_of(2, 5), **step(lambda ids: m(ids[:, :1]))),
    )
    refused(
        "generate meanwhile",
        lambda m, p: m.generate(ids_of(2, 5), **step(lambda ids: m.generate(ids, **GIVEN))),
    )
    refused("reset meanwhile", lambda m, p: m.generate(ids_of(2, 5), **step(lambda ids: p.reset())))
    refused(
        "only the last logits",
        lambda m, p: m.generate(ids_of(2, 5), **GIVEN),
        f"{QUERY} where surprisal != none",
    )
    refused(
        "a static cache",
        lambda m, p: m.generate(
            ids_of(2, 5),
            past_key_values=hf.StaticCache(config=m.config, max_cache_len=32),
            **GIVEN,
        ),
    )
    wrapped = Wrapped(tiny("gpt2")[0]).eval()
    plan = hookql.compile("capture count from inner.transformer.h[1]").bind(wrapped)
    with pytest.raises(hookql.ModelError) as caught, plan:
        wrapped.generate(ids_of(2, 5), **GIVEN)
    said.append(f"# another module's generate\n{caught.value}\n")
    golden("live/found.txt", "\n".join(said))


def test_a_model_compiled_meanwhile_is_refused() -> None:
    """Its hooks would be compiled with it: an error, and no numbers."""
    model, plan = bound()
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(hookql.ModelError) as caught, plan:
        compiled(ids_of(2, 5))
    assert "compiled-model" == caught.value.code
    with plan:
        model(ids_of(2, 5))
    assert 10 == int(plan.result()["count"])


def test_two_threads_are_told(golden: Golden) -> None:
    """The second of two calls at once is an error in its own thread; the first one counts."""
    model, plan = bound()
    told: list[BaseException] = []

    def other() -> None:
        try:
            model(ids_of(1, 3))
        except hookql.ModelError as error:
            told.append(error)

    def meanwhile(*_: Any) -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    handle = model.transformer.h[0].register_forward_hook(meanwhile)
    try:
        with plan, torch.no_grad():
            model(ids_of(2, 5))
    finally:
        handle.remove()
    golden("live/threads.txt", "".join(f"{error}\n" for error in told))
    assert 10 == int(plan.result()["count"])


@pytest.mark.parametrize("held", [1, 2000, 1 << 30])
def test_surprisal_of_long_texts_is_whole(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is held at once, a token's surprisal is read off the token before it."""
    query = "capture mean(surprisal) as s, count from transformer.h[1] by phase"
    model, plan = bound(query)
    whole = model.generate(ids_of(2, 5), **GIVEN)
    monkeypatch.setattr(passes, "_HELD", held)
    with plan:
        model.generate(ids_of(2, 5), **GIVEN, logits_to_keep=0)
    with torch.no_grad():
        logits = model(whole).logits.double().log_softmax(-1)
    surprisal = -logits[:, :-1].gather(-1, whole[:, 1:, None])[..., 0]
    expected = [float(surprisal[:, 4:-1].mean()), float(surprisal[:, :4].mean())]
    np.testing.assert_allclose(plan.result()["s"].values.ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_model_inside_a_checkpoint_counts_once(reentrant: bool) -> None:
    """What a backward pass runs again is no call, also where it is the whole model."""
    model, plan = bound()
    scale = torch.zeros(1, requires_grad=True)
    with plan:
        out = checkpoint(
            lambda ids, add: model(ids).logits + add, ids_of(2, 6), scale, use_reentrant=reentrant
        )
        out.sum().backward()
    assert 12 == int(plan.result()["count"])
    model.zero_grad()


def test_criteria_by_place_end_texts_too() -> None:
    """What stands behind the end of a text is no token, however the criteria are given."""

    class Some(hf.StoppingCriteria):
        """Ends the first sequence after three tokens."""

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            """Which sequences are at their end."""
            return torch.tensor([input_ids.shape[1] >= 8, False])

    model, plan = bound()
    ends = VOCABULARY - 1  # which is never written
    config = hf.GenerationConfig(**{**GIVEN, "eos_token_id": ends, "max_new_tokens": 6})
    criteria = hf.StoppingCriteriaList([Some()])
    counts = []
    for args, given in (
        ((ids_of(2, 5), config, None, criteria), {}),
        ((ids_of(2, 5), config), {"stopping_criteria": criteria}),
    ):
        plan.reset()
        with plan:
            model.generate(*args, **given)
        counts.append(int(plan.result()["count"]))
    assert [2 * 5 + 2 + 5] * 2 == counts


def test_a_state_space_model_generates() -> None:
    """Its cache is a state, which does not say how much it has seen, and need not."""
    model, tokenizer, _ = tiny("mamba")
    plan = hookql.compile("capture count, mean from layers[1]").bind(model, tokenizer)
    with plan:
        whole = model.generate(ids_of(2, 5), **GIVEN)
    plain = hookql.run(
        "capture mean from layers[1]",
        model=model,
        tokenizer=tokenizer,
        inputs={"input_ids": whole[:, :-1]},
    )
    assert 2 * 10 == int(plan.result()["count"])
    np.testing.assert_allclose(plan.result()["mean"].values, plain["mean"].values, atol=1e-4)


def test_a_module_that_is_left_out_is_told() -> None:
    """A layer that a call drops while a text is written leaves no row, and that is an error."""
    model, plan = bound()
    calls: list[int] = []
    stack = model.transformer
    blocks = stack.h

    class Dropped(nn.ModuleList):
        """Blocks of which one is left out of the third call."""

        def __iter__(self) -> Any:
            calls.append(1)
            every = list(super().__iter__())
            return iter(every if len(calls) != 3 else [every[0], *every[2:]])

        def __getitem__(self, index: Any) -> Any:
            return blocks[index]

    stack.h = Dropped(list(blocks))
    try:
        with pytest.raises(hookql.ModelError) as caught, plan:
            model.generate(ids_of(2, 5), **GIVEN)
    finally:
        stack.h = blocks
    assert "varying-calls" == caught.value.code


def test_hookqls_own_runs_leave_a_loop_alone() -> None:
    """Between two steps of a loop a query may be run, and generate; it does not count."""
    model, plan = bound(f"{QUERY} by sample")
    with plan, torch.no_grad():
        out = model(ids_of(2, 5), use_cache=True)
        for run in ("capture mean from h[0]", f"{QUERY} during generate(max_new_tokens=3)"):
            hookql.run(run, model=model, tokenizer=character_tokenizer(), texts=["abc"])
            out = model(ids_of(2, 1), past_key_values=out.past_key_values, use_cache=True)
    assert [7, 7] == plan.result()["count"].values.tolist()


def test_an_encoder_decoder_trained_on_labels() -> None:
    """Its decoder reads the labels, one behind; what is no label is padding."""
    model, tokenizer, _ = tiny("t5")
    plan = hookql.compile("capture count, mean from decoder.block[*]").bind(model, tokenizer)
    labels = ids_of(2, 4)
    labels[1, 2:] = -100
    with plan:
        model(input_ids=ids_of(2, 6), labels=labels)
    given = hookql.compile("capture count, mean from decoder.block[*]").bind(model, tokenizer)
    start = model.config.decoder_start_token_id
    fed = torch.cat([torch.full((2, 1), start), labels[:, :-1].clamp(min=0)], 1)
    with given:
        model(
            input_ids=ids_of(2, 6),
            decoder_input_ids=fed,
            decoder_attention_mask=(labels != -100).long(),
        )
    assert 6 == int(plan.result()["count"])
    np.testing.assert_allclose(plan.result()["mean"].values, given.result()["mean"].values, 1e-5)
