"""Mixtral: Llama's design with a mixture of experts for an MLP."""

from attrs import evolve

from hookql.models.families import llama

EXPERTS = "its MLP is a mixture of experts and has no single down projection"

FAMILY = evolve(
    llama.FAMILY,
    name="Mixtral",
    types=("mixtral",),
    sites={**llama.SITES, "mlp_act": EXPERTS},
)
