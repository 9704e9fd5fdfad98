"""Rule `weights`: only the parameters that the shortened pass needs are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hookql.binding import bind
from hookql.errors import HookQLError
from hookql.language import ast
from hookql.language.query import Query
from hookql.language.walk import walk
from hookql.models.feed import TokenFeed
from hookql.models.lens import Lens, find_lens
from hookql.models.load import Model, Recipe, load_model, load_recipe, open_recipe
from hookql.models.on_meta import can_be_on_meta, model_on_meta, probe_shapes
from hookql.models.partial import bytes_of, load_part, unneeded
from hookql.plan import Plan

_WORTH = 0.05  # of the weights left out: less is not worth a second way of loading
SMALL = 64_000_000
"""Bytes of files that are read whole sooner than it is found out what of them is needed."""


def load_for(queries: Sequence[Query], name: str, has_target: bool, **given: Any) -> Model:
    """The model of that name with the weights that the queries need, all of them where in doubt.

    ``given`` are the arguments of `load_model`, and what is raised is what it raises.
    """
    if name == "demo":
        return load_model(name, **given)
    recipe = open_recipe(name, **given)
    part = None
    generates = any(query.generation is not None for query in queries)
    if can_be_on_meta(recipe) and not generates and _is_large(recipe):
        part = _part(recipe, queries, has_target)
    return load_recipe(recipe, recipe.loader) if part is None else part


def _is_large(recipe: Recipe) -> bool:
    """Whether the weights' files are large, or are still to be fetched."""
    files = [] if recipe.folder is None else [*recipe.folder.glob("*.safetensors")]
    return not files or sum(file.stat().st_size for file in files) > SMALL


def _part(recipe: Recipe, queries: Sequence[Query], has_target: bool) -> Model | None:
    """The model loaded in part; None where that is not known to be enough, or saves nothing.

    A way of loading that fails is not this rule's to report: the whole is loaded then, and what is
    wrong with the model or the query is said as without the rule.
    """
    try:
        whole = model_on_meta(recipe)
        feed = TokenFeed(whole)
        feed.has_target = has_target
        plans = [bind(query, whole, feed, look=probe_shapes) for query in queries]
        events = plans[0].probe.events
        leaves = [_leave(plan) for plan in plans]
        found = [number for number in leaves if number is not None]
        if len(found) < len(leaves):
            return None
        needed = [name for plan in plans for name in _lens_modules(plan)]
        left_out = unneeded(whole.module, events, max(found), needed)
        kept, all_of_it = bytes_of(whole.module, left_out), bytes_of(whole.module)
        if all_of_it - kept < _WORTH * all_of_it:
            return None
        return load_part(recipe, whole.module, events, max(found), left_out)
    except HookQLError:
        return None
    except Exception:  # whatever a class does with a config, or lacks on the meta device
        return None


def _leave(plan: Plan) -> int | None:
    """The number of the event at which the pass is left; None where it runs to its end."""
    if plan.leave is None or plan.logits is not None:
        return None
    return next(n for n, e in enumerate(plan.probe.events) if n >= plan.stop and e == plan.leave)


def _lens_modules(plan: Plan) -> list[str]:
    """The modules that `lens` applies outside of the pass."""
    asked = [
        part
        for capture in plan.query.captures
        for node in (
            *(stat.value for stat in capture.statistics),
            *(key.expression for key in capture.by),
            *([capture.where] if capture.where is not None else []),
        )
        for part in walk(node)
        if isinstance(part, ast.Call) and part.function == "lens"
    ]
    lens = find_lens(plan.model) if asked else None
    if not isinstance(lens, Lens):
        return []
    steps = [id(step) for step in (*lens.steps, lens.head)]
    return [name for name, m in plan.model.module.named_modules() if id(m) in steps]


def explained_model(name: str, **given: Any) -> Model | None:
    """The model of that name without its weights, for `explain`; None where it needs them.

    Raises what `load_model` raises of everything but weights.
    """
    if name == "demo" or name.lower().endswith(".gguf"):
        return None
    recipe = open_recipe(name, weights=False, **given)
    return model_on_meta(recipe) if can_be_on_meta(recipe) else None


def saves(plan: Plan) -> str | None:
    """``reads 212 MB of the 14.0 GB of weights``; None where all are read, or were there."""
    part = plan.model.part
    if part is not None:
        return _words(part.read, part.whole)
    on_meta = bool(plan.probe.open)
    number = _leave(plan) if on_meta and plan.query.generation is None else None
    if number is None:
        return None
    module = plan.model.module
    left_out = unneeded(module, plan.probe.events, number, _lens_modules(plan))
    kept, whole = bytes_of(module, left_out), bytes_of(module)
    return _words(kept, whole) if whole - kept >= _WORTH * whole else None


def _words(read: int, whole: int) -> str:
    return f"reads {_size(read)} of the {_size(whole)} of weights"


def _size(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
