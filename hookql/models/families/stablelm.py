"""StableLM: Llama's design, or attention and MLP side by side."""

from attrs import evolve

from hookql.models.families import llama
from hookql.models.families.table import PARALLEL, at, by_head, by_kv_head

SITES = {
    **llama.SITES,
    "q": at("self_attn.q_layernorm|self_attn.q_proj", by_head),
    "k": at("self_attn.k_layernorm|self_attn.k_proj", by_kv_head),
}

SEQUENTIAL = evolve(llama.FAMILY, name="StableLM", types=("stablelm",), sites=SITES)
SIDE_BY_SIDE = evolve(
    SEQUENTIAL,
    sites={**SITES, "resid_mid": PARALLEL},
    design="parallel",
    when=lambda config: config.use_parallel_residual,
)
