"""The sites that made queries look at, and what may be asked of each."""

from __future__ import annotations

from attrs import frozen

from tests.reference.models import FAMILIES


@frozen
class Where:
    """Sites that are alike: their text, the axes of a row and the fewest numbers along the last."""

    text: str
    dims: tuple[str, ...] = ("feature",)
    width: int = 16
    pairs: bool = False
    layered: bool = True
    heads: int = 0


_GPT2 = (
    Where("h[*]", pairs=True),
    Where("transformer.h[0:1]", pairs=True),
    Where("h.1"),
    Where("h[*].{attn,mlp}"),
    Where("h[*].attn:input"),
    Where("h[-1].attn:output[0]"),
    Where("h[*].mlp", pairs=True),
    Where("transformer.h[::2].mlp.act", width=64, pairs=True),
    Where("h[1,0].mlp.c_proj:input", width=64),
    Where("h[*].ln_?", pairs=True),
    Where("transformer.ln_f", pairs=True, layered=False),
    Where("**.c_proj"),
    Where("** isa linear except lm_head"),
    Where("** isa LayerNorm except transformer.ln_f", pairs=True),
    Where("transformer.h[*].attn:pattern", ("head", "key"), heads=4),
    Where("output", width=128, layered=False),
    Where("lm_head", width=128, layered=False),
    Where("h[*], h[0].mlp.act"),
)
_LLAMA = (
    Where("layers[*]", pairs=True),
    Where("model.layers[1:]", pairs=True),
    Where("layers[*].self_attn"),
    Where("layers[*].self_attn:input"),
    Where("layers[0].self_attn:input.hidden_states"),
    Where("layers[*].mlp.act_fn", width=24, pairs=True),
    Where("layers[*].{mlp,self_attn}"),
    Where("layers[*].self_attn.{k,v}_proj", width=8),
    Where("** isa LlamaRMSNorm except norm", pairs=True),
    Where("model.norm", pairs=True, layered=False),
    Where("**.down_proj:input", width=24),
    Where("layers[*].self_attn:pattern", ("head", "key"), heads=4),
    Where("output", width=128, layered=False),
)
_BERT = (
    Where("encoder.layer[*]", pairs=True),
    Where("encoder.layer[-1]"),
    Where("encoder.layer[*].attention.self"),
    Where("encoder.layer[*].intermediate", width=24),
    Where("encoder.layer[*].output"),
    Where("**.LayerNorm except embeddings.LayerNorm", pairs=True),
    Where("embeddings", layered=False),
    Where("encoder.layer[*].attention.self:pattern", ("head", "key"), heads=4),
)
_PATHS = {"gpt2": _GPT2, "llama": _LLAMA, "bert": _BERT}
_STREAM = ("resid_pre", "resid_mid", "resid_post")
_ADDED = ("attn", "mlp", "attn_out", "mlp_out")


def _canonical(family: str) -> list[Where]:
    names = [(name, ("feature",), 16, 0) for name in (*_STREAM, "block")]
    names += [] if family == "bert" else [(name, ("feature",), 16, 0) for name in _ADDED]
    names.append(("mlp_act", ("feature",), 64 if family == "gpt2" else 24, 0))
    kv = 2 if family == "llama" else 4
    for name, heads in (("q", 4), ("z", 4), ("k", kv), ("v", kv)):
        names.append((name, ("head", "feature"), 4, heads))
    names.append(("pattern", ("head", "key"), 0, 4))
    found = [
        Where(f"@{name}{index}", dims, width, name == "block", True, heads)
        for name, dims, width, heads in names
        for index in ("[*]", "[-1]")
    ]
    alone = ("embed",) if family == "bert" else ("embed", "final_norm")
    return found + [Where(f"@{name}", layered=False) for name in alone]


PLACES = {family: (*_PATHS[family], *_canonical(family)) for family in FAMILIES}
