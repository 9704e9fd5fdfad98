"""The probe: what a model does, found by running it on small inputs instead of by assuming it.

Which modules run, how often and in which order; which axis of a tensor is the batch and which the
positions; whether two equal runs give equal values; whether padding changes real rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from hookql.errors import Diagnostic, HookQLError, ModelError, did_you_mean, listing
from hookql.models.feed import Feed, Size, TokenFeed
from hookql.models.hooks import hooked, observing, traced
from hookql.models.layout import Layout, Misaligned, find_layout
from hookql.models.load import Model
from hookql.models.ports import HookPoint


@frozen(eq=False)
class Seen:
    """What the probe learnt of one hook point."""

    point: HookPoint
    layout: Layout
    calls: int  # how often its module runs in one pass
    shape: tuple[int | str, ...]  # the tensor's shape with "batch" and "position" in place
    dtype: torch.dtype


@frozen(eq=False)
class Probe:
    """What the probe learnt of a model for the hook points of a plan."""

    seen: dict[HookPoint, Seen]
    problems: dict[HookPoint, Diagnostic]  # why a hook point cannot be used
    events: tuple[tuple[str, str], ...]  # ("input" | "output", module), in execution order
    padding_leaks: bool  # whether padding changes real rows: then only equal lengths share a batch


Values = dict[HookPoint, list[Tensor]]


def probe(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
    """Run the model on small inputs and learn what the plan needs to know.

    A hook point that never runs, has no rows that follow the tokens, or runs a varying number of
    times is among the problems. Raises ModelError where the model cannot run a small input, or
    two equal runs differ.
    """
    with observing(model.module):
        sizes = feed.sizes()
        events: list[tuple[str, str]] = []
        with traced(model.module, events):
            first = _run(model, points, feed.example(sizes[0]))
        runs = [first, *(_run(model, points, feed.example(size)) for size in sizes[1:])]
        again = _run(model, points, feed.example(sizes[0]))
        measured = [feed.measure(size) for size in sizes]
        seen: dict[HookPoint, Seen] = {}
        problems: dict[HookPoint, Diagnostic] = {}
        for point in points:
            found = _learn(model, point, runs, measured)
            if isinstance(found, Seen):
                seen[point] = found
            else:
                problems[point] = found
        _check_repeatable(seen, first, again)
        for point in _unordered(model, feed, sizes[0], measured[0], seen, first):
            described = _described(model, point)
            message = f"the rows of {described} at `:{point.port}` do not follow the samples"
            problems[point] = Diagnostic("unaligned", message, help=_enclosing(point))
            del seen[point]
        leaks = isinstance(feed, TokenFeed) and _padding_leaks(model, feed, sizes[1], seen)
    return Probe(seen, problems, tuple(events), leaks)


def _run(model: Model, points: Sequence[HookPoint], inputs: dict[str, Any]) -> Values:
    """One forward pass; every hook point's tensors, copied, in call order."""
    values: Values = {point: [] for point in points}

    def keep(point: HookPoint) -> Any:
        return lambda tensor: values[point].append(tensor.detach().clone())

    try:
        with hooked(model.module, {point: keep(point) for point in points}):
            model.module(**inputs)
    except HookQLError:
        raise
    except Exception as error:
        message = "the model cannot run a small probing input"
        notes = (f"{type(error).__name__}: {error}",)
        raise ModelError(Diagnostic("probe-failed", message, notes=notes)) from error
    return values


def _learn(
    model: Model, point: HookPoint, runs: list[Values], sizes: list[Size]
) -> Seen | Diagnostic:
    """What several runs tell of a hook point, or why it cannot be used."""
    calls = [len(run[point]) for run in runs]
    if not any(calls):
        return _never_ran(model.module, point)
    described = _described(model, point)
    if len(set(calls)) > 1:
        return Diagnostic(
            "unaligned",
            f"{described} runs a varying number of times in a pass, so that its rows cannot be "
            "aligned with tokens",
            help=_enclosing(point),
            notes=(f"times run in four small passes: {', '.join(map(str, calls))}",),
        )
    layouts = []
    for call in range(calls[0]):
        shapes = [tuple(run[point][call].shape) for run in runs]
        found = find_layout(shapes, sizes, _heads(model.module))
        if isinstance(found, Misaligned):
            return Diagnostic(
                "unaligned",
                f"the rows of {described} at `:{point.port}` cannot be aligned with tokens: "
                f"{found.reason}",
                help=_enclosing(point),
                notes=_shapes_note(shapes, sizes),
            )
        layouts.append(found)
    if any(layout != layouts[0] for layout in layouts):
        message = f"{described} gives a different shape at each of its {calls[0]} calls"
        return Diagnostic("unaligned", message, help=_enclosing(point))
    tensor = runs[0][point][0]
    return Seen(point, layouts[0], calls[0], layouts[0].describe(tensor.shape), tensor.dtype)


def _check_repeatable(seen: dict[HookPoint, Seen], first: Values, again: Values) -> None:
    for point in seen:
        for a, b in zip(first[point], again[point], strict=True):
            if not torch.equal(_bits(a), _bits(b)):
                message = f"two equal runs give different values at `{point}`: the model is random"
                advice = "a result would not be reproducible; switch its sampling or noise off"
                raise ModelError(Diagnostic("not-repeatable", message, help=advice))


def _unordered(
    model: Model, feed: Feed, asked: Size, size: Size, seen: dict[HookPoint, Seen], first: Values
) -> list[HookPoint]:
    """The hook points whose rows do not follow when the samples are exchanged.

    Catches what shapes cannot, such as experts' rows that happen to be as many as the tokens.
    """
    inputs = feed.example(asked)
    flipped = {
        n: v.flip(0) if isinstance(v, Tensor) and v.ndim and v.shape[0] == size.batch else v
        for n, v in inputs.items()
    }
    swapped = _run(model, list(seen), flipped)
    unordered = []
    for point, info in seen.items():
        for before, after in zip(first[point], swapped[point], strict=True):
            a = info.layout.rows(before, size.batch, size.positions)
            b = info.layout.rows(after, size.batch, size.positions)
            a = a.reshape(size.batch, size.positions, *a.shape[1:]).flip(0).flatten(0, 1)
            if _distance(a, b) > _tolerance(before.dtype):
                unordered.append(point)
                break
    return unordered


def _padding_leaks(model: Model, feed: TokenFeed, size: Size, seen: dict[HookPoint, Seen]) -> bool:
    """Whether right padding changes the real rows of a sample, beyond the noise of batching."""
    long, short = size.positions, max(1, size.positions - 3)
    ids = feed.random_ids(2, long)
    mask = torch.ones(2, long, dtype=torch.bool)
    mask[1, short:] = False
    padded_ids = ids.masked_fill(~mask, int(ids[0, 0]))
    points = list(seen)
    padded = _run(model, points, feed.inputs(padded_ids, mask))
    alone = _run(model, points, feed.inputs(ids[1:, :short], mask[1:, :short]))
    twice = ids[1:, :short].repeat(2, 1)
    paired = _run(model, points, feed.inputs(twice, torch.ones_like(twice, dtype=torch.bool)))
    for point, info in seen.items():
        for one, two, three in zip(alone[point], paired[point], padded[point], strict=True):
            wanted = info.layout.rows(one, 1, short)
            noise = _distance(wanted, info.layout.rows(two, 2, short)[:short])
            moved = _distance(wanted, info.layout.rows(three, 2, long)[long : long + short])
            if moved > 10 * noise + _tolerance(one.dtype) / 100:
                return True
    return False


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest finite |a|."""
    a, b = a.double(), b.double()
    scale = a.abs().nan_to_num(0, 0, 0).max().clamp(min=1e-30) if a.numel() else 1.0
    difference = (a - b).abs()
    # Equal infinities and NaNs on both sides are no difference.
    difference = difference.masked_fill((a == b) | (a.isnan() & b.isnan()), 0).nan_to_num(1e30)
    return float(difference.max() / scale) if a.numel() else 0.0


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-3 if dtype in (torch.float32, torch.float64) else 1e-1


def _bits(tensor: Tensor) -> Tensor:
    """Compared as bytes, so that NaN equals itself."""
    return tensor.contiguous().flatten().view(torch.uint8)


def _heads(module: nn.Module) -> frozenset[int]:
    """Counts of attention heads that the config states."""
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "get_text_config"):
        config = config.get_text_config()
    names = ("num_attention_heads", "num_key_value_heads", "n_head", "num_heads")
    return frozenset(v for n in names if isinstance(v := getattr(config, n, None), int))


def _described(model: Model, point: HookPoint) -> str:
    name = type(model.module.get_submodule(point.module)).__name__
    return f"`{point.module or 'the model'}` ({name})"


def _enclosing(point: HookPoint) -> str | None:
    parent = point.module
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if not parent.rpartition(".")[2].isdigit() and "expert" not in parent.rpartition(".")[2]:
            return f"capture the enclosing module, `{parent}`"
    return None


def _shapes_note(shapes: list[tuple[int, ...]], sizes: list[Size]) -> tuple[str, ...]:
    pairs = [
        f"{shape} for {size.batch} samples of {size.positions}"
        for shape, size in zip(shapes, sizes, strict=True)
    ]
    return (f"shapes: {'; '.join(pairs[:3])}",)


def _never_ran(root: nn.Module, point: HookPoint) -> Diagnostic:
    parent, _, name = point.module.rpartition(".")
    siblings = [n for n, _ in root.get_submodule(parent).named_children() if n != name]
    return Diagnostic(
        "never-ran",
        f"`{point.module}` ({type(root.get_submodule(point.module)).__name__}) is never called in "
        "a forward pass",
        help=did_you_mean(name, siblings) or (f"capture `{parent}` instead" if parent else None),
        notes=(f"beside it: {listing(siblings)}",) if siblings else (),
    )
