"""T5: the sites of the blocks are the encoder's; the decoder makes the logits."""

from typing import Any

from attrs import evolve
from torch import Tensor

from hookql.models.families.table import Family, at, by_head


def scaled(rows: Tensor, config: Any) -> Tensor:
    """What the model does to the decoder's output where the embedding is also the unembedding."""
    return rows * config.d_model**-0.5 if config.scale_decoder_outputs else rows


FAMILY = Family(
    name="T5",
    types=("t5",),
    bases=(),
    blocks="encoder.block",
    sites={
        "resid_mid": at("layer.1:input"),
        "attn": at("layer.0.SelfAttention"),
        "attn_out": at("layer.0.SelfAttention"),
        "mlp": at("layer.1.DenseReluDense"),
        "mlp_out": at("layer.1.DenseReluDense"),
        "mlp_act": at("layer.1.DenseReluDense.wo:input"),
        "q": at("layer.0.SelfAttention.q", by_head),
        "k": at("layer.0.SelfAttention.k", by_head),
        "v": at("layer.0.SelfAttention.v", by_head),
        "z": at("layer.0.SelfAttention.o:input", by_head),
        "pattern": at("layer.0.SelfAttention:pattern"),
    },
    final_norm="decoder.final_layer_norm",
    unembed="lm_head",
    head=("decoder.final_layer_norm", scaled, "lm_head"),
    stream="target",
    lens_blocks="decoder.block",
    note="the sites of the blocks are the encoder's; `decoder.block[*]` are the decoder's",
)
ENCODER = evolve(
    FAMILY,
    final_norm="encoder.final_layer_norm",
    head="an encoder alone has no unembedding",
    stream="text",
    lens_blocks=None,
    note="",
    when=lambda config: not config.is_encoder_decoder,
)
