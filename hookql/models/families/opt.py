"""OPT: learned positions; norms before each half or, in OPT-350m, after it; MLP rows are flat."""

from attrs import evolve

from hookql.models.families.table import Family, at, by_head

SITES = {
    "resid_mid": at("final_layer_norm:input"),
    "attn": at("self_attn"),
    "attn_out": at("self_attn"),
    "mlp": at("fc2"),
    "mlp_out": at("fc2"),
    "mlp_act": at("fc2:input"),
    "q": at("self_attn.q_proj", by_head),
    "k": at("self_attn.k_proj", by_head),
    "v": at("self_attn.v_proj", by_head),
    "z": at("self_attn.out_proj:input", by_head),
    "pattern": at("self_attn:pattern"),
}

PRE_NORM = Family(
    name="OPT",
    types=("opt",),
    bases=("model.decoder", "decoder", "model"),
    blocks="{base}layers",
    sites=SITES,
    final_norm="{base}final_layer_norm",
    unembed="lm_head",
    head=("?{base}final_layer_norm", "?{base}project_out", "lm_head"),
    embeds_positions=True,
)
POST_NORM = evolve(
    PRE_NORM,
    sites={**SITES, "resid_mid": at("self_attn_layer_norm")},
    final_norm=None,
    design="post-norm",
    note="the stream is normed after each half: `@resid_mid` is the norm of what was added up",
    when=lambda config: not config.do_layer_norm_before,
)
