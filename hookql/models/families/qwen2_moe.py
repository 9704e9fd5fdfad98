"""Qwen2-MoE: Llama's design with a mixture of experts for an MLP in all or some blocks."""

from attrs import evolve

from hookql.models.families import llama, mixtral

FAMILY = evolve(
    llama.FAMILY,
    name="Qwen2-MoE",
    types=("qwen2_moe",),
    sites={**llama.SITES, "mlp_act": mixtral.EXPERTS},
)
