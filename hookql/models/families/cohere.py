"""Cohere's Command R: attention and MLP side by side behind one norm; logits are scaled."""

from typing import Any

from attrs import evolve
from torch import Tensor

from hookql.models.families import llama
from hookql.models.families.table import PARALLEL


def scaled(logits: Tensor, config: Any) -> Tensor:
    """What the model does to its logits."""
    return logits * float(config.logit_scale)


FAMILY = evolve(
    llama.FAMILY,
    name="Cohere",
    types=("cohere",),
    sites={**llama.SITES, "resid_mid": PARALLEL},
    head=(*llama.FAMILY.head, scaled),
    design="parallel",
)
