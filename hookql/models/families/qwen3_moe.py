"""Qwen3-MoE: Qwen3's design with a mixture of experts for an MLP in all or some blocks."""

from attrs import evolve

from hookql.models.families import qwen2_moe

FAMILY = evolve(qwen2_moe.FAMILY, name="Qwen3-MoE", types=("qwen3_moe",))
