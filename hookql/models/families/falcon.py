"""Falcon: one projection interleaved by group; side by side, or one after another with alibi."""

from typing import Any

from attrs import evolve

from hookql.models.families import bloom
from hookql.models.families.table import PARALLEL, Heads, at


def heads(config: Any) -> Heads:
    """One key for all queries (multi-query), one for each, or one for a group of them."""
    queries = config.num_attention_heads
    keys = 1 if config.multi_query else queries
    if config.new_decoder_architecture:
        keys = config.num_kv_heads
    return Heads(queries, keys, config.hidden_size // queries)


SITES = {
    **bloom.SITES,
    "attn": at("self_attention"),
    "attn_out": at("self_attention"),
    "mlp": at("mlp"),
    "mlp_out": at("mlp"),
}

SEQUENTIAL = evolve(
    bloom.FAMILY,
    name="Falcon",
    types=("falcon",),
    sites=SITES,
    heads=heads,
    embeds_positions=False,
    note="",
)
SIDE_BY_SIDE = evolve(
    SEQUENTIAL,
    sites={**SITES, "resid_mid": PARALLEL},
    design="parallel",
    when=lambda config: config.parallel_attn or config.new_decoder_architecture,
)
