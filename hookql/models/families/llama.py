"""Llama: pre-norm, separate projections, grouped-query attention, a gated MLP."""

from hookql.models.families.table import Family, at, by_head, by_kv_head

SITES = {
    "resid_mid": at("post_attention_layernorm:input"),
    "attn": at("self_attn"),
    "attn_out": at("self_attn"),
    "mlp": at("mlp"),
    "mlp_out": at("mlp"),
    "mlp_act": at("mlp.down_proj:input"),
    "q": at("self_attn.q_norm|self_attn.q_proj", by_head),
    "k": at("self_attn.k_norm|self_attn.k_proj", by_kv_head),
    "v": at("self_attn.v_proj", by_kv_head),
    "z": at("self_attn.o_proj:input", by_head),
    "pattern": at("self_attn:pattern"),
}

FAMILY = Family(
    name="Llama",
    types=("llama",),
    bases=("model",),
    blocks="{base}layers",
    sites=SITES,
    final_norm="{base}norm",
    unembed="lm_head",
    head=("{base}norm", "lm_head"),
)
