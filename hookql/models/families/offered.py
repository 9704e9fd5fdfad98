"""Families of other people: tables told to `hookql.sites`, as those of this folder are."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import nn

from hookql.errors import Diagnostic, ModelError, UsageError
from hookql.language.pieces import PIECES, Piece, failed, wrong_result
from hookql.language.plugins import FAMILIES, load_plugins
from hookql.models.families.table import BLOCK_SITES, Family, Heads, Spot, by_head, by_kv_head

if TYPE_CHECKING:
    from hookql.extending import OfferedFamily

_RULES = {"q": by_head, "k": by_kv_head, "v": by_kv_head, "z": by_head}
_OF_BLOCKS = ("block", "resid_pre", "resid_post")
_UNNAMED = "its table does not say where"


def offered(root: nn.Module, own: Collection[str]) -> Family | None:
    """The table that somebody offers for a model, by its class or else by its config's type.

    ``own``: the types of HookQL's own families. Raises UsageError for packages that cannot be
    loaded or are for one of these types, ModelError where the table does not fit the model.
    """
    load_plugins(FAMILIES)
    theirs = {name: piece for (kind, name), piece in PIECES.items() if kind == "family"}
    for name in theirs.keys() & own:
        message = f"HookQL itself knows models of type `{name}`, and so does {theirs[name]}"
        raise UsageError(Diagnostic("name-clash", message, help="give the model's class instead"))
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(root).__mro__]
    names.append(str(getattr(getattr(root, "config", None), "model_type", None)))
    piece = next((theirs[name] for name in names if name in theirs), None)
    return None if piece is None else _made(piece, root)


def _made(piece: Piece, root: nn.Module) -> Family:
    table: OfferedFamily = piece.value
    blocks = dict(root.named_modules()).get(table.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        message = f"names `{table.blocks}`, which is no list of blocks in {type(root).__name__}"
        raise ModelError(wrong_result(piece, message))
    sites: dict[str, Spot | str] = {}
    for name in BLOCK_SITES:
        if name in _OF_BLOCKS:
            continue
        place = table.sites.get(name)
        if place is None:
            sites[name] = _UNNAMED
        else:
            path, _, port = place.partition(":")
            sites[name] = Spot(path, port or "output", _RULES.get(name))
    return Family(
        name=piece.name,
        types=(table.model,),
        bases=(),
        blocks=table.blocks,
        sites=sites,
        final_norm=table.final_norm,
        unembed=table.unembed,
        head=table.head or "its table does not say what makes them",
        note=f"its table is from {piece.owner}",
        heads=lambda config: _heads(piece, table, root),
    )


def _heads(piece: Piece, table: OfferedFamily, root: nn.Module) -> Heads:
    """How the model counts heads, where some site is seen by head."""
    if not _RULES.keys() & table.sites.keys():
        return Heads(0, 0, 0)
    config: Any = getattr(root, "config", None)
    try:
        if table.heads is None:
            return Heads.of(config)
        return Heads(*table.heads(root))
    except Exception as error:
        raise ModelError(failed(piece, "in counting heads", error)) from error
