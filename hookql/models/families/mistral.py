"""Mistral: Llama's design with a sliding window."""

from attrs import evolve

from hookql.models.families import llama

FAMILY = evolve(llama.FAMILY, name="Mistral", types=("mistral",))
