"""ViT: a pre-norm encoder of image patches."""

from hookql.models.families.table import NO_VOCABULARY, Family, at, by_head

FAMILY = Family(
    name="ViT",
    types=("vit",),
    bases=("vit",),
    blocks="{base}layers",
    sites={
        "resid_mid": at("layernorm_after:input"),
        "attn": at("attention"),
        "attn_out": at("attention"),
        "mlp": at("mlp"),
        "mlp_out": at("mlp"),
        "mlp_act": at("mlp.fc2:input"),
        "q": at("attention.q_proj", by_head),
        "k": at("attention.k_proj", by_head),
        "v": at("attention.v_proj", by_head),
        "z": at("attention.o_proj:input", by_head),
        "pattern": at("attention:pattern"),
    },
    final_norm="{base}layernorm",
    unembed=None,
    head=NO_VOCABULARY,
    embeds_positions=True,
)
