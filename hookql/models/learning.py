"""What several small runs tell of a hook point: its axes, its calls, the keys of a pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from hookql.errors import Diagnostic, listing
from hookql.models.feed import Feed, Size, TokenFeed
from hookql.models.layout import Layout, Misaligned, find_layout, find_pattern_layout
from hookql.models.load import Model
from hookql.models.patterns import claim_of, has_sinks, trial_length, visible_keys
from hookql.models.ports import HookPoint, no_pattern
from hookql.models.trial import Held, run_once

Events = Sequence[tuple[str, str]]


@frozen(eq=False)
class Seen:
    """What the probe learnt of one hook point.

    Of an attention pattern also which keys a query sees: ``causal``, none later than itself;
    ``window``, only those less than that many positions away (None: however far).
    """

    point: HookPoint
    layout: Layout
    calls: int  # how often its module runs in one pass
    shape: tuple[int | str, ...]  # the tensor's shape, "batch", "position" and "key" in place
    dtype: torch.dtype
    causal: bool | None = None
    window: int | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of a row's axes."""
        return self.layout.axes

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Their sizes; None for the keys of a pattern, as many as the batch has positions."""
        own = [n for n in self.shape if isinstance(n, int) or n == "key"]
        own = own[len(own) - len(self.axes) :]
        return tuple(n if isinstance(n, int) else None for n in own)


def learn(
    model: Model,
    point: HookPoint,
    runs: Sequence[Held],
    sizes: Sequence[Size],
    events: Events,
    has_target: bool,
) -> Seen | Diagnostic:
    """What several runs tell of a hook point, or why it cannot be used."""
    calls = [len(run[point]) for run in runs]
    if not any(calls):
        return _never_ran(model.module, point)
    described = describe(model, point)
    if len(set(calls)) > 1:
        return Diagnostic(
            "unaligned",
            f"{described} runs a varying number of times in a pass, so that its rows cannot be "
            "aligned with tokens",
            help=enclosing(point, events),
            notes=(f"times run in four small passes: {', '.join(map(str, calls))}",),
        )
    layouts = []
    for call in range(calls[0]):
        shapes = [tuple(run[point][call].shape) for run in runs]
        found = _layout(model, point, shapes, sizes)
        if isinstance(found, Misaligned):
            return _misaligned(model, point, found, events, shapes, sizes)
        layouts.append(found)
    if any(layout != layouts[0] for layout in layouts):
        message = f"{described} gives a different shape at each of its {calls[0]} calls"
        return Diagnostic("unaligned", message, help=enclosing(point, events))
    if layouts[0].stream == "target" and not has_target:
        message = f"{described} follows the decoder's tokens, and nothing says what these are"
        advice = "name a column of target texts: --target COLUMN (from Python target='COLUMN')"
        return Diagnostic("needs-target", message, help=advice)
    tensor = runs[0][point][0]
    if tensor.is_complex():
        message = f"{described} at `:{point.port}` has complex numbers, which are not ordered"
        return Diagnostic("unaligned", message, help=enclosing(point, events))
    return Seen(point, layouts[0], calls[0], layouts[0].describe(tensor.shape), tensor.dtype)


def learn_patterns(
    model: Model, feed: Feed, seen: dict[HookPoint, Seen], first: Held
) -> dict[HookPoint, Seen | Diagnostic]:
    """Which keys the queries of each pattern see, or why it is none.

    Tokens are run once more, long enough to show a small window; of other inputs the first run is
    looked at.
    """
    points = [point for point in seen if point.side == "pattern"]
    if not points:
        return {}
    claims = {point: claim_of(model.module, point.module) for point in points}
    held = first
    if isinstance(feed, TokenFeed):
        length = trial_length(list(claims.values()), model.context)
        size = Size(2 if length <= 64 else 1, length, length)
        ids = feed.random_ids(size.batch, length)
        held = run_once(model, points, feed.unpadded(ids, feed.random_target(size)))
    found: dict[HookPoint, Seen | Diagnostic] = {}
    for point in points:
        sinks = has_sinks(model.module.get_submodule(point.module))
        judged = [visible_keys(w, claims[point], model.context, sinks) for w in held[point]]
        reason = next((j for j in judged if isinstance(j, str)), None)
        if reason is None and any(j != judged[0] for j in judged):
            reason = "its calls see different keys"
        if reason is not None:
            found[point] = _not_a_pattern(model, point, reason, held[point][0])
        else:
            keys: Any = judged[0]
            found[point] = evolve(seen[point], causal=keys.causal, window=keys.window)
    return found


def describe(model: Model, point: HookPoint) -> str:
    """A hook point's module with its class."""
    name = type(model.module.get_submodule(point.module)).__name__
    return f"`{point.module or 'the model'}` ({name})"


def enclosing(point: HookPoint, events: Events) -> str | None:
    """Advice to capture the nearest module around this one that runs."""
    parent = point.module
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if ("output", parent) in events:
            return f"try the enclosing module, `{parent}`"
    return None


def _layout(
    model: Model, point: HookPoint, shapes: list[tuple[int, ...]], sizes: Sequence[Size]
) -> Layout | Misaligned:
    if point.side == "pattern":
        return find_pattern_layout(shapes, sizes)
    return find_layout(shapes, sizes, _heads(model.module))


def _misaligned(
    model: Model,
    point: HookPoint,
    why: Misaligned,
    events: Events,
    shapes: list[tuple[int, ...]],
    sizes: Sequence[Size],
) -> Diagnostic:
    described, notes = describe(model, point), _shapes_note(shapes, sizes)
    if point.side == "pattern":
        message = f"the attention weights of {described} cannot be aligned with tokens: "
        code = "cross-attention" if why.crossed else "no-pattern"
        return Diagnostic(code, message + why.reason, notes=notes)
    message = f"the rows of {described} at `:{point.port}` cannot be aligned with tokens: "
    advice = why.help or (enclosing(point, events) if why.local else None)
    return Diagnostic("unaligned", message + why.reason, help=advice, notes=notes)


def _not_a_pattern(model: Model, point: HookPoint, reason: str, weights: Tensor) -> Diagnostic:
    """A tensor of four axes that is no pattern; where weights are hidden, that is why."""
    kind = type(model.module.get_submodule(point.module)).__name__
    if model.attn not in (None, "eager") and "distribution" in reason:
        return no_pattern(point, kind, model.attn, True, [f"a tensor {tuple(weights.shape)}"])
    message = f"the attention weights of {describe(model, point)} cannot be pooled: {reason}"
    return Diagnostic("no-pattern", message)


def _heads(module: nn.Module) -> frozenset[int]:
    """Counts of attention heads that the config, or one inside it, states."""
    names = (
        "num_attention_heads", "num_key_value_heads", "num_global_key_value_heads", "n_head",
        "n_heads", "num_heads", "num_kv_heads", "encoder_attention_heads",
        "decoder_attention_heads",
    )  # fmt: skip
    configs = _configs(getattr(module, "config", None))
    return frozenset(v for c in configs for n in names if isinstance(v := getattr(c, n, None), int))


def _configs(config: Any) -> Iterator[Any]:
    """A config and those inside it, of a text or a vision part."""
    yield config
    for value in vars(config).values() if hasattr(config, "__dict__") else ():
        if hasattr(value, "model_type"):
            yield from _configs(value)


def _shapes_note(shapes: list[tuple[int, ...]], sizes: Sequence[Size]) -> tuple[str, ...]:
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
