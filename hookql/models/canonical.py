"""Canonical sites: where ``@resid_post[4]`` is in a given model, by the table of its family."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import nn

from hookql.errors import Diagnostic, listing
from hookql.models.families import FAMILIES
from hookql.models.families.offered import offered
from hookql.models.families.structure import alike
from hookql.models.families.table import BLOCK_SITES, CANONICAL_NAMES, Family, Heads, Spot
from hookql.models.ports import HookPoint
from hookql.models.views import View


@frozen
class Place:
    """One tensor of a canonical site: its hook point, the piece that is meant, and its layer."""

    point: HookPoint
    view: View | None = None
    layer: int | None = None


@frozen(eq=False)
class Anatomy:
    """A model of a known family: the table, bound to the modules."""

    root: nn.Module
    family: Family
    base: str  # "transformer." or ""
    config: Any
    heads: Heads
    blocks: tuple[nn.Module, ...]

    def path(self, template: str) -> str:
        """A path of the table as this model has it."""
        return template.replace("{base}", self.base)

    def find(self, template: str) -> nn.Module | None:
        """The module at a path of the table, None where there is none."""
        return _module(self.root, self.path(template))

    @property
    def headless(self) -> Diagnostic | None:
        """Why there are no logits, where there are none."""
        if isinstance(self.family.head, str) or self.family.unembed is None:
            reason = self.family.head if isinstance(self.family.head, str) else "no unembedding"
            return self._no_head(reason)
        if self.find(self.family.unembed) is None:
            return self._no_head("it has no unembedding")
        return None

    def _no_head(self, reason: str) -> Diagnostic:
        message = f"{type(self.root).__name__} makes no logits of tokens: {reason}"
        return Diagnostic("no-head", message, help="write `output` for what the model returns")

    def place(self, name: str, layer: int | None = None) -> Place | Diagnostic:
        """Where a canonical site is, in that block if it stands in blocks; or why it is nowhere."""
        if layer is not None:
            return self._in_block(name, layer)
        blocks = self.path(self.family.blocks)
        if name == "embed":
            return Place(HookPoint(f"{blocks}.0", "input"))
        if name == "final_norm":
            norm = self.family.final_norm
            if norm is None:
                reason = "each block ends with its own norm, and none follows the last"
                if self.family.design != "post-norm":
                    reason = "its table names none"
                return self._nowhere(name, reason)
            if self.find(norm) is None:
                return self._nowhere(name, f"it has no `{self.path(norm)}`")
            return Place(HookPoint(self.path(norm), "output"))
        if (problem := self.headless) is not None:
            return problem
        assert self.family.unembed is not None
        module = self.path(self.family.unembed) if name == "unembed" else ""
        return Place(HookPoint(module, "output"))

    def _in_block(self, name: str, layer: int) -> Place | Diagnostic:
        block = f"{self.path(self.family.blocks)}.{layer}"
        if name in ("block", "resid_post"):
            return Place(HookPoint(block, "output"), None, layer)
        if name == "resid_pre":
            return Place(HookPoint(block, "input"), None, layer)
        spot = self.family.sites[name]
        if isinstance(spot, str):
            return self._nowhere(name, spot)
        path = _first(self.blocks[layer], spot)
        if path is None:
            wanted = spot.path.replace("|", "` or `")
            return self._nowhere(name, f"block {layer} has no `{wanted}`")
        view = None if spot.rule is None else spot.rule(self.heads, self.config)
        return Place(HookPoint(f"{block}.{path}", spot.port), view, layer)

    def is_whole(self, name: str, layer: int | None) -> bool:
        """Whether a site is a module of which the ports are what they are called.

        Where attention or MLP is no module that returns what it makes, its last projection stands
        for it, and the input of that is not the input of the whole.
        """
        inner = {"block": None, "attn_out": "z", "mlp_out": "mlp_act"}
        if name not in inner:
            return False
        within, this = inner[name], self.place(name, layer)
        last = self.place(within, layer) if within else None
        if not isinstance(last, Place) or not isinstance(this, Place):
            return True
        return last.point.module != this.point.module

    def _nowhere(self, name: str, reason: str) -> Diagnostic:
        message = f"there is no `@{name}` in this {self.family.name} model: {reason}"
        there = [f"@{other}" for other in CANONICAL_NAMES if self.has(other)]
        return Diagnostic(
            "no-such-site", message, notes=(f"canonical sites: {listing(there, 20)}",)
        )

    def has(self, name: str) -> bool:
        """Whether this model has a canonical site, in some block if it stands in blocks."""
        if name not in BLOCK_SITES:
            missing = (name == "final_norm" and self._norm_is_missing()) or (
                name in ("unembed", "logits") and self.headless is not None
            )
            return not missing
        if name in ("block", "resid_post", "resid_pre"):
            return True
        spot = self.family.sites[name]
        return isinstance(spot, Spot) and any(_first(b, spot) is not None for b in self.blocks)

    def _norm_is_missing(self) -> bool:
        return self.family.final_norm is None or self.find(self.family.final_norm) is None


def anatomy(root: nn.Module) -> Anatomy | Diagnostic:
    """The canonical sites of a model, or an `unknown-family` diagnostic without a place.

    Raises UsageError or ModelError for a table of another package that cannot be used.
    """
    config = getattr(root, "config", None)
    theirs = offered(root, [kind for family in FAMILIES for kind in family.types])
    if theirs is not None:
        blocks = _module(root, theirs.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return Anatomy(root, theirs, "", config, theirs.heads(config), tuple(blocks))
    kind = getattr(config, "model_type", None)
    own = type(config).__module__.startswith("transformers.")
    known = [f for f in FAMILIES if own and kind in f.types and f.when(config)]
    found = _bound(root, known[0], config) if known else None
    if found is None and own and not known:
        same = alike(root, config)
        found = None if same is None else _bound(root, same, config)
    return _unknown(root, kind) if found is None else found


def _bound(root: nn.Module, family: Family, config: Any) -> Anatomy | None:
    """The family's table bound to a model, None where its blocks are not the family's own."""
    for base in ("", *(f"{name}." for name in family.bases)):
        blocks = _module(root, family.blocks.replace("{base}", base))
        if isinstance(blocks, nn.ModuleList) and len(blocks) and all(map(_is_own, blocks)):
            return Anatomy(root, family, base, config, family.heads(config), tuple(blocks))
    return None


def _is_own(block: nn.Module) -> bool:
    """Whether a block runs transformers' code: a table says nothing of anyone else's."""
    return type(block).forward.__module__.startswith("transformers.models.")


def token_embedding(root: nn.Module) -> nn.Module | None:
    """The embedding of tokens alone, where the stream starts with more than that; else None."""
    found = anatomy(root)
    if isinstance(found, Diagnostic) or not found.family.embeds_positions:
        return None
    embedding: nn.Module = found.root.get_input_embeddings()  # type: ignore[operator]
    return embedding


def _unknown(root: nn.Module, kind: str | None) -> Diagnostic:
    lists = [name for name, m in root.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    what = f"models of type `{kind}`" if kind else f"{type(root).__name__}"
    message = f"the canonical sites of {what} are not known"
    path = f"{lists[0]}[*]" if lists else "**"
    help = f"write module paths, for example `{path}`; `hookql modules` shows them"
    names = dict.fromkeys(family.name for family in FAMILIES)
    return Diagnostic(
        "unknown-family", message, help=help, notes=(f"known: {listing(list(names), 40)}",)
    )


def _module(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a path, "" the root itself; None where there is none."""
    here: nn.Module | None = root
    for step in path.split(".") if path else ():
        here = None if here is None else here._modules.get(step)
    return here


def _first(block: nn.Module, spot: Spot) -> str | None:
    """The first of a spot's paths that the block has."""
    return next((p for p in spot.path.split("|") if _module(block, p) is not None), None)
