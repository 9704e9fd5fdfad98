"""Gemma: Llama's design; the embedding is scaled where the stream starts."""

from attrs import evolve

from hookql.models.families import llama

FAMILY = evolve(llama.FAMILY, name="Gemma", types=("gemma",))
