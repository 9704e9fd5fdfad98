"""Every statistic against the float64 NumPy oracle, on every family and on real weights."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch

import hookql
from tests import oracle
from tests.tiny import NAMES, character_tokenizer, tiny

TEXTS = [
    "Where were you when I laid the foundations of the earth?",
    "a",
    "In 1969, two people walked on the Moon; a third stayed.",
    "the the the the",
    "def add(a, b):",
    "Caf\u00e9 \U0001f600 na\u00efve",
    "To be, or not to be, that is the question.",
    "x" * 40,
    "  leading and trailing spaces  ",
    "O",
    "She sells sea shells.",
    "9 8 7 6 5 4 3 2 1 0",
]
# A block, an attention module and a final norm of each family.
SITES = {
    "gpt2": ["transformer.h[*]", "transformer.h[1].attn", "transformer.ln_f"],
    "opt": ["model.decoder.layers[*]", "model.decoder.layers[1].self_attn"],
    "gpt_neox": ["gpt_neox.layers[*]", "gpt_neox.layers[1].attention"],
    "bloom": ["transformer.h[*]", "transformer.h[1].self_attention"],
    "falcon": ["transformer.h[*]", "transformer.h[1].self_attention", "transformer.h[1].mlp"],
    "bert": ["encoder.layer[*]", "encoder.layer[1].attention.self"],
    "roberta": ["encoder.layer[*]", "encoder.layer[1].attention.self"],
    "t5": ["encoder.block[*]", "encoder.block[1].layer[0].SelfAttention"],
    "mamba": ["backbone.layers[*]", "backbone.layers[1].mixer"],
    "phi": ["model.layers[*]", "model.layers[1].self_attn", "model.final_layernorm"],
}
LLAMA_LIKE = ["model.layers[*]", "model.layers[1].self_attn", "model.norm"]
SPLIT_BY_ORACLE = ("vit", "albert")  # have tests of their own below


def modules_of(site: str, model: torch.nn.Module) -> list[str]:
    """The full names of a site, by a regular expression: no code of HookQL's."""
    escaped = re.escape(site).replace(r"\[\*\]", r"\.\d+")
    pattern = re.sub(r"\\\[(\d+)\\\]", r"\\.\1", escaped)
    return [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]


def compare(result: Any, model: torch.nn.Module, site: str, ids: Any, **extra: Any) -> None:
    """A result of one capture of a site against the oracle, module by module."""
    outputs = oracle.outputs_of(model, modules_of(site, model), ids, **extra)
    assert outputs, site
    for module, samples in outputs.items():
        rows = np.concatenate(samples)
        one = result
        if "layer" in result.dims:
            index = int(np.flatnonzero(result["module"].values == module)[0])
            one = result.isel(layer=index)
        oracle.assert_agrees(one, rows)


def extra_of(name: str) -> dict[str, Any]:
    """What a family's plain forward pass needs besides ids."""
    return {"decoder_input_ids": torch.tensor([[0]])} if name == "t5" else {}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SPLIT_BY_ORACLE])
def test_families_agree_with_the_oracle(name: str) -> None:
    """All statistics of blocks, attention and norms equal NumPy's, whatever the family."""
    model, tokenizer, _ = tiny(name)
    ids = oracle.encode(tokenizer, TEXTS)
    for site in SITES.get(name, LLAMA_LIKE):
        query = f"capture {oracle.ALL} from {site}"
        result = hookql.run(query, model=model, tokenizer=tokenizer, texts=TEXTS)
        compare(result.dataset, model, site, ids, **extra_of(name))


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "roberta", "bloom", "mamba", "t5"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batch_size_padding_side_and_order_do_not_matter(name: str, batch_size: int) -> None:
    """Any batch size, padding side and order of the samples give the oracle's numbers."""
    model, tokenizer, _ = tiny(name)
    site = SITES.get(name, LLAMA_LIKE)[0]
    last = modules_of(site, model)[-1]
    ids = oracle.encode(tokenizer, TEXTS)
    rows = np.concatenate(oracle.outputs_of(model, [last], ids, **extra_of(name))[last])
    cls = name in ("bert", "roberta")
    for side in ("left", "right"):
        texts = random.Random(batch_size).sample(TEXTS, len(TEXTS))
        result = hookql.run(
            f"capture {oracle.ALL} from {site}",
            model=model,
            tokenizer=character_tokenizer(side, cls=cls),
            texts=texts,
            batch_size=batch_size,
            tokens_per_batch=100_000,
        )
        oracle.assert_agrees(result.dataset.isel(layer=-1), rows)


def test_a_shared_layer_has_a_call_dimension() -> None:
    """ALBERT runs one layer several times: each call stands apart and equals the oracle."""
    model, tokenizer, _ = tiny("albert")
    ids = oracle.encode(tokenizer, TEXTS)
    site = "encoder.albert_layer_groups[0].albert_layers[0]"
    result = hookql.run(
        f"capture {oracle.ALL} from {site}", model=model, tokenizer=tokenizer, texts=TEXTS
    )
    calls = model.config.num_hidden_layers
    assert calls == result.sizes["call"]
    seen: list[list[np.ndarray]] = []
    with torch.no_grad():
        for row in ids:
            states = model(input_ids=row, output_hidden_states=True).hidden_states
            seen.append([state[0].double().numpy() for state in states[1:]])
    for call in range(calls):
        rows = np.concatenate([states[call] for states in seen])
        oracle.assert_agrees(result.dataset.isel(layer=0, call=call), rows)


def test_vision_models_have_positions_and_no_tokens() -> None:
    """A ViT's patches are rows; its pixels are given directly."""
    model, _, _ = tiny("vit")
    pixels = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = hookql.run(
        f"capture {oracle.ALL} from layers[*] where position >= 1",
        model=model,
        inputs={"pixel_values": pixels},
        batch_size=3,
    )
    with torch.no_grad():
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    for layer in range(2):  # the last hidden state has been through the final norm
        rows = states[layer + 1][:, 1:].double().flatten(0, 1).numpy()
        oracle.assert_agrees(result.dataset.isel(layer=layer), rows)


@pytest.mark.parametrize("side", ["left", "right"])
def test_ids_given_directly_may_be_padded_on_either_side(side: str) -> None:
    """input_ids with a mask are taken apart into samples and padded anew."""
    model, tokenizer, _ = tiny("gpt2")
    tokenizer = character_tokenizer(side)
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True)
    result = hookql.run(
        f"capture {oracle.ALL} from transformer.h[*]",
        model=model,
        inputs={name: inputs[name] for name in ("input_ids", "attention_mask")},
    )
    compare(result.dataset, model, "transformer.h[*]", oracle.encode(tokenizer, TEXTS))


@pytest.mark.parametrize("expert", ["model.layers[*].mlp.experts.act_fn"])
def test_rows_that_are_not_tokens_are_refused(expert: str) -> None:
    """Mixtral's experts see a multiple of the tokens: an error, not a number."""
    model, tokenizer, _ = tiny("mixtral")
    with pytest.raises(hookql.QueryError) as caught:
        hookql.run(f"capture mean from {expert}", model=model, tokenizer=tokenizer, texts=TEXTS)
    assert caught.value.code == "unaligned"
    assert "cannot be aligned with tokens" in caught.value.message
    assert "mlp.experts`" in (caught.value.help or "")


def test_flattened_rows_are_taken_apart() -> None:
    """OPT's router-like (batch * position, feature) rows: Mixtral's gate, held to the oracle."""
    model, tokenizer, _ = tiny("mixtral")
    ids = oracle.encode(tokenizer, TEXTS)
    result = hookql.run(
        f"capture {oracle.ALL} from model.layers[1].mlp.gate where position >= 2",
        model=model,
        tokenizer=tokenizer,
        texts=TEXTS,
    )
    rows = np.concatenate([row[2:] for row in flat_outputs(model, "model.layers.1.mlp.gate", ids)])
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)


def flat_outputs(model: torch.nn.Module, module: str, ids: Any) -> list[np.ndarray]:
    """For each sample, a module's first output, (S, F) as one sample's flat rows are."""
    seen = []

    def hook(_: Any, __: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).double().numpy())

    handle = model.get_submodule(module).register_forward_hook(hook)
    with torch.no_grad():
        for row in ids:
            model(input_ids=row)
    handle.remove()
    return seen


@pytest.mark.real_weights
@pytest.mark.xdist_group("smollm2")
@pytest.mark.parametrize(
    "site", ["model.layers[*]", "model.layers[0:30:7].mlp", "model.layers[-1].self_attn"]
)
def test_smollm2_agrees_with_the_oracle(smollm2: Any, site: str) -> None:
    """Real weights, massive activations and all."""
    model = smollm2.module
    ids = oracle.encode(smollm2.tokenizer, TEXTS)
    result = hookql.run(f"capture {oracle.ALL} from {site}", model=smollm2, texts=TEXTS)
    names = result["module"].values.tolist()
    for index, samples in enumerate(oracle.outputs_of(model, names, ids).values()):
        oracle.assert_agrees(result.dataset.isel(layer=index), np.concatenate(samples))


@pytest.mark.real_weights
@pytest.mark.xdist_group("minilm")
@pytest.mark.parametrize("where", ["", " where not special", " where content_position >= 1"])
def test_minilm_agrees_with_the_oracle(minilm: Any, where: str) -> None:
    """A real encoder with special tokens, kept and left out."""
    model, tokenizer = minilm.module, minilm.tokenizer
    site = "encoder.layer[*]"
    result = hookql.run(f"capture {oracle.ALL} from {site}{where}", model=minilm, texts=TEXTS)
    ids = oracle.encode(tokenizer, TEXTS)
    first = {"": 0, " where not special": 1, " where content_position >= 1": 2}[where]
    last = 0 if not where else 1
    for module, samples in oracle.outputs_of(model, modules_of(site, model), ids).items():
        rows = np.concatenate([row[first : len(row) - last] for row in samples])
        index = int(np.flatnonzero(result["module"].values == module)[0])
        oracle.assert_agrees(result.dataset.isel(layer=index), rows)
