"""GPT-Neo: GPT-2's design with separate projections; scores are not scaled."""

from attrs import evolve

from hookql.models.families import gpt2
from hookql.models.families.table import at, by_head

FAMILY = evolve(
    gpt2.FAMILY,
    name="GPT-Neo",
    types=("gpt_neo",),
    sites={
        **gpt2.FAMILY.sites,
        "q": at("attn.attention.q_proj", by_head),
        "k": at("attn.attention.k_proj", by_head),
        "v": at("attn.attention.v_proj", by_head),
        "z": at("attn.attention.out_proj:input", by_head),
        "pattern": at("attn.attention:pattern"),
    },
)
