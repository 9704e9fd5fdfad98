"""Qwen3: Llama's design with a norm on each head's queries and keys, before rotary."""

from attrs import evolve

from hookql.models.families import llama

FAMILY = evolve(llama.FAMILY, name="Qwen3", types=("qwen3",))
