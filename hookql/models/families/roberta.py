"""RoBERTa: BERT's design with a head of its own."""

from typing import Any

from attrs import evolve
from torch import Tensor
from torch.nn.functional import gelu

from hookql.models.families import bert


def activation(rows: Tensor, config: Any) -> Tensor:
    """The head's activation, which is no module."""
    return gelu(rows)


FAMILY = evolve(
    bert.FAMILY,
    name="RoBERTa",
    types=("roberta", "xlm-roberta"),
    bases=("roberta",),
    unembed="lm_head.decoder",
    head=("lm_head.dense", activation, "lm_head.layer_norm", "lm_head.decoder"),
)
