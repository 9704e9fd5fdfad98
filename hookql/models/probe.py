"""The probe: what a model does, found by running it on small inputs instead of by assuming it.

Which modules run, how often and in which order; which axis of a tensor is the batch and which the
positions; whether two equal runs give equal values; whether padding changes real rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from torch import nn

from hookql.errors import Diagnostic, ModelError
from hookql.models.checking import (
    check_repeatable,
    find_mixing,
    is_causal,
    not_by_position,
    not_by_sample,
    varying_calls,
)
from hookql.models.feed import Feed, Size, TokenFeed
from hookql.models.hooks import observing, traced
from hookql.models.learning import Seen, describe, enclosing, learn, learn_patterns
from hookql.models.load import Model
from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
from hookql.models.precision import keeping_casts
from hookql.models.signals import logits_point, unfit_logits
from hookql.models.trial import leaving_early, run_once

__all__ = ["Probe", "Seen", "probe", "varying_calls"]


@frozen(eq=False)
class Probe:
    """What the probe learnt of a model for the hook points of a plan."""

    seen: dict[HookPoint, Seen]
    problems: dict[HookPoint, Diagnostic]  # why a hook point cannot be used
    events: tuple[tuple[str, str], ...]  # ("input" | "output", module), in execution order
    mixing: Mixing  # which samples may share a batch
    # Whether the logits know no later token; None where their point was not asked for.
    causal: bool | None = None
    open: tuple[str, ...] = ()  # what only a model with its weights can show, and none was there


def probe(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
    """Run the model on small inputs and learn what the plan needs to know.

    A hook point that never runs, has no rows that follow the tokens, or runs a varying number of
    times is among the problems. Raises ModelError where the model cannot run a small input, or
    two equal runs differ.
    """
    _check_stable(model.module)
    before = [(name, id(module)) for name, module in model.module.named_modules()]
    with observing(model.module), keeping_casts(model):
        learnt = _probe(model, points, feed)
    if before != [(name, id(module)) for name, module in model.module.named_modules()]:
        message = "the model exchanges modules of its own while it runs, so none can be followed"
        raise ModelError(Diagnostic("unstable-model", message))
    return learnt


def _probe(model: Model, points: Sequence[HookPoint], feed: Feed) -> Probe:
    sizes = feed.sizes()
    events: list[tuple[str, str]] = []
    with traced(model.module, events):
        # In a run of its own: hooks everywhere may switch a fused path of the model's off.
        run_once(model, (), feed.example(sizes[0]))
    events = _whole_pass(model, events)
    with leaving_early(points, events):
        return _learnt(model, points, feed, sizes, events)


def _learnt(
    model: Model,
    points: Sequence[HookPoint],
    feed: Feed,
    sizes: Sequence[Size],
    events: Sequence[tuple[str, str]],
) -> Probe:
    """What further small passes tell, of whose events in a whole pass this is known."""
    absent: dict[HookPoint, Diagnostic] = {}
    first = run_once(model, points, feed.example(sizes[0]), absent)
    runs = [first]
    for size in sizes[1:]:
        runs.append(run_once(model, points, feed.example(size), absent, only_shapes=True))
    again = run_once(model, points, feed.example(sizes[0]), absent)
    measured = [feed.measure(size) for size in sizes]
    seen: dict[HookPoint, Seen] = {}
    problems: dict[HookPoint, Diagnostic] = {}
    for point in points:
        found = absent.get(point) or learn(model, point, runs, measured, events, feed.has_target)
        sort_in(point, found, seen, problems)
    check_repeatable(seen, first, again)
    for point, judged in learn_patterns(model, feed, seen, first).items():
        sort_in(point, judged, seen, problems)
    disordered = not_by_sample(model, feed, sizes[0], measured[0], seen, first)
    if isinstance(feed, TokenFeed):
        disordered |= not_by_position(model, feed, sizes[0], seen, first)
    for point, wrong in disordered.items():
        message = f"the rows of {describe(model, point)} at `:{point.port}` do not follow the "
        advice = enclosing(point, events)
        sort_in(point, Diagnostic("unaligned", message + wrong, help=advice), seen, problems)
    causal = None
    point_of_logits = logits_point(model)
    if isinstance(feed, TokenFeed) and point_of_logits in seen:
        assert isinstance(point_of_logits, HookPoint)
        logits = seen[point_of_logits]
        unfit = unfit_logits(model, logits, feed.vocabulary)
        sort_in(logits.point, unfit or logits, seen, problems)
        causal = None if unfit else is_causal(model, feed, sizes[0], logits, first)
    mixing = find_mixing(model, feed, measured[0], seen)
    return Probe(seen, problems, tuple(events), mixing, causal)


def _whole_pass(model: Model, events: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The events of the whole pass, of which those of a model loaded in part are the beginning."""
    if model.part is None:
        return events
    if events != list(model.part.events[: len(events)]):
        message = "the model runs other modules than it did when its weights were chosen"
        advice = "load it whole: `--optimize=-weights`"
        raise ModelError(Diagnostic("unstable-model", message, help=advice))
    return list(model.part.events)


def sort_in(
    point: HookPoint,
    found: Seen | Diagnostic,
    seen: dict[HookPoint, Seen],
    problems: dict[HookPoint, Diagnostic],
) -> None:
    """Put what was found of a hook point where it belongs."""
    if isinstance(found, Seen):
        seen[point] = found
    else:
        problems[point] = found
        seen.pop(point, None)


def _check_stable(module: nn.Module) -> None:
    """Refuse what would change the model for good when it meets short inputs."""
    config = getattr(module, "config", None)
    if getattr(config, "attention_type", None) == "block_sparse":
        message = "this model exchanges its block-sparse attention for another on short inputs"
        advice = "from Python load it with attention_type='original_full', and give that module"
        raise ModelError(Diagnostic("unstable-model", message, help=advice))
