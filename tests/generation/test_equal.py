"""A token fed while the model generates has the values of one plain pass over the whole text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hookql
from tests.generation.plain import PROMPTS, Array, Text, assert_close, rows_of, texts
from tests.tiny import tiny

NEW = 5
BLOCKS = {
    "gpt2": "transformer.h",
    "llama": "model.layers",
    "mistral-window": "model.layers",
    "gemma2-capped": "model.layers",
    "gemma3-window": "model.layers",
    "qwen3": "model.layers",
    "opt": "model.decoder.layers",
    "bloom": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "falcon": "transformer.h",
    "falcon-sequential": "transformer.h",
    "phi": "model.layers",
    "gptj": "transformer.h",
    "gpt_neo": "transformer.h",
    "mixtral": "model.layers",
    "qwen2_moe": "model.layers",
}

QUERY = """
capture mean, var, max from BLOCKS[*] as whole during GENERATE
capture mean, rms from BLOCKS[*] by phase as phases during GENERATE
capture mean, min from BLOCKS[*] by step as steps during GENERATE
capture mean from BLOCKS[*] by position as places during GENERATE
capture mean from BLOCKS[*] by sample as samples during GENERATE
capture mean from BLOCKS[1] where phase == prompt as prompts during GENERATE
capture mean from BLOCKS[-1]:input where step in {0, 2} as some during GENERATE
"""


def query(blocks: str, new: int) -> str:
    """The query above, for blocks of that name."""
    return QUERY.replace("BLOCKS", blocks).replace("GENERATE", f"generate(max_new_tokens={new})")


def check(tree: Any, model: Any, blocks: str, told: list[Text]) -> None:
    """Everything of the query above, against rows of plain passes."""
    role = blocks
    number = len(model.get_submodule(blocks))
    by_layer = [rows_of(model, f"{blocks}.{n}", [t.fed for t in told]) for n in range(number)]
    rows = np.stack([np.concatenate(layer) for layer in by_layer])
    steps = np.concatenate([text.steps for text in told])
    places = np.concatenate([np.arange(len(text.fed)) for text in told])
    owners = np.concatenate([np.full(len(text.fed), n) for n, text in enumerate(told)])

    whole = tree[f"whole/{role}"]
    assert rows.shape[1] == int(whole["count"])
    for name, expected in (("mean", rows.mean(1)), ("var", rows.var(1)), ("max", rows.max(1))):
        assert_close(expected, whole[name], name)

    def groups(node: Any, axis: str, keys: Array) -> None:
        known = [key for key in np.unique(keys).tolist() if key != -1]
        assert known == node[axis].values.tolist()
        for key in known:
            of_key = rows[:, keys == key]
            assert of_key.shape[1] == int(node["count"].sel({axis: key})), (axis, key)
            here = node.dataset.sel({axis: key})
            for name, expected in (
                ("mean", of_key.mean(1)),
                ("rms", np.sqrt((of_key**2).mean(1))),
                ("min", of_key.min(1)),
            ):
                if name in here:
                    assert_close(expected, here[name].transpose("layer", ...), f"{axis} {key}")

    groups(tree[f"phases/{role}"], "phase", np.where(steps < 0, "prompt", "generated"))
    groups(tree[f"steps/{role}"], "step", np.maximum(steps, -1))
    groups(tree[f"places/{role}"], "position", places)
    groups(tree[f"samples/{role}"], "sample", owners)
    assert_close(rows[1][steps < 0].mean(0), tree[f"prompts/{role}"]["mean"].sel(layer=1))
    before = rows[number - 2][np.isin(steps, [0, 2])]
    some = next(iter(tree["some"].children.values()))
    assert len(before) == int(some["count"])
    assert_close(before.mean(0), some["mean"].isel(layer=0), "input")


@pytest.mark.parametrize("name", BLOCKS)
def test_families(name: str) -> None:
    """Prompts of 1 to 40 tokens share a batch: positions and masks are right in each family."""
    model, tokenizer, _ = tiny(name)
    told = texts(model, tokenizer, NEW)
    tree = hookql.run(query(BLOCKS[name], NEW), model=model, tokenizer=tokenizer, data=PROMPTS)
    assert [len(text.written) for text in told] == tree["generated_tokens"].values.tolist()
    check(tree, model, BLOCKS[name], told)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "opt"])
def test_learnt_positions(name: str) -> None:
    """Left-padded prompts have positions of their own: each is looked up as in the text alone."""
    model, tokenizer, _ = tiny(name)
    told = texts(model, tokenizer, NEW)
    tree = hookql.run(
        f"capture mean, count from ** isa Embedding during generate(max_new_tokens={NEW})",
        model=model,
        tokenizer=tokenizer,
        data=PROMPTS,
    )
    compared = 0
    for node in tree.subtree:
        if "mean" in node:
            site = str(node["module"].values.ravel()[0])
            rows = rows_of(model, site, [t.fed for t in told])
            assert sum(map(len, rows)) == int(node["count"])
            assert_close(np.concatenate(rows).mean(0), node["mean"].values.ravel(), site)
            compared += 1
    assert 2 == compared
