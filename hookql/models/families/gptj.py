"""GPT-J: attention and MLP side by side behind one norm, rotary positions."""

from attrs import evolve

from hookql.models.families import gpt2
from hookql.models.families.table import PARALLEL, at, by_head

FAMILY = evolve(
    gpt2.FAMILY,
    name="GPT-J",
    types=("gptj",),
    sites={
        **gpt2.FAMILY.sites,
        "resid_mid": PARALLEL,
        "mlp_act": at("mlp.fc_out:input"),
        "q": at("attn.q_proj", by_head),
        "k": at("attn.k_proj", by_head),
        "v": at("attn.v_proj", by_head),
        "z": at("attn.out_proj:input", by_head),
    },
    design="parallel",
    embeds_positions=False,
)
