"""Gemma 3's text models: Gemma 2's design with a norm on each head's queries and keys."""

from attrs import evolve

from hookql.models.families import gemma2

FAMILY = evolve(gemma2.FAMILY, name="Gemma 3", types=("gemma3_text",))
