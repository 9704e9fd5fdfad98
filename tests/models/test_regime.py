"""Lengths that may not share a batch: rotary embeddings that follow the longest sample."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn

import hookql
from hookql.models.regime import length_group
from tests import oracle
from tests.tiny import character_tokenizer

SHORT, LONG = ["abc", "To be, or not"], ["x" * 17, "that is the question.", "y" * 40]
TEXTS = [SHORT[0], LONG[0], SHORT[1], *LONG[1:]]
BOUND = 16
COMMON: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "max_position_embeddings": 64,
}  # fmt: skip


def longrope() -> nn.Module:
    """A Phi-3 whose frequencies change beyond 16 tokens."""
    torch.manual_seed(5)
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0, 4, 5, 6],
            "rope_theta": 10000.0}  # fmt: skip
    config = hf.Phi3Config(**COMMON, original_max_position_embeddings=BOUND, rope_parameters=rope)
    return hf.Phi3ForCausalLM(config).eval()


def batches_run(model: nn.Module) -> list[list[int]]:
    """The lengths in each batch that will be run, noted as it is run."""
    seen: list[list[int]] = []
    forward = model.forward

    def noting(*args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attention_mask")
        if mask is not None:
            seen.append(mask.sum(1).tolist())
        return forward(*args, **kwargs)

    model.forward = noting
    # `hookql` reads the names of the arguments off the model's own signature.
    noting.__wrapped__ = forward
    return seen


def test_longrope_shows_what_it_does() -> None:
    """The premise: a long neighbour changes a short sample's values in this model."""
    model, tokenizer = longrope(), character_tokenizer()
    alone = tokenizer([SHORT[1]], return_tensors="pt")
    both = tokenizer([SHORT[1], LONG[2]], return_tensors="pt", padding=True)
    with torch.no_grad():
        a = model(input_ids=alone["input_ids"], attention_mask=alone["attention_mask"]).logits[0]
        b = model(input_ids=both["input_ids"], attention_mask=both["attention_mask"]).logits[0]
    assert float((a - b[: len(a)]).abs().max()) > 1e-4


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[::-1]])
def test_no_batch_mixes_regimes_and_the_oracle_agrees(texts: list[str]) -> None:
    """Short and long samples never share a batch; one by one the numbers are the same."""
    model, tokenizer = longrope(), character_tokenizer()
    ids = oracle.encode(tokenizer, texts)
    expected = oracle.outputs_of(model, ["model.layers.1"], ids)["model.layers.1"]
    seen = batches_run(model)
    result = hookql.run(
        f"capture {oracle.ALL} from model.layers[1]",
        model=model,
        tokenizer=tokenizer,
        texts=texts,
        tokens_per_batch=10_000,
    )
    # The data's batches are the last ones: the probe's came before them.
    data = seen[-int(result.attrs["batches"]) :]
    assert sorted(map(len, texts)) == sorted(n for lengths in data for n in lengths)
    assert 2 == len(data)
    for lengths in data:
        assert 1 == len({n > BOUND for n in lengths})
    oracle.assert_agrees(result.dataset.isel(layer=0), np.concatenate(expected))


def config(**rope: Any) -> nn.Module:
    """A module with a config that holds rotary settings."""
    module = nn.Linear(1, 1)
    module.config = SimpleNamespace(**rope)
    return module


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({}, [0, 0, 0, 0]),
        ({"rope_scaling": None}, [0, 0, 0, 0]),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, [0, 0, 0, 0]),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, [0, 0, 0, 0]),
        ({"rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 16}},
         [0, 0, 0, 0]),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 16}},
         [0, 0, 1, 1]),
        ({"rope_parameters": {"rope_type": "longrope"}, "original_max_position_embeddings": 16},
         [0, 0, 1, 1]),
        ({"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 16}},
         [0, 0, 1, 1]),
        ({"rope_parameters": {"rope_type": "dynamic"}, "max_position_embeddings": 16},
         [0, 0, 0, 0]),
        ({"rope_parameters": {"rope_type": "dynamic", "original_max_position_embeddings": 16},
          "max_position_embeddings": 64}, [0, 0, 0, 0]),
        ({"rope_parameters": {"full": {"rope_type": "default"},
                              "sliding": {"rope_type": "longrope",
                                          "original_max_position_embeddings": 16}}},
         [0, 0, 1, 1]),
    ],
)  # fmt: skip
def test_lengths_are_grouped_by_what_the_config_says(settings: Any, groups: list[int]) -> None:
    """Only lengths of one group may share a batch: of 3, 16, 17 and 40."""
    group = length_group(config(**settings), padding_leaks=False)
    assert groups == [group(n) for n in (3, 16, 17, 40)]


def test_leaking_padding_keeps_each_length_alone() -> None:
    """Whatever the config says."""
    group = length_group(config(), padding_leaks=True)
    assert [3, 16, 17] == [group(n) for n in (3, 16, 17)]


def test_a_module_without_a_config_has_one_group() -> None:
    """Any length may join any other."""
    group = length_group(nn.Linear(1, 1), padding_leaks=False)
    assert {0} == {group(n) for n in (1, 100, 10_000)}
