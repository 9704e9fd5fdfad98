"""Gemma 2: a norm before and one after each half; soft caps on scores and logits."""

from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from hookql.models.families import llama
from hookql.models.families.table import at


def softcap(logits: Tensor, config: Any) -> Tensor:
    """What the model does to its logits, in the same order."""
    cap = config.final_logit_softcapping
    return logits if cap is None else torch.tanh(logits / cap) * cap


SITES = {
    **llama.SITES,
    "attn": at("post_attention_layernorm"),
    "resid_mid": at("pre_feedforward_layernorm:input"),
    "mlp": at("post_feedforward_layernorm"),
}

FAMILY = evolve(
    llama.FAMILY,
    name="Gemma 2",
    types=("gemma2",),
    sites=SITES,
    head=(*llama.FAMILY.head, softcap),
    note="a norm stands behind attention and MLP: `@attn` and `@mlp` are what is added, after it",
)
