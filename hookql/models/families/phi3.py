"""Phi-3: Llama's design with queries, keys and values in one projection, one behind another."""

from attrs import evolve

from hookql.models.families import llama
from hookql.models.families.table import at, concatenated

FAMILY = evolve(
    llama.FAMILY,
    name="Phi-3",
    types=("phi3",),
    sites={
        **llama.SITES,
        "q": at("self_attn.qkv_proj", concatenated("q")),
        "k": at("self_attn.qkv_proj", concatenated("k")),
        "v": at("self_attn.qkv_proj", concatenated("v")),
    },
)
