"""GPT-2: pre-norm, learned positions, queries, keys and values in one projection."""

from hookql.models.families.table import Family, at, by_head, concatenated

FAMILY = Family(
    name="GPT-2",
    types=("gpt2",),
    bases=("transformer",),
    blocks="{base}h",
    sites={
        "resid_mid": at("ln_2:input"),
        "attn": at("attn"),
        "attn_out": at("attn"),
        "mlp": at("mlp"),
        "mlp_out": at("mlp"),
        "mlp_act": at("mlp.c_proj:input"),
        "q": at("attn.c_attn", concatenated("q")),
        "k": at("attn.c_attn", concatenated("k")),
        "v": at("attn.c_attn", concatenated("v")),
        "z": at("attn.c_proj:input", by_head),
        "pattern": at("attn:pattern"),
    },
    final_norm="{base}ln_f",
    unembed="lm_head",
    head=("{base}ln_f", "lm_head"),
    embeds_positions=True,
)
