"""Families that no table names, but whose code is that of one that a table does name.

Names of modules prove nothing: Granite's blocks have Llama's names and add up otherwise. Where the
code of block, model and head is that of a known family, statement by statement, so are the sites.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from importlib import import_module
from typing import Any

from attrs import evolve
from torch import nn

from hookql.models.families import cohere, gemma2, llama, olmo2
from hookql.models.families.table import Family, Sites

# The classes that tables were written from: family, package and prefix of the classes.
_BLOCKS = (
    (llama.FAMILY, "llama", "Llama"),
    (gemma2.FAMILY, "gemma2", "Gemma2"),
    (olmo2.FAMILY, "olmo2", "Olmo2"),
    (evolve(cohere.FAMILY, head=llama.FAMILY.head), "cohere", "Cohere"),
)
_ATTENTIONS = (
    ("llama", "Llama"),
    ("mistral", "Mistral"),
    ("qwen2", "Qwen2"),
    ("qwen3", "Qwen3"),
    ("gemma2", "Gemma2"),
    ("gemma3", "Gemma3"),
    ("olmo2", "Olmo2"),
    ("cohere", "Cohere"),
)
# Calls whose keyword arguments (masks, caches, losses) say nothing about the stream.
_PASSED_ON = ("self_attn", "attention_interface", "model", "loss_function", "decoder_layer")
_OTHER_ATTENTION = "the code of its attention is not that of a known family"
_OTHER_MLP = "the code of its MLP is not that of a known family"


def alike(root: nn.Module, config: Any) -> Family | None:
    """The family whose code a model runs: as that code has it, with sites only where it does."""
    base = root if hasattr(root, "layers") else getattr(root, "model", None)
    blocks = getattr(base, "layers", None)
    if not isinstance(base, nn.Module) or not isinstance(blocks, nn.ModuleList):
        return None
    if not len(blocks) or not _runs_through(type(base)):
        return None
    headed = _original("llama", "LlamaForCausalLM")
    if base is not root and not _same(type(root), headed):
        return None
    for family, package, prefix in _BLOCKS:
        block = _original(package, f"{prefix}DecoderLayer")
        if all(_same(type(each), block) for each in blocks):
            kind = str(getattr(config, "model_type", type(root).__name__))
            return evolve(
                family,
                name=f"`{kind}`",
                types=(kind,),
                sites=_certain(family.sites, list(blocks), config),
                note=f"its code is that of {family.name}" + (family.note and f"; {family.note}"),
            )
    return None


def _certain(sites: Sites, blocks: list[nn.Module], config: Any) -> Sites:
    """The sites less those of an attention or an MLP whose code is another."""
    known = [_original(package, f"{prefix}Attention") for package, prefix in _ATTENTIONS]
    mlp = _original("llama", "LlamaMLP")
    found = dict(sites)
    heads = llama.FAMILY.heads(config)
    for block in blocks:
        attention, network = getattr(block, "self_attn", None), getattr(block, "mlp", None)
        same = any(_same(type(attention), each) for each in known)
        if not same or getattr(attention, "head_dim", None) != heads.width:
            found |= dict.fromkeys(("q", "k", "v", "z", "pattern"), _OTHER_ATTENTION)
        if not _same(type(network), mlp):
            found |= {"mlp_act": _OTHER_MLP}
    return found


def _original(package: str, name: str) -> type:
    cls: type = getattr(import_module(f"transformers.models.{package}.modeling_{package}"), name)
    return cls


def _same(one: type, other: type) -> bool:
    body = _body(one)
    return body is not None and [ast.dump(s) for s in body] == [
        ast.dump(s) for s in _body(other) or ()
    ]


def _runs_through(cls: type) -> bool:
    """Whether a model passes the stream from block to block, and then through its norm alone."""
    body = _body(cls) or []
    loops = [i for i, statement in enumerate(body) if isinstance(statement, ast.For)]
    if len(loops) != 1 or len(body) != loops[0] + 3:
        return False
    loop, norm, returned = body[loops[0] :]
    assert isinstance(loop, ast.For)
    inside = [ast.unparse(statement) for statement in loop.body]
    kept = "last_hidden_state=hidden_states" in ast.unparse(returned)
    through = inside == ["hidden_states = decoder_layer(hidden_states)"]
    return through and kept and ast.unparse(norm) == "hidden_states = self.norm(hidden_states)"


@cache
def _body(cls: type) -> list[ast.stmt] | None:
    """The statements of a class's forward without what is passed on; None without a source."""
    try:
        source = inspect.getsource(cls.forward)  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return None
    function = ast.parse(textwrap.dedent(source)).body[0]
    if not isinstance(function, ast.FunctionDef):
        return None
    function = _Plain().visit(function)
    documented = isinstance(function.body[0], ast.Expr)
    body: list[ast.stmt] = function.body[1 if documented else 0 :]
    return body


class _Plain(ast.NodeTransformer):
    """Takes annotations away, and arguments behind the first of calls that pass things on."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        assert node.value is not None
        return self.generic_visit(ast.Assign([node.target], node.value))

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        # `hidden_states, self_attn_weights = ...`: what the second is called is no matter.
        if isinstance(node.ctx, ast.Store) and len(node.elts) == 2:
            node.elts[1] = ast.Name("_", ast.Store())
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in _PASSED_ON:
            stream = [k.value for k in node.keywords if k.arg == "hidden_states"]
            node.args, node.keywords = (node.args or stream)[:4], []
        return self.generic_visit(node)
