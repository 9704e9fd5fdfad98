"""DistilBERT: BERT's design with other names."""

from attrs import evolve

from hookql.models.families import bert
from hookql.models.families.table import at, by_head

FAMILY = evolve(
    bert.FAMILY,
    name="DistilBERT",
    types=("distilbert",),
    bases=("distilbert",),
    blocks="{base}transformer.layer",
    sites={
        "resid_mid": at("sa_layer_norm"),
        "attn": at("attention"),
        "attn_out": at("attention"),
        "mlp": at("ffn"),
        "mlp_out": at("ffn"),
        "mlp_act": at("ffn.lin2:input"),
        "q": at("attention.q_lin", by_head),
        "k": at("attention.k_lin", by_head),
        "v": at("attention.v_lin", by_head),
        "z": at("attention.out_lin:input", by_head),
        "pattern": at("attention:pattern"),
    },
    unembed="vocab_projector",
    head=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
)
