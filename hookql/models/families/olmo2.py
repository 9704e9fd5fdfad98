"""OLMo 2: norms behind attention and MLP only, inside the branch; queries and keys are normed."""

from attrs import evolve

from hookql.models.families import llama
from hookql.models.families.table import at

FAMILY = evolve(
    llama.FAMILY,
    name="OLMo 2",
    types=("olmo2",),
    sites={
        **llama.SITES,
        "attn": at("post_attention_layernorm"),
        "resid_mid": at("mlp:input"),
        "mlp": at("post_feedforward_layernorm"),
    },
    note="a norm stands behind attention and MLP: `@attn` and `@mlp` are what is added, after it",
)
