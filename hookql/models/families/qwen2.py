"""Qwen2: Llama's design with biases on queries, keys and values."""

from attrs import evolve

from hookql.models.families import llama

FAMILY = evolve(llama.FAMILY, name="Qwen2", types=("qwen2",))
