"""Granite: Llama's design; what a half adds is its output times a multiplier of the config."""

from typing import Any

from attrs import evolve
from torch import Tensor

from hookql.models.families import llama
from hookql.models.families.table import at, multiplied_by


def divided(logits: Tensor, config: Any) -> Tensor:
    """What the model does to its logits."""
    return logits / float(config.logits_scaling)


FAMILY = evolve(
    llama.FAMILY,
    name="Granite",
    types=("granite",),
    sites={
        **llama.SITES,
        "attn": at("self_attn", multiplied_by("residual_multiplier")),
        "mlp": at("mlp", multiplied_by("residual_multiplier")),
    },
    head=(*llama.FAMILY.head, divided),
    note="`@attn` and `@mlp` are what is added: the modules' output times `residual_multiplier`",
)
