"""What the query asks of tokens while it generates: every column, in `where`, in expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray

import hookql
from tests.generation.plain import (
    PROMPTS,
    Array,
    Text,
    assert_close,
    log_softmax,
    logits_of,
    rows_of,
    texts,
)
from tests.tiny import tiny

NEW = 6
GENERATE = f"during generate(max_new_tokens={NEW})"
MODELS = {"gpt2": "transformer.h", "llama": "model.layers", "gpt_neox": "gpt_neox.layers"}


class Known:
    """What is known of one text, a number for each token fed, NaN where it is undefined."""

    def __init__(self, model: Any, text: Text, index: int) -> None:
        logits = logits_of(model, text.fed)
        logs = log_softmax(logits)
        ids, number = np.array(text.fed), len(text.fed)
        follows = np.append(logs[np.arange(number - 1), ids[1:]], np.nan)
        self.ids, self.step, self.length = ids, text.steps, number
        self.sample = np.full(number, index)
        self.position = np.arange(number)
        self.content = np.where(ids < 7, np.nan, np.cumsum(ids >= 7) - 1)
        self.next = np.append(ids[1:], -1)
        self.prev = np.append(-1, ids[:-1])
        self.loss = -follows
        self.prob = np.exp(follows)
        self.surprisal = np.append(np.nan, -follows[:-1])
        self.entropy = -(np.exp(logs) * logs).sum(-1)
        own = np.append(logits[np.arange(number - 1), ids[1:]], np.nan)
        self.rank = np.where(np.isnan(own), np.nan, (logits > own[:, None]).sum(-1))
        self.guess = logits.argmax(-1)
        self.logits = logits


Mask = Callable[[Known], Array]
WHERE: dict[str, Mask] = {
    "phase == prompt": lambda k: k.step < 0,
    "phase != prompt": lambda k: k.step >= 0,
    "step == none": lambda k: k.step < 0,
    "not step >= 2": lambda k: (k.step >= 0) & (k.step < 2),
    "step in {0, 3}": lambda k: np.isin(k.step, [0, 3]),
    "position >= last - 2": lambda k: k.position >= k.length - 3,
    "position == -1": lambda k: k.position == k.length - 1,
    "position == last": lambda k: k.position == k.length - 1,
    "position in {-2, 0}": lambda k: np.isin(k.position, [k.length - 2, 0]),
    "position < 3": lambda k: k.position < 3,
    "content_position == 2": lambda k: k.content == 2,
    "content_position == -1": lambda k: k.content == np.nanmax(k.content),
    "length > 15": lambda k: np.full(k.length, k.length > 15),
    "sample == 2": lambda k: k.sample == 2,
    "special": lambda k: k.ids < 7,
    'token == "e"': lambda k: k.ids == 7 + 1 + ord("e") - 32,
    'prev == "e"': lambda k: k.prev == 7 + 1 + ord("e") - 32,
    "token == next": lambda k: k.ids == k.next,
    "prev == token and phase == generated": lambda k: (k.ids == k.prev) & (k.step >= 0),
    "prev == none": lambda k: k.position == 0,
    "next == none": lambda k: k.position == k.length - 1,
    "token ~ /^[a-e]$/": lambda k: (k.ids >= 73) & (k.ids <= 77),
    "surprisal > 4.7": lambda k: k.surprisal > 4.7,
    "surprisal == none": lambda k: np.isnan(k.surprisal),
    "loss < 4.6 and phase == generated": lambda k: (k.loss < 4.6) & (k.step >= 0),
    "loss == none": lambda k: np.isnan(k.loss),
    "prob >= 0.009": lambda k: k.prob >= 0.009,
    "rank == 0": lambda k: k.rank == 0,
    "rank > 40": lambda k: k.rank > 40,
    "entropy > 4.75": lambda k: k.entropy > 4.75,
    "position + 1 == length": lambda k: k.position == k.length - 1,
    'row.label == "odd"': lambda k: k.sample % 2 == 1,
    "row.number > 2 and step == 1": lambda k: (k.sample > 2) & (k.step == 1),
}
# Ids 0 to 6 are special; one a printable character is 8 and more.
DATA = [
    {"text": text, "label": ("even", "odd")[n % 2], "number": n} for n, text in enumerate(PROMPTS)
]
Knows = tuple[Any, str, list[Known], Array, xarray.DataTree]


@pytest.fixture(scope="module", params=MODELS)
def known(request: pytest.FixtureRequest) -> Knows:
    """A model, its blocks, what is known of its texts, the rows of block 1, the result."""
    blocks = MODELS[request.param]
    model, tokenizer, _ = tiny(request.param)
    told = texts(model, tokenizer, NEW, ends=())
    # An id that some texts hold late and others not at all ends them.
    model.generation_config.eos_token_id = end = late(told)
    told = texts(model, tokenizer, NEW, ends=(end,))
    found = [Known(model, text, n) for n, text in enumerate(told)]
    rows = np.concatenate(rows_of(model, f"{blocks}.1", [t.fed for t in told]))
    parts = [
        f"capture count, mean from {blocks}[1] where {condition} as c{n} {GENERATE}"
        for n, condition in enumerate(WHERE)
    ]
    parts += [
        f"capture mean({name}) as m from {blocks}[1] by phase as {name}_by_phase {GENERATE}"
        for name in ("surprisal", "loss", "prob", "rank", "entropy", "step", "position", "length")
    ]
    parts += [
        f"capture mean(argmax(lens(x)) == next) as m from {blocks}[-1] by step as hits {GENERATE}",
        f"capture mean(token == next) as m from {blocks}[1] as twice {GENERATE}",
        f"capture top(norm(x), k=4) as t from {blocks}[1] where step >= 0 as tops {GENERATE}",
        f"capture quantile(0.25, 0.9) as q from {blocks}[1] where phase == generated as qs "
        f"{GENERATE}",
        f"capture count from {blocks}[1] by token as tokens {GENERATE}",
        f"capture mean from {blocks}[1] by sample, phase as both {GENERATE}",
        f"capture mean(cos(input, output)) as m from {blocks}[1] by step as ports {GENERATE}",
        f"capture count, mean from {blocks}[1] where norm(x) > {norm_median(rows)} "
        f"and phase == generated as own {GENERATE}",
        f"capture mean(x) as m from @logits where phase == generated as logits {GENERATE}",
        f"capture count from {blocks}[1] where random(0.4, seed=3) by sample as random {GENERATE}",
    ]
    tree = hookql.run("\n".join(parts), model=model, tokenizer=tokenizer, data=DATA)
    return model, blocks, found, rows, tree


def late(told: list[Text]) -> int:
    """An id that ends texts at several places, the first not before the second token."""
    ids = {token for text in told for token in text.written}
    found = {i: {t.written.index(i) if i in t.written else NEW for t in told} for i in ids}
    return max(found, key=lambda i: (min(found[i]) > 0, len(found[i]), -min(found[i]), i))


def norm_median(rows: Array) -> float:
    """A bound that about half of the rows exceed."""
    return round(float(np.median(np.linalg.norm(rows, axis=-1))), 3) + 0.00042


def of(known: list[Known], name: str) -> Array:
    """A column of all tokens, one sample behind another."""
    return np.concatenate([getattr(each, name) for each in known])


@pytest.mark.parametrize("condition", WHERE)
def test_where(known: Knows, condition: str) -> None:
    """Each condition keeps the tokens that it keeps in the whole text."""
    _, blocks, found, rows, tree = known
    keep = np.concatenate([WHERE[condition](each) for each in found])
    number = list(WHERE).index(condition)
    node = tree[f"c{number}/{blocks}"]
    assert keep.sum() == int(node["count"].item())
    if keep.any():
        assert_close(rows[keep].mean(0), node["mean"].sel(layer=1), condition)


@pytest.mark.parametrize(
    "name", ["surprisal", "loss", "prob", "rank", "entropy", "step", "position", "length"]
)
def test_means_of_columns(known: Knows, name: str) -> None:
    """Of the prompt's tokens and of the generated ones; undefined ones are left out."""
    _, blocks, found, _, tree = known
    values = of(found, name) if name != "length" else of(found, "position") * 0.0
    if name == "length":
        values = np.concatenate([np.full(k.length, k.length) for k in found])
    values = np.where(of(found, "step") < 0, np.nan, values) if name == "step" else values
    node = tree[f"{name}_by_phase/{blocks}"]
    for phase, keep in (("prompt", of(found, "step") < 0), ("generated", of(found, "step") >= 0)):
        kept = values[keep]
        kept = kept[~np.isnan(kept)]
        expected = kept.mean() if len(kept) else np.nan
        assert_close(expected, node["m"].sel(phase=phase, layer=1), f"{name} {phase}")


def test_expressions(known: Knows) -> None:
    """The lens, tokens, ports, values, the model's logits."""
    model, blocks, found, rows, tree = known
    steps = of(found, "step")
    hits = np.where(of(found, "next") < 0, np.nan, of(found, "guess") == of(found, "next"))
    last = len(model.get_submodule(blocks)) - 1
    node = tree[f"hits/{blocks}"]["m"].sel(layer=last)
    for step in range(NEW - 1):
        kept = hits[steps == step]
        kept = kept[~np.isnan(kept)]
        assert_close(kept.mean() if len(kept) else np.nan, node.sel(step=step), f"step {step}")
    twice = np.concatenate([(k.ids == k.next)[:-1] for k in found])
    assert_close(twice.mean(), tree[f"twice/{blocks}"]["m"].sel(layer=1))
    logits = np.concatenate([k.logits for k in found])
    assert_close(logits[steps >= 0].mean(0), tree["logits/logits"]["m"])
    told = [k.ids.tolist() for k in found]
    before = np.concatenate(
        rows_of(model, f"{blocks}.1", told, lambda a, k, o: a[0] if a else k["hidden_states"])
    )
    cosine = (before * rows).sum(-1) / np.linalg.norm(before, axis=-1)
    cosine /= np.linalg.norm(rows, axis=-1)
    node = tree[f"ports/{blocks}"]["m"].sel(layer=1)
    assert_close([cosine[steps == s].mean() for s in range(NEW - 1)], node)
    keep = (np.linalg.norm(rows, axis=-1) > norm_median(rows)) & (steps >= 0)
    assert keep.sum() == int(tree[f"own/{blocks}"]["count"].sel(layer=1))
    assert_close(rows[keep].mean(0), tree[f"own/{blocks}"]["mean"].sel(layer=1))


def test_top_and_quantile(known: Knows) -> None:
    """The largest norms, with their places in the whole text; quantiles by rank."""
    _, blocks, found, rows, tree = known
    steps, norms = of(found, "step"), np.linalg.norm(rows, axis=-1)
    order = np.argsort(-np.where(steps >= 0, norms, -np.inf))[:4]
    node = tree[f"tops/{blocks}"].dataset.sel(layer=1)
    assert_close(norms[order], node["t"])
    assert of(found, "sample")[order].tolist() == node["t_sample"].values.tolist()
    assert of(found, "position")[order].tolist() == node["t_position"].values.tolist()
    assert of(found, "ids")[order].tolist() == node["t_token"].values.tolist()
    kept = np.sort(rows[steps >= 0], axis=0)
    for q in (0.25, 0.9):
        exact = kept[int(np.ceil(q * len(kept))) - 1]
        got = tree[f"qs/{blocks}"]["q"].sel(layer=1, quantile=q).values
        assert (np.abs(got - exact) <= np.abs(exact) / 128 + 2**-30 + 1e-6).all()


def test_groups(known: Knows) -> None:
    """By token, by sample and phase at once."""
    _, blocks, found, rows, tree = known
    ids, counts = np.unique(of(found, "ids"), return_counts=True)
    node = tree[f"tokens/{blocks}"]
    assert ids.tolist() == node["token"].values.tolist()
    assert counts.tolist() == node["count"].values.tolist()
    steps, owner = of(found, "step"), of(found, "sample")
    for sample in range(len(PROMPTS)):
        for phase, keep in (("prompt", steps < 0), ("generated", steps >= 0)):
            here = rows[keep & (owner == sample)]
            where = {"sample": sample, "phase": phase, "layer": 1}
            node = tree[f"both/{blocks}"]["mean"].sel(where)
            expected = here.mean(0) if len(here) else np.full(32, np.nan)
            assert_close(expected, node, f"{where}")
