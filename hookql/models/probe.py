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

from hookql.errors import Diagnostic, HookQLError, ModelError, listing
from hookql.models.feed import Feed, Size, TokenFeed
from hookql.models.hooks import hooked, observing, traced
from hookql.models.layout import Layout, Misaligned, find_layout
from hookql.models.load import Model
from hookql.models.mixing import Mixing, copies, distance, judge, scale
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
    mixing: Mixing  # which samples may share a batch


Values = dict[HookPoint, list[Tensor]]


def probe(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
    """Run the model on small inputs and learn what the plan needs to know.

    A hook point that never runs, has no rows that follow the tokens, or runs a varying number of
    times is among the problems. Raises ModelError where the model cannot run a small input, or
    two equal runs differ.
    """
    _check_stable(model.module)
    before = [(name, id(module)) for name, module in model.module.named_modules()]
    with observing(model.module):
        sizes = feed.sizes()
        events: list[tuple[str, str]] = []
        absent: dict[HookPoint, Diagnostic] = {}
        with traced(model.module, events):
            # In a run of its own: hooks everywhere may switch a fused path of the model's off.
            _run(model, (), feed.example(sizes[0]))
        first = _run(model, points, feed.example(sizes[0]), absent)
        runs = [first]
        for size in sizes[1:]:
            runs.append(_run(model, points, feed.example(size), absent, only_shapes=True))
        again = _run(model, points, feed.example(sizes[0]), absent)
        measured = [feed.measure(size) for size in sizes]
        seen: dict[HookPoint, Seen] = {}
        problems: dict[HookPoint, Diagnostic] = {}
        for point in points:
            found = absent.get(point) or _learn(model, point, runs, measured, events)
            if isinstance(found, Seen):
                seen[point] = found
            else:
                problems[point] = found
        _check_repeatable(seen, first, again)
        disordered = _not_by_sample(model, feed, sizes[0], measured[0], seen, first)
        if isinstance(feed, TokenFeed):
            disordered |= _not_by_position(model, feed, sizes[0], seen, first)
        for point, wrong in disordered.items():
            described = _described(model, point)
            message = f"the rows of {described} at `:{point.port}` do not follow the {wrong}"
            problems[point] = Diagnostic("unaligned", message, help=_enclosing(point, events))
            del seen[point]
        mixing = _mixing(model, feed, measured[0], seen)
    if before != [(name, id(module)) for name, module in model.module.named_modules()]:
        message = "the model exchanges modules of its own while it runs, so none can be followed"
        raise ModelError(Diagnostic("unstable-model", message))
    return Probe(seen, problems, tuple(events), mixing)


def _run(
    model: Model,
    points: Sequence[HookPoint],
    inputs: dict[str, Any],
    absent: dict[HookPoint, Diagnostic] | None = None,
    only_shapes: bool = False,
) -> Values:
    """One forward pass; every hook point's tensors, copied, in call order.

    ``only_shapes`` keeps them on the meta device, without their numbers. Why a port held no tensor
    goes into ``absent`` where that is given; else it is raised.
    """
    values: Values = {point: [] for point in points}

    def copy(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="meta") if only_shapes else tensor.detach().clone()

    def keep(point: HookPoint) -> Any:
        def look(tensor: Tensor) -> None:
            if tensor.is_nested:
                message = f"`{point}` is a nested tensor, which has no rows"
                missing(point, ModelError(Diagnostic("unaligned", message)))
            else:
                values[point].append(copy(tensor))

        return look

    def missing(point: HookPoint, error: ModelError) -> None:
        if absent is None:
            raise error
        absent.setdefault(point, error.diagnostics[0])

    taps = {point: keep(point) for point in points}
    try:
        with hooked(model.module, taps, None if absent is None else missing):
            model.module(**inputs)
    except HookQLError:
        raise
    except Exception as error:
        message = "the model cannot run the small input that HookQL tries it out with"
        notes = (f"{type(error).__name__}: {error}",)
        raise ModelError(Diagnostic("probe-failed", message, notes=notes)) from error
    return values


def _learn(
    model: Model,
    point: HookPoint,
    runs: list[Values],
    sizes: list[Size],
    events: Sequence[tuple[str, str]],
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
            help=_enclosing(point, events),
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
                help=_enclosing(point, events) if found.local else None,
                notes=_shapes_note(shapes, sizes),
            )
        layouts.append(found)
    if any(layout != layouts[0] for layout in layouts):
        message = f"{described} gives a different shape at each of its {calls[0]} calls"
        return Diagnostic("unaligned", message, help=_enclosing(point, events))
    tensor = runs[0][point][0]
    if tensor.is_complex():
        message = f"{described} at `:{point.port}` has complex numbers, which are not ordered"
        return Diagnostic("unaligned", message, help=_enclosing(point, events))
    return Seen(point, layouts[0], calls[0], layouts[0].describe(tensor.shape), tensor.dtype)


def _check_repeatable(seen: dict[HookPoint, Seen], first: Values, again: Values) -> None:
    for point in seen:
        for a, b in zip(first[point], again[point], strict=True):
            if not torch.equal(_bits(a), _bits(b)):
                message = f"two equal runs give different values at `{point}`: the model is random"
                advice = "a result would not be reproducible; switch its sampling or noise off"
                raise ModelError(Diagnostic("not-repeatable", message, help=advice))


def _not_by_sample(
    model: Model, feed: Feed, asked: Size, size: Size, seen: dict[HookPoint, Seen], first: Values
) -> dict[HookPoint, str]:
    """The hook points whose rows do not follow when the samples are exchanged.

    Catches what shapes cannot, such as experts' rows that happen to be as many as the tokens.
    """
    inputs = feed.example(asked)
    flipped = {
        n: v.flip(0) if isinstance(v, Tensor) and v.ndim and v.shape[0] == size.batch else v
        for n, v in inputs.items()
    }
    swapped = _run(model, list(seen), flipped)
    wrong = {}
    for point, info in seen.items():
        for before, after in zip(first[point], swapped[point], strict=True):
            a = info.layout.rows(before, size.batch, size.positions)
            b = info.layout.rows(after, size.batch, size.positions)
            turned = b.reshape(size.batch, size.positions, *b.shape[1:]).flip(0).flatten(0, 1)
            if distance(a, turned, scale(a)) > _ROUNDING.get(before.dtype, 0.5):
                wrong[point] = "samples"
    return wrong


def _not_by_position(
    model: Model, feed: TokenFeed, size: Size, seen: dict[HookPoint, Seen], first: Values
) -> dict[HookPoint, str]:
    """The hook points at which another last token changes rows, but not the last one.

    Two other tokens must both show it, and plainly: a row may stand still by itself.
    """
    found = set(seen)
    for number in range(2):
        ids = feed.random_ids(size.batch, size.positions)
        ids[0, -1] = feed.other_id(int(ids[0, -1]), number)
        mask = torch.ones_like(ids, dtype=torch.bool)
        changed = _run(model, list(seen), feed.inputs(ids, mask, size.decoder))
        found &= {
            point
            for point, info in seen.items()
            if any(
                _last_stands_still(info, size, before, after)
                for before, after in zip(first[point], changed[point], strict=True)
            )
        }
    return dict.fromkeys(found, "positions")


def _last_stands_still(info: Seen, size: Size, before: Tensor, after: Tensor) -> bool:
    a = info.layout.rows(before, size.batch, size.positions)[: size.positions]
    b = info.layout.rows(after, size.batch, size.positions)[: size.positions]
    by = scale(a)
    moved = [distance(x, y, by) for x, y in zip(a[:, None], b[:, None], strict=True)]
    limit = _ROUNDING.get(before.dtype, 0.5)
    return max(moved) > limit and moved[-1] < limit / 20


def _mixing(model: Model, feed: Feed, size: Size, seen: dict[HookPoint, Seen]) -> Mixing:
    """Whether padding, or other samples, change a sample's rows at some hook point."""
    points = list(seen)
    if isinstance(feed, TokenFeed):
        lengths = feed.trial_lengths()
        ids = feed.random_ids(len(lengths), lengths[0])
        mask = torch.arange(lengths[0]) < torch.tensor(lengths)[:, None]

        def unpadded(rows: Tensor) -> Values:
            return _run(model, points, feed.inputs(rows, torch.ones_like(rows, dtype=torch.bool)))

        alone = [
            unpadded(ids[i : i + 1, :n].repeat(copies(lengths, i), 1))
            for i, n in enumerate(lengths)
        ]
        padded = _run(model, points, feed.inputs(ids.masked_fill(~mask, feed.pad_id), mask))
        twice, beside = unpadded(ids[:1].repeat(2, 1)), unpadded(ids[:2])
    else:
        lengths = [size.positions]
        alone = [_run(model, points, feed.trial([0]))]
        twice, beside = (_run(model, points, feed.trial(picks)) for picks in ([0, 0], [0, 1]))
        padded = alone[0]
    found = Mixing.NONE
    for point, info in seen.items():
        if any(len(run[point]) != info.calls for run in (*alone, padded, twice, beside)):
            raise varying_calls(point, info.calls)
        for call in range(info.calls):
            tensors = [run[point][call] for run in alone]
            others = padded[point][call], twice[point][call], beside[point][call]
            judged = judge(info.layout, lengths, tensors, *others)
            if judged is Mixing.SAMPLES:
                return judged
            found = judged if judged is Mixing.PADDING else found
    return found


def varying_calls(point: HookPoint, calls: int) -> ModelError:
    """The error for a module that runs more or less often than it did in the first small passes."""
    often = "once" if calls == 1 else f"{calls} times"
    message = f"`{point}` ran {often} in each small probing pass, but not so on other inputs"
    help = "capture a module that runs equally often whatever the input, such as one around it"
    return ModelError(Diagnostic("varying-calls", message, help=help))


def _check_stable(module: nn.Module) -> None:
    """Refuse what would change the model for good when it meets short inputs."""
    config = getattr(module, "config", None)
    if getattr(config, "attention_type", None) == "block_sparse":
        message = "this model exchanges its block-sparse attention for another on short inputs"
        advice = "from Python load it with attention_type='original_full', and give that module"
        raise ModelError(Diagnostic("unstable-model", message, help=advice))


# Exchanging samples leaves rows as they were but for rounding; in units of `scale`.
_ROUNDING = {torch.float64: 1e-2, torch.float32: 1e-2}


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


def _enclosing(point: HookPoint, events: Sequence[tuple[str, str]]) -> str | None:
    """Advice to capture the nearest module around this one that runs."""
    parent = point.module
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if ("output", parent) in events:
            return f"try the enclosing module, `{parent}`"
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
        help=f"it takes no part in evaluation; capture `{parent}` instead" if parent else None,
        notes=(f"beside it: {listing(siblings)}",) if siblings else (),
    )
