"""TransformerLens's names for the places of a model, as canonical sites: ``blocks.4.hook_z``."""

from __future__ import annotations

from attrs import frozen
from torch import nn

from hookql.errors import Diagnostic, QueryError, Source
from hookql.language import ast

# Of a block.
_SITES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn",
    "hook_mlp_out": "mlp",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_z": "z",
    "attn.hook_pattern": "pattern",
    "mlp.hook_post": "mlp_act",
}
# Of the whole model; the embedding is looked at apart, as positions may be added to it.
_MODEL_SITES = {"ln_final.hook_normalized": "final_norm"}
# What TransformerLens computes and transformers does not: what is near.
_NEAR = {
    "attn.hook_attn_scores": "`@pattern` is their softmax, and `@q` and `@k` make them",
    "attn.hook_rot_q": "`@q` is the query before rotary positions",
    "attn.hook_rot_k": "`@k` is the key before rotary positions",
    "attn.hook_result": "`@z` is by head before the output projection, and `@attn_out` after it",
    "hook_attn_in": "`@resid_pre` is what the block reads",
    "hook_q_input": "`@resid_pre` is what the block reads",
    "hook_k_input": "`@resid_pre` is what the block reads",
    "hook_v_input": "`@resid_pre` is what the block reads",
    "hook_mlp_in": "`@resid_mid` is what the second half reads",
    "mlp.hook_pre": "write the path of the projection before it; `@mlp_act` comes after it",
    "mlp.hook_pre_linear": "write the path of the projection whose output it is",
    "ln1.hook_normalized": "write the path of the norm: its output has the weights in it",
    "ln2.hook_normalized": "write the path of the norm: its output has the weights in it",
    "ln1.hook_scale": "write the path of the norm with `:input`, and take `std` or `norm` of it",
    "ln2.hook_scale": "write the path of the norm with `:input`, and take `std` or `norm` of it",
    "ln_final.hook_scale": "`@resid_post[-1]` is what the final norm reads",
    "hook_pos_embed": "write the path of the position embedding; `@embed` is the stream's start",
    "hook_tokens": "the tokens are the columns `token` and `next`",
}


@frozen(eq=False)
class Synonym:
    """What a TransformerLens name means: a canonical site, or the token embedding alone."""

    site: ast.CanonicalSite
    embedding: bool = False


def synonym(root: nn.Module, site: ast.PathSite, source: Source) -> Synonym | None:
    """The meaning of a path in TransformerLens's style, None where it is a path like any other.

    A model that has a module of the path's first name means that module.

    Raises:
        QueryError: a name of TransformerLens's for what transformers' models do not compute.
    """
    steps = site.path.steps
    first = steps[0]
    last = steps[-1]
    if not isinstance(first, ast.NameStep) or not isinstance(last, ast.NameStep):
        return None
    if not last.name.startswith("hook_") or site.isa is not None:
        return None
    if any(name.rpartition(".")[2] == first.name for name, _ in root.named_modules()):
        return None
    index, rest = None, steps
    if first.name == "blocks" and len(steps) > 2:
        index, rest = _index(steps[1]), steps[2:]
        if index is None:
            return None
    if not all(isinstance(step, ast.NameStep) for step in rest):
        return None
    name = ".".join(step.name for step in rest if isinstance(step, ast.NameStep))
    if index is None and name == "hook_embed":
        return Synonym(ast.CanonicalSite("embed", None, site.port, span=site.span), embedding=True)
    canonical = (_MODEL_SITES if index is None else _SITES).get(name)
    if canonical is not None:
        return Synonym(ast.CanonicalSite(canonical, index, site.port, span=site.span))
    near = _NEAR.get(name)
    if near is None:
        return None
    message = f"`{name}` of TransformerLens has no canonical site"
    raise QueryError(Diagnostic("no-such-site", message, site.path.span, source, near))


def _index(step: ast.Step) -> ast.IndexStep | None:
    """``[0:3]``, ``.4`` or ``.*`` as an index."""
    if isinstance(step, ast.IndexStep):
        return step
    if isinstance(step, ast.NameStep) and step.name.isascii() and step.name.isdigit():
        return ast.IndexStep((int(step.name),), span=step.span)
    if isinstance(step, ast.GlobStep) and step.alternatives == ("*",):
        return ast.IndexStep((ast.Slice(),), span=step.span)
    return None
