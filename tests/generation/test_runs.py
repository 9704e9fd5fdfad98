"""Runs that generate: batches, ends, files, failures, what is written, sampling, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
import xarray
from torch import nn

import hookql
from hookql import planning
from tests.generation.plain import PROMPTS, Array, assert_close, greedy, rows_of, texts
from tests.generation.test_where import late
from tests.tiny import CONTEXT, character_tokenizer, tiny
from tests.told import told as said_of

NEW = 5
QUERY = f"""
capture mean, var, count from transformer.h[1] as a during generate(max_new_tokens={NEW})
capture mean, count from transformer.h[2] by step as b during generate(max_new_tokens={NEW})
capture mean(loss) as l from transformer.h[0] by sample as c during generate(max_new_tokens={NEW})
"""


def ending() -> tuple[Any, Any, tuple[int, ...]]:
    """A small GPT-2 whose texts end at several lengths, its tokenizer and its ends."""
    model, tokenizer, _ = tiny("gpt2")
    end = late(texts(model, tokenizer, NEW, ends=()))
    model.generation_config.eos_token_id = [end, 2]
    return model, tokenizer, (end, 2)


def run(query: str = QUERY, data: Any = None, **options: Any) -> xarray.DataTree:
    """The query over the prompts, on that model."""
    model, tokenizer, _ = ending()
    return hookql.run(query, model=model, tokenizer=tokenizer, data=data or PROMPTS, **options)


def same(one: xarray.DataTree, two: xarray.DataTree) -> None:
    """Equal coordinates and counts, numbers to float tolerance."""
    for ours, theirs in zip(one.subtree, two.subtree, strict=True):
        assert list(ours.variables) == list(theirs.variables)
        for name in ours.variables:
            left, right = ours[name].values, theirs[name].values
            if left.dtype.kind == "f":
                assert_close(left, right, name)
            else:
                np.testing.assert_array_equal(left, right, err_msg=str(name))


def fed_rows(site: str = "transformer.h.1") -> Array:
    """The rows that the run must have, by plain passes."""
    model, tokenizer, ends = ending()
    told = texts(model, tokenizer, NEW, ends=ends)
    assert len({len(t.written) for t in told}) > 2
    return np.concatenate(rows_of(model, site, [t.fed for t in told]))


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 2}, {"tokens_per_batch": 30}, {}]
)
def test_batches_change_nothing(options: dict[str, int]) -> None:
    """Whatever prompts share a batch, and however early some of them end."""
    found = run(**options)
    node = found["a/transformer.h"].dataset.isel(layer=0)
    rows = fed_rows()
    assert len(rows) == int(node["count"])
    assert_close(rows.mean(0), node["mean"])
    assert_close(rows.var(0), node["var"])
    same(run(batch_size=3), found)


@pytest.mark.parametrize("new", [1, 2])
def test_few_new_tokens(new: int) -> None:
    """The only one that is written is never fed: the rows are the prompts'."""
    model, tokenizer, _ = tiny("llama")
    query = (
        f"capture mean, count from model.layers[1] by phase during generate(max_new_tokens={new})"
    )
    node = hookql.run(query, model=model, tokenizer=tokenizer, data=PROMPTS).dataset
    told = texts(model, tokenizer, new)
    rows = np.concatenate(rows_of(model, "model.layers.1", [t.fed for t in told]))
    steps = np.concatenate([t.steps for t in told])
    assert (["prompt"] if new == 1 else ["generated", "prompt"]) == node["phase"].values.tolist()
    assert_close(rows[steps < 0].mean(0), node["mean"].sel(phase="prompt", layer=1))
    assert (steps < 0).sum() == int(node["count"].sel(phase="prompt"))
    assert [len(t.written) for t in told] == node["generated_tokens"].values.tolist()


def test_what_was_written() -> None:
    """Texts, numbers of tokens and ends are those of transformers' own `generate` by hand."""
    model, tokenizer, ends = ending()
    tree = run()
    for number, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            output = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False
            )
        written = output[0, ids.shape[1] :].tolist()
        assert len(written) == int(tree["generated_tokens"][number])
        assert (written[-1] in ends) == bool(tree["generated_ended"][number])
        text = tokenizer.decode(written, skip_special_tokens=True)
        assert text.rstrip("\x00") == str(tree["generated_text"][number].values)
    assert list(range(len(PROMPTS))) == tree["generated_sample"].values.tolist()


def test_model_settings_do_not_count() -> None:
    """A checkpoint's sampling, penalties and lengths are no part of a greedy query."""
    model, tokenizer, _ = tiny("gpt2")
    expected = hookql.run(QUERY, model=model, tokenizer=tokenizer, data=PROMPTS)
    model.generation_config = hf.GenerationConfig(
        do_sample=True, temperature=0.3, top_k=3, top_p=0.5, repetition_penalty=3.0,
        no_repeat_ngram_size=1, min_new_tokens=4, max_length=2, num_beams=3,
        suppress_tokens=[5, 30], begin_suppress_tokens=[55, 100, 116], bad_words_ids=[[19]],
        forced_eos_token_id=9, forced_bos_token_id=11, length_penalty=0.2, renormalize_logits=True,
        sequence_bias=[[[92], 50.0]], exponential_decay_length_penalty=(1, 1.5),
        num_return_sequences=2, eos_token_id=2, pad_token_id=0, bos_token_id=1,
        output_scores=True, return_dict_in_generate=True, use_cache=False,
    )  # fmt: skip
    found = hookql.run(QUERY, model=model, tokenizer=tokenizer, data=PROMPTS)
    assert expected["generated_text"].values.tolist() == found["generated_text"].values.tolist()
    same(expected, found)


def test_arguments_reach_generate() -> None:
    """`min_new_tokens` and `repetition_penalty` do what they do in transformers."""
    model, tokenizer, _ = ending()
    for arguments in ({"min_new_tokens": NEW}, {"repetition_penalty": 5.0}):
        clause = ", ".join(f"{name}={value}" for name, value in arguments.items())
        query = (
            f"capture count from transformer.h[1] during generate(max_new_tokens={NEW}, {clause})"
        )
        tree = run(query)
        for number, prompt in enumerate(PROMPTS):
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW,
                do_sample=False,
                **arguments,
            )
            written = output[0, ids.shape[1] :]
            assert len(written) == int(tree["generated_tokens"][number])
            text = tokenizer.decode(written, skip_special_tokens=True)
            assert text == str(tree["generated_text"][number].values)


def test_sampling() -> None:
    """Drawn texts depend on the seed and the sample, not on the batch or on draws before."""
    query = "capture mean from transformer.h[1] during generate(max_new_tokens=6, do_sample=true"
    state = torch.random.get_rng_state()
    one = run(query + ", seed=3)")
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    two = run(query + ", seed=3)", batch_size=2)
    other = run(query + ", seed=4)")
    assert one["generated_text"].values.tolist() == two["generated_text"].values.tolist()
    same(one, two)
    assert one["generated_text"].values.tolist() != other["generated_text"].values.tolist()
    assert len(set(one["generated_text"].values.tolist())) > 3
    # The rows are those of the texts that were drawn.
    model, tokenizer, _ = ending()
    plain = run(query + ", seed=3, top_k=1)")
    told = texts(model, tokenizer, 6, ends=ending()[2])
    rows = np.concatenate(rows_of(model, "transformer.h.1", [t.fed for t in told]))
    assert_close(rows.mean(0), plain["mean"].isel(layer=0))


def test_values_into_a_file(tmp_path: Path) -> None:
    """Rows in the order of the data, with their places, whatever batch they came from."""
    model, tokenizer, ends = ending()
    query = f"capture values from transformer.h[1] during generate(max_new_tokens={NEW})"
    run(query, batch_size=2, output=tmp_path / "v.nc")
    told = texts(model, tokenizer, NEW, ends=ends)
    rows = rows_of(model, "transformer.h.1", [t.fed for t in told])
    found = hookql.load(tmp_path / "v.nc")
    assert_close(np.concatenate(rows), found["values"].isel(layer=0))
    assert [i for t in told for i in t.fed] == found["token_id"].values.tolist()
    assert [p for t in told for p in range(len(t.fed))] == found["position"].values.tolist()
    assert [len(t.fed) for t in told] == found["row_size"].values.tolist()


def test_patterns() -> None:
    """Weights over keys: padding on the left is no key, and keys count from the text's first."""
    model, tokenizer, _ = tiny("llama")
    model.config._attn_implementation = "eager"
    tail = f"during generate(max_new_tokens={NEW})"
    query = f"capture mean from @pattern[1] by phase as a {tail}\n"
    query += (
        f"capture mean(entropy(x)) as e, mean(x[key=0]) as k from @pattern[0] by step as b {tail}"
    )
    tree = hookql.run(query, model=model, tokenizer=tokenizer, data=PROMPTS)
    told = texts(model, tokenizer, NEW)
    with torch.no_grad():
        weights = [model(torch.tensor([t.fed]), output_attentions=True).attentions for t in told]
    longest = max(len(t.fed) for t in told)
    steps = np.concatenate([t.steps for t in told])
    for phase in ("prompt", "generated"):
        total, number = np.zeros((4, longest)), np.zeros(longest)
        for text, layers in zip(told, weights, strict=True):
            for query_at, step in enumerate(text.steps):
                if (step >= 0) == (phase == "generated"):
                    seen = slice(0, query_at + 1)
                    total[:, seen] += layers[1][0, :, query_at, seen].double().numpy()
                    number[seen] += 1
        node = tree["a/pattern"]["mean"].sel(phase=phase, layer=1)
        with np.errstate(invalid="ignore"):
            expected = np.where(number > 0, total / number, np.nan)
        assert_close(expected, node.values[:, :longest], phase)
    first = np.concatenate([w[0][0].double().numpy().transpose(1, 0, 2)[:, :, 0] for w in weights])
    spread = np.concatenate(
        [
            -np.where(w > 0, w * np.log(np.where(w > 0, w, 1)), 0).sum(-1).T
            for w in (layers[0][0].double().numpy() for layers in weights)
        ]
    )
    node = tree["b/pattern"].dataset.sel(layer=0)
    for step in node["step"].values.tolist():
        assert_close(first[steps == step].mean(0), node["k"].sel(step=step).values.ravel())
        assert_close(spread[steps == step].mean(0), node["e"].sel(step=step).values.ravel())


class Fails:
    """Fails where a call of the model is such, but not while HookQL tries the model out."""

    def __init__(self, model: Any, error: Exception, when: Callable[[Any], bool]) -> None:
        self.raised, self.armed = 0, False
        self._error, self._when = error, when
        model.transformer.wte.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """As a hook."""
        if self.armed and self._when(args[0]):
            self.raised += 1
            raise self._error


def run_armed(fails: Fails, model: Any, tokenizer: Any, **options: Any) -> xarray.DataTree:
    """A run whose model begins to fail with the data."""
    with pytest.MonkeyPatch.context() as patch:
        before = planning.tried_generation

        def tried(plan: Any) -> Any:
            found = before(plan)
            fails.armed = True
            return found

        patch.setattr(planning, "tried_generation", tried)
        return hookql.run(QUERY, model=model, tokenizer=tokenizer, data=PROMPTS, **options)


@pytest.mark.parametrize("late_in_text", [False, True])
def test_out_of_memory(late_in_text: bool) -> None:
    """A batch for which memory does not suffice, at the prompt or later, is run in halves."""
    model, tokenizer, _ = ending()

    def when(ids: Any) -> bool:
        return len(ids) > 2 and (ids.shape[1] == 1) == late_in_text

    expected = run()
    fails = Fails(model, MemoryError("planted"), when)
    found = run_armed(fails, model, tokenizer)
    assert fails.raised
    same(expected, found)
    assert 1 < found.attrs["batches"]


def test_samples_that_fail_are_skipped() -> None:
    """Only the sample on which the model fails is missing, its text too."""
    model, tokenizer, ends = ending()
    token = tokenizer("9")["input_ids"][0]
    fails = Fails(model, ValueError("planted"), lambda ids: bool((ids == token).any()))
    found = run_armed(fails, model, tokenizer, on_error="skip")
    clean = tiny("gpt2")[0]
    told = [(n, greedy(clean, tokenizer(p)["input_ids"], NEW, ends)) for n, p in enumerate(PROMPTS)]
    kept = [(n, t) for n, t in told if token not in t.fed]
    assert 0 < len(kept) < len(PROMPTS)
    assert [n for n, _ in kept] == found["generated_sample"].values.tolist()
    rows = np.concatenate(rows_of(clean, "transformer.h.1", [t.fed for _, t in kept]))
    node = found["a/transformer.h"].dataset.isel(layer=0)
    assert len(rows) == int(node["count"])
    assert_close(rows.mean(0), node["mean"])
    assert len(PROMPTS) - len(kept) == found.sizes["skipped"]


def test_resumed(tmp_path: Path) -> None:
    """A run that died is gone on with: same numbers, and every text is there."""
    expected = run(batch_size=2, tokens_per_batch=1000)
    model, tokenizer, _ = ending()
    token = tokenizer("W")["input_ids"][0]
    options: dict[str, Any] = {
        "data": PROMPTS,
        "tokenizer": tokenizer,
        "batch_size": 2,
        "tokens_per_batch": 1000,
        "checkpoint": tmp_path / "c",
        "checkpoint_every": 1e-9,
    }
    fails = Fails(model, ValueError("planted"), lambda ids: bool((ids == token).any()))
    fails.armed = True
    with pytest.raises(hookql.HookQLError, match="planted"):
        hookql.run(QUERY, model=model, **options)
    assert fails.raised
    fails.armed = False
    found = hookql.run(QUERY, model=model, resume=True, **options)
    same(expected, found)
    assert expected["generated_text"].values.tolist() == found["generated_text"].values.tolist()


@pytest.mark.parametrize("which", ["demo", "smollm2"])
def test_real_models(which: str, request: pytest.FixtureRequest) -> None:
    """The demo model and SmolLM2: prompts of different lengths, against plain passes."""
    model = hookql.load_model("demo") if which == "demo" else request.getfixturevalue("smollm2")
    module, tokenizer = model.module, model.tokenizer
    site = "transformer.h" if which == "demo" else "model.layers"
    prompts = ["The", "Once upon a time there was a little girl who", "Two and two"]
    query = f"capture mean, var, count from {site}[*] during generate(max_new_tokens=5)"
    tree = hookql.run(query, model=model, data=prompts)
    ends = module.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    told = [greedy(module, tokenizer(p)["input_ids"], 5, ends) for p in prompts]
    assert [len(t.written) for t in told] == tree["generated_tokens"].values.tolist()
    written = [tokenizer.decode(t.written, skip_special_tokens=True) for t in told]
    assert written == tree["generated_text"].values.tolist()
    for layer in (0, 3, len(module.get_submodule(site)) - 1):
        rows = np.concatenate(rows_of(module, f"{site}.{layer}", [t.fed for t in told]))
        node = tree.dataset.sel(layer=layer)
        assert len(rows) == int(node["count"])
        # Massive activations of one feature do not hide an error in the others.
        margin = 2e-4 * rows.std(0) + 1e-5 * np.abs(rows).max(0)
        assert (np.abs(node["mean"].values - rows.mean(0)) <= margin).all()
        off = np.abs(np.sqrt(node["var"].values) - rows.std(0))
        assert (off <= 1e-3 * rows.std(0) + 1e-5 * np.abs(rows).max(0)).all()


class Plain(nn.Module):
    """Logits, and no `generate`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Something of each token."""
        return self.embed(input_ids)  # type: ignore[no-any-return]


def test_mistakes(golden: Callable[[str, str], None], tmp_path: Path) -> None:
    """What is said of queries, prompts and models that cannot be generated with."""
    tokenizer = character_tokenizer()
    inputs = {"input_ids": torch.full((2, 4), 20)}
    site = "capture mean from transformer.h[1] during generate"

    def gpt2(query: str, **options: Any) -> object:
        if not {"texts", "inputs"} & set(options):
            options["texts"] = ["Hello"]
        return hookql.run(query, model=tiny("gpt2")[0], tokenizer=tokenizer, **options)

    def given(**more: Any) -> Any:
        return lambda _: gpt2(site + "(max_new_tokens=3)", inputs={**inputs, **more})

    few = site + "(max_new_tokens=3)"
    cases: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
        "no length": lambda _: gpt2(site),
        "encoder-decoder": lambda _: hookql.run(
            "capture mean from decoder.block[0] during generate(max_new_tokens=2)",
            model=tiny("t5")[0], tokenizer=tokenizer, texts=["a"],
        ),
        "encoder": lambda _: hookql.run(
            "capture mean from encoder.layer[0] during generate(max_new_tokens=2)",
            model=tiny("bert")[0], tokenizer=tokenizer, texts=["a"],
        ),
        "plain module": lambda _: hookql.run(
            "capture mean from embed during generate(max_new_tokens=2)",
            model=Plain().eval(), tokenizer=tokenizer, texts=["a"],
        ),
        "more than the context": lambda _: gpt2(site + f"(max_new_tokens={CONTEXT + 1})"),
        "a prompt too long": lambda _: gpt2(few, texts=["a", "b" * (CONTEXT - 1)]),
        "split": lambda _: gpt2(few, overflow="split"),
        "pack": lambda _: gpt2(few, overflow="pack", max_length=20),
        "step without generating": lambda _: gpt2("capture mean from transformer.h[1] by step"),
        "phase without generating": lambda _: gpt2("capture mean from transformer.h[1] by phase"),
        "inputs with positions": given(position_ids=torch.arange(4).expand(2, 4)),
        "inputs with labels": given(labels=inputs["input_ids"]),
        "inputs with token types": given(token_type_ids=torch.zeros(2, 4, dtype=torch.int64)),
        "beams": lambda _: gpt2(site + "(max_new_tokens=3, num_beams=2)"),
        "mixed": lambda _: gpt2(f"{few} as a capture mean from transformer.h[0] as b"),
    }  # fmt: skip
    golden("generation/mistakes.txt", said_of(cases, tmp_path))


def test_prompts_as_ids() -> None:
    """Ids and a mask, padded on either side, are prompts as texts are."""
    model, tokenizer, _ = ending()
    encoded = [tokenizer(p)["input_ids"] for p in PROMPTS]
    width = max(map(len, encoded))
    query = QUERY.replace("mean(loss) as l", "mean")
    expected = run(query)
    for side in ("left", "right"):
        ids = torch.zeros(len(encoded), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(encoded):
            at = width - len(prompt) if side == "left" else 0
            ids[row, at : at + len(prompt)] = torch.tensor(prompt)
            mask[row, at : at + len(prompt)] = 1
        found = hookql.run(
            query,
            model=model,
            tokenizer=tokenizer,
            inputs={"input_ids": ids, "attention_mask": mask},
        )
        same(expected, found)


def test_the_longest_prompt_that_fits() -> None:
    """As many tokens as the context holds are fed: the last that is written needs no room."""
    model, tokenizer, _ = tiny("gpt2")
    prompt = "x" * (CONTEXT - 2)
    query = "capture mean, count from transformer.h[1] during generate(max_new_tokens=3)"
    tree = hookql.run(query, model=model, tokenizer=tokenizer, data=[prompt, "a"])
    told = [greedy(model, tokenizer(p)["input_ids"], 3, (2,)) for p in (prompt, "a")]
    assert CONTEXT == len(told[0].fed)
    rows = np.concatenate(rows_of(model, "transformer.h.1", [t.fed for t in told]))
    assert len(rows) == int(tree["count"])
    assert_close(rows.mean(0), tree["mean"].isel(layer=0))
