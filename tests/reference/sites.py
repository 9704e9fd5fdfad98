"""Which modules a site names, and what each token's row is there: a simple matcher of its own."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen

from hookql.language import ast
from tests.reference.models import LAYERS, Place, Subject

HEADS = {"gpt2": (4, 4), "llama": (4, 2), "bert": (4, 4)}
"""Query heads, key and value heads."""


@frozen
class Site:
    """One module that a query looks at."""

    role: str
    module: str
    layer: int | None
    place: Place
    dims: tuple[str, ...] = ("feature",)
    part: tuple[int, int, int] | None = None
    """Of a fused or headed tensor: first column, last column, heads."""
    pairs: bool = True
    """Whether ``input`` and ``output`` are the module's two ports."""


def sites(
    subject: Subject, nodes: Sequence[ast.Site], excepts: Sequence[ast.PathSite]
) -> list[Site]:
    """What a ``from`` names, each once, in the order of the model."""
    found: dict[Site, None] = {}
    left_out = {module for node in excepts for module in modules(subject.model, node)}
    for node in nodes:
        for site in _one(subject, node):
            if site.module not in left_out:
                found.setdefault(site)
    return list(found)


def rows(subject: Subject, site: Site, place: Place | None = None) -> list[np.ndarray]:
    """For each context the tensor (S, ...) of a site, its axes in the order of ``site.dims``.

    Of a pattern each (S, head, key): `row` cuts it to the keys that a query sees.
    """
    key = ("rows", site, place)
    if key not in subject.cache:
        arrays = [seen[place or site.place] for seen in subject.recorded]
        if place is None and site.dims == ("head", "key"):
            arrays = [array.transpose(1, 0, 2) for array in arrays]
        elif place is None and site.part is not None:
            start, stop, heads = site.part
            arrays = [array[:, start:stop] for array in arrays]
            if site.dims == ("head", "feature"):
                arrays = [array.reshape(len(array), heads, -1) for array in arrays]
        subject.cache[key] = arrays
    return subject.cache[key]


# --- module paths ---------------------------------------------------------------------------------


def modules(model: torch.nn.Module, node: ast.PathSite) -> list[str]:
    """The names of a path's modules, in the model's order; a suffix is enough."""
    found: list[str] = []
    for root, _ in model.named_modules():
        found = [*_walk(model, root, node.path.steps)]
        if found:
            break
    order = [name for name, _ in model.named_modules()]
    kept = {name for name in found if _is(model.get_submodule(name), node.isa)}
    return [name for name in order if name in kept]


def _walk(model: torch.nn.Module, at: str, steps: Sequence[ast.Step]) -> Iterable[str]:
    if not steps:
        yield at
        return
    step, rest = steps[0], steps[1:]
    children = [name for name, _ in model.get_submodule(at).named_children()]
    if isinstance(step, ast.AnyDepth):
        if rest or at:
            yield from _walk(model, at, rest)
        for child in children:
            yield from _walk(model, f"{at}.{child}" if at else child, steps)
        return
    if isinstance(step, ast.IndexStep):
        if not children or not all(child.isdigit() for child in children):
            return
        chosen = set()
        for item in step.items:
            if isinstance(item, int):
                chosen.add(children[item])
            else:
                chosen.update(children[item.start : item.stop : item.step])
    elif isinstance(step, ast.GlobStep):
        chosen = {
            c for c in children if any(fnmatch.fnmatchcase(c, one) for one in step.alternatives)
        }
    else:
        chosen = {c for c in children if c == step.name}
    for child in children:
        if child in chosen:
            yield from _walk(model, f"{at}.{child}" if at else child, rest)


def _is(module: torch.nn.Module, isa: str | None) -> bool:
    names = {kind.__name__ for kind in type(module).__mro__}
    if isa == "linear":
        return bool(names & {"Linear", "Conv1D"})
    return isa is None or any(fnmatch.fnmatchcase(name, isa) for name in names)


def _split(module: str) -> tuple[str, int | None]:
    """The role and the layer of a module: its name without the first index, and that index."""
    match = re.search(r"(^|\.)(\d+)(?=\.|$)", module)
    if not match:
        return module or "model", None
    return (module[: match.start()] + module[match.end() :]).lstrip("."), int(match[2])


def _one(subject: Subject, node: ast.Site) -> list[Site]:
    if isinstance(node, ast.ModelSite):
        return [Site("model", "", None, ("", "output", None), pairs=False)]
    if isinstance(node, ast.CanonicalSite):
        return _canonical(subject, node)
    found = []
    for module in modules(subject.model, node):
        role, layer = _split(module)
        port = node.port
        if port is None:
            found.append(Site(role, module, layer, (module, "output", None)))
            continue
        behind = ""
        if port.element is not None:
            whole = isinstance(port.element, int)
            behind = f"[{port.element}]" if whole else f".{port.element}"
        if port.name == "output" and not behind:
            place = (module, "output", None)
        else:
            role += f":{port.name}{behind}"
            place = (module, port.name, port.element)
        if port.name == "pattern":
            found.append(
                Site(role, module, layer, (module, "output", 1), ("head", "key"), pairs=False)
            )
        else:
            found.append(Site(role, module, layer, place, pairs=False))
    return found


# --- canonical sites ------------------------------------------------------------------------------

_GPT2: dict[str, tuple[str, str, Any]] = {
    "embed": ("transformer.drop", "output", None),
    "block": ("transformer.h.{}", "output", None),
    "resid_pre": ("transformer.h.{}", "input", None),
    "resid_mid": ("transformer.h.{}.ln_2", "input", None),
    "resid_post": ("transformer.h.{}", "output", None),
    "attn": ("transformer.h.{}.attn", "output", None),
    "attn_out": ("transformer.h.{}.attn", "output", None),
    "mlp": ("transformer.h.{}.mlp", "output", None),
    "mlp_out": ("transformer.h.{}.mlp", "output", None),
    "mlp_act": ("transformer.h.{}.mlp.c_proj", "input", None),
    "q": ("transformer.h.{}.attn.c_attn", "output", (0, 16, 4)),
    "k": ("transformer.h.{}.attn.c_attn", "output", (16, 32, 4)),
    "v": ("transformer.h.{}.attn.c_attn", "output", (32, 48, 4)),
    "z": ("transformer.h.{}.attn.c_proj", "input", (0, 16, 4)),
    "pattern": ("transformer.h.{}.attn", "output", 1),
    "final_norm": ("transformer.ln_f", "output", None),
    "logits": ("", "output", None),
}
_LLAMA: dict[str, tuple[str, str, Any]] = {
    "embed": ("model.embed_tokens", "output", None),
    "block": ("model.layers.{}", "output", None),
    "resid_pre": ("model.layers.{}", "input", None),
    "resid_mid": ("model.layers.{}.post_attention_layernorm", "input", None),
    "resid_post": ("model.layers.{}", "output", None),
    "attn": ("model.layers.{}.self_attn", "output", None),
    "attn_out": ("model.layers.{}.self_attn", "output", None),
    "mlp": ("model.layers.{}.mlp", "output", None),
    "mlp_out": ("model.layers.{}.mlp", "output", None),
    "mlp_act": ("model.layers.{}.mlp.down_proj", "input", None),
    "q": ("model.layers.{}.self_attn.q_proj", "output", (0, 16, 4)),
    "k": ("model.layers.{}.self_attn.k_proj", "output", (0, 8, 2)),
    "v": ("model.layers.{}.self_attn.v_proj", "output", (0, 8, 2)),
    "z": ("model.layers.{}.self_attn.o_proj", "input", (0, 16, 4)),
    "pattern": ("model.layers.{}.self_attn", "output", 1),
    "final_norm": ("model.norm", "output", None),
    "logits": ("", "output", None),
}
_BERT: dict[str, tuple[str, str, Any]] = {
    "embed": ("embeddings", "output", None),
    "block": ("encoder.layer.{}", "output", None),
    "resid_pre": ("encoder.layer.{}", "input", None),
    "resid_mid": ("encoder.layer.{}.attention", "output", None),
    "resid_post": ("encoder.layer.{}", "output", None),
    "mlp_act": ("encoder.layer.{}.output.dense", "input", None),
    "q": ("encoder.layer.{}.attention.self.query", "output", (0, 16, 4)),
    "k": ("encoder.layer.{}.attention.self.key", "output", (0, 16, 4)),
    "v": ("encoder.layer.{}.attention.self.value", "output", (0, 16, 4)),
    "z": ("encoder.layer.{}.attention.output.dense", "input", (0, 16, 4)),
    "pattern": ("encoder.layer.{}.attention.self", "output", 1),
}
CANONICAL = {"gpt2": _GPT2, "llama": _LLAMA, "bert": _BERT}


def _canonical(subject: Subject, node: ast.CanonicalSite) -> list[Site]:
    name, side, extra = CANONICAL[subject.family][node.name]
    if "{}" not in name:
        return [Site(node.name, name, None, (name, side, None), pairs=False)]
    layers = list(range(LAYERS))
    chosen: set[int] = set()
    for item in node.index.items if node.index else (ast.Slice(),):
        chosen |= (
            {layers[item]}
            if isinstance(item, int)
            else set(layers[item.start : item.stop : item.step])
        )
    dims: tuple[str, ...] = ("feature",)
    part = extra if isinstance(extra, tuple) else None
    element = None
    if node.name == "pattern":
        dims, element = ("head", "key"), extra
    elif part:
        dims = ("head", "feature")
    whole = node.name == "block"
    return [
        Site(
            node.name,
            name.format(layer),
            layer,
            (name.format(layer), side, element),
            dims,
            part,
            whole,
        )
        for layer in sorted(chosen)
    ]
