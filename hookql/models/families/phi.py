"""Phi 1 to 2: attention and MLP side by side behind one norm."""

from hookql.models.families.table import PARALLEL, Family, at, by_head, by_kv_head

FAMILY = Family(
    name="Phi",
    types=("phi",),
    bases=("model",),
    blocks="{base}layers",
    sites={
        "resid_mid": PARALLEL,
        "attn": at("self_attn"),
        "attn_out": at("self_attn"),
        "mlp": at("mlp"),
        "mlp_out": at("mlp"),
        "mlp_act": at("mlp.fc2:input"),
        "q": at("self_attn.q_layernorm|self_attn.q_proj", by_head),
        "k": at("self_attn.k_layernorm|self_attn.k_proj", by_kv_head),
        "v": at("self_attn.v_proj", by_kv_head),
        "z": at("self_attn.dense:input", by_head),
        "pattern": at("self_attn:pattern"),
    },
    final_norm="{base}final_layernorm",
    unembed="lm_head",
    head=("{base}final_layernorm", "lm_head"),
    design="parallel",
)
