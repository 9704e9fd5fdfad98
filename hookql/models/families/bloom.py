"""Bloom: one projection interleaved by head; attention and MLP modules return the whole stream."""

from attrs import evolve

from hookql.models.families.table import Family, at, by_head, interleaved

SITES = {
    "resid_mid": at("post_attention_layernorm:input"),
    "attn": at("self_attention.dense"),
    "attn_out": at("self_attention.dense"),
    "mlp": at("mlp.dense_4h_to_h"),
    "mlp_out": at("mlp.dense_4h_to_h"),
    "mlp_act": at("mlp.dense_4h_to_h:input"),
    "q": at("self_attention.query_key_value", interleaved("q")),
    "k": at("self_attention.query_key_value", interleaved("k")),
    "v": at("self_attention.query_key_value", interleaved("v")),
    "z": at("self_attention.dense:input", by_head),
    "pattern": at("self_attention:pattern"),
}
_RESTARTED = "this model's residual connections begin behind the norms: no stream runs through"

FAMILY = Family(
    name="Bloom",
    types=("bloom",),
    bases=("transformer",),
    blocks="{base}h",
    sites=SITES,
    final_norm="{base}ln_f",
    unembed="lm_head",
    head=("{base}ln_f", "lm_head"),
    embeds_positions=True,  # a norm stands behind the embedding
    note="`@attn` and `@mlp` are what is added: the modules' own output includes the stream",
)
RESTARTED = evolve(
    FAMILY,
    sites={**SITES, "resid_mid": _RESTARTED, "attn": _RESTARTED, "mlp": _RESTARTED},
    when=lambda config: config.apply_residual_connection_post_layernorm,
)
