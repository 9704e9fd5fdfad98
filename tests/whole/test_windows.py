"""Attention that sees a window of keys, from end to end: each key over the queries that see it."""

from __future__ import annotations

import numpy as np
import torch
import transformers as hf

import hookql
from tests.tiny import BOS, EOS, PAD, VOCABULARY, character_tokenizer
from tests.whole.margins import check

WINDOW = 4
TEXTS = ["To be or not to be", "ab", "New York", "abcde", "abcd"]


def test_a_window_of_keys() -> None:
    """A key pools the queries from its own place to the last that reaches back to it."""
    torch.manual_seed(3)
    config = hf.MistralConfig(
        vocab_size=VOCABULARY,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        sliding_window=WINDOW,
        attn_implementation="eager",
        architectures=["MistralForCausalLM"],
    )
    model, tokenizer = hf.MistralForCausalLM(config).float().eval(), character_tokenizer()
    seen: dict[int, list[np.ndarray]] = {}
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            (weights,) = model(input_ids=ids, output_attentions=True).attentions
        whole = weights[0].double().numpy()
        for query in range(whole.shape[1]):
            for key in range(query + 1):
                if query - key < WINDOW:
                    seen.setdefault(key, []).append(whole[:, query, key])
                else:
                    assert not whole[:, query, key].any()
    query = "capture mean, sum as total, min from @pattern[0] as all_keys"
    result = hookql.run(query, model=model, tokenizer=tokenizer, texts=TEXTS, batch_size=3)
    data = result.dataset.isel(layer=0)
    assert len(seen) == data.sizes["key"]
    for key, rows in seen.items():
        one = data.isel(key=key)
        check(np.mean(rows, 0), one["mean"], 1e-6, f"mean of key {key}")
        check(np.sum(rows, 0), one["total"], 1e-6 * len(rows), f"sum of key {key}")
        check(np.min(rows, 0), one["min"], 1e-6, f"min of key {key}")
