"""The canonical sites of GPT-BigCode, which HookQL does not know."""

import hookql

hookql.sites(
    "GPT-BigCode",
    model="gpt_bigcode",
    blocks="transformer.h",
    sites={
        "attn": "attn",
        "attn_out": "attn",
        "resid_mid": "ln_2:input",
        "mlp": "mlp",
        "mlp_out": "mlp",
        "mlp_act": "mlp.c_proj:input",
        "z": "attn.c_proj:input",
    },
    final_norm="transformer.ln_f",
    unembed="lm_head",
    heads=lambda model: (model.config.n_head, 1, model.config.n_embd // model.config.n_head),
)
