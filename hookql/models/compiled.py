"""`compile`: torch compiles the parts of a model that lie between hook points.

A hook is never inside what is compiled, so that hooks see what they always see: of each module
that holds no hook point its ``forward`` is compiled, the outermost such modules first, and put
back afterwards. Before the data is run the compiled model is held against the plain one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hookql.errors import Diagnostic, ModelError
from hookql.models.feed import Feed
from hookql.models.hooks import observing
from hookql.models.learning import Events, Seen
from hookql.models.load import Model
from hookql.models.mixing import distance, scale
from hookql.models.ports import HookPoint
from hookql.models.precision import keeping_casts, resolution
from hookql.models.trial import Held, run_once

# What compiled arithmetic may move numbers by, in units of `scale`: fused operations round less.
_ROUNDING = {torch.float64: 1e-4, torch.float32: 1e-3}
# Layers of one class share compiled code; each may need a form of its own, for a few sizes.
_FORMS = 256

Compile = Callable[..., Any]


@contextlib.contextmanager
def compiled(
    model: Model,
    feed: Feed,
    seen: Mapping[HookPoint, Seen],
    events: Events,
    stop: int,
    leave: tuple[str, str] | None,
    backend: Any = "inductor",
) -> Iterator[tuple[str, ...]]:
    """Inside this context the model's parts are compiled; their names, in the model's order.

    ``events`` are those of a pass, of which it needs the first ``stop + 1``; at ``leave`` it is
    left. Afterwards the model is as it was, whatever happened.

    Raises:
        ModelError: `cannot-compile` where there is nothing to compile, where that fails, and where
            compiled parts compute something else.
    """
    import torch._dynamo

    kept = {point.module for point in seen} | ({leave[1]} if leave is not None else set())
    running = {module for kind, module in events[: stop + 1] if kind == "input"}
    parts = regions(model.module, kept, running)
    if not parts:
        message = "`compile` finds no part of the model without a hook point inside it"
        raise _refused(message, "leave `compile` out")
    limits: Any = torch._dynamo.config
    with observing(model.module), keeping_casts(model):
        plain = _runs(model, feed, list(seen))
    with (
        limits.patch(recompile_limit=_FORMS, accumulated_recompile_limit=16 * _FORMS),
        _replaced(model.module, parts, backend),
    ):
        _check(model, feed, seen, plain)
        yield parts


def regions(root: nn.Module, kept: set[str], running: set[str]) -> tuple[str, ...]:
    """The outermost modules that run and hold no kept module, nor one with a hook of anybody's.

    torch's own layers alone are left: compiling one gains nothing.
    """
    found: list[str] = []
    done: set[int] = set()

    def look(name: str, module: nn.Module) -> None:
        if id(module) in done:
            return
        done.add(id(module))
        inside = [(f"{name}.{n}" if name else n, m) for n, m in module.named_modules() if n]
        own = type(module).__module__.partition(".")[0] == "torch"
        held = any(n in kept or _has_hooks(m) for n, m in inside)
        if name in running and not own and not held and "forward" not in vars(module):
            found.append(name)
            return
        for child, part in module.named_children():
            look(f"{name}.{child}" if name else child, part)

    look("", root)
    return tuple(found)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


@contextlib.contextmanager
def _replaced(root: nn.Module, parts: Sequence[str], backend: Any) -> Iterator[None]:
    """Those modules' ``forward`` compiled."""
    modules = [root.get_submodule(name) for name in parts]
    try:
        for module in modules:
            compiled_forward = torch.compile(module.forward, dynamic=True, backend=backend)
            vars(module)["forward"] = compiled_forward
        yield
    finally:
        for module in modules:
            vars(module).pop("forward", None)


def _runs(model: Model, feed: Feed, points: list[HookPoint]) -> list[Held]:
    return [run_once(model, points, feed.example(size)) for size in feed.sizes()]


def _check(model: Model, feed: Feed, seen: Mapping[HookPoint, Seen], plain: Sequence[Held]) -> None:
    """Compile, by running small inputs, and hold what hooks see against the plain model."""
    try:
        with observing(model.module), keeping_casts(model):
            found = _runs(model, feed, list(seen))
    except ModelError as error:
        first = error.diagnostics[0]
        lines = "\n".join(first.notes or (first.message,)).splitlines()
        reason = " ".join(line.strip() for line in lines if line)[:300]
        message = "torch cannot compile this model on this machine"
        raise _refused(message, "leave `compile` out", reason) from error
    exact = resolution(model)
    for size, before, after in zip(feed.sizes(), plain, found, strict=True):
        measured = feed.measure(size)
        for point, info in seen.items():
            positions = measured.length(info.layout.stream)
            if len(before[point]) != len(after[point]):
                raise _refused(f"compiled, the model calls `{point}` another number of times")
            for one, other in zip(before[point], after[point], strict=True):
                a, b = (info.layout.rows(t, measured.batch, positions) for t in (one, other))
                moved = distance(a, b, scale(a)) if a.shape == b.shape else float("inf")
                if moved > _ROUNDING.get(exact(one), 0.5):
                    message = f"compiled, the model computes other values at `{point}`"
                    by = f"they differ by {moved:.2g} of a feature's standard deviation"
                    raise _refused(message, "leave `compile` out", by)


def _refused(message: str, help: str | None = None, *notes: str) -> ModelError:
    return ModelError(Diagnostic("cannot-compile", message, help=help, notes=notes))
