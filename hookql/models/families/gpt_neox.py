"""GPT-NeoX and Pythia: one projection interleaved by head; side by side, or one after another."""

from attrs import evolve

from hookql.models.families.table import PARALLEL, Family, at, by_head, interleaved

SITES = {
    "resid_mid": at("post_attention_layernorm:input"),
    "attn": at("attention"),
    "attn_out": at("attention"),
    "mlp": at("mlp"),
    "mlp_out": at("mlp"),
    "mlp_act": at("mlp.dense_4h_to_h:input"),
    "q": at("attention.query_key_value", interleaved("q")),
    "k": at("attention.query_key_value", interleaved("k")),
    "v": at("attention.query_key_value", interleaved("v")),
    "z": at("attention.dense:input", by_head),
    "pattern": at("attention:pattern"),
}

SEQUENTIAL = Family(
    name="GPT-NeoX",
    types=("gpt_neox",),
    bases=("gpt_neox",),
    blocks="{base}layers",
    sites=SITES,
    final_norm="{base}final_layer_norm",
    unembed="lm_head",
    head=("{base}final_layer_norm", "lm_head"),
)
SIDE_BY_SIDE = evolve(
    SEQUENTIAL,
    sites={**SITES, "resid_mid": PARALLEL},
    design="parallel",
    when=lambda config: config.use_parallel_residual,
)
