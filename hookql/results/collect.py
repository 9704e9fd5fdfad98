"""From a finished run to results: the numbers of every capture at every hook point."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import evolve

from hookql.detectors import Detector
from hookql.engines.local import Outcome
from hookql.jobs import Job
from hookql.language import ast
from hookql.plan import Asked, Plan, PlannedCapture, Target
from hookql.raw.rows import row_dtype
from hookql.results.captured import CaptureResult, GroupAxis, SiteResult
from hookql.statistics import state_key

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
_TOKENS = ("token", "prev", "next")


def collect(
    plan: Plan,
    outcome: Outcome,
    streamed: Mapping[str, tuple[Sequence[SiteResult], Array]] | None = None,
    samples: int = 0,
) -> list[CaptureResult]:
    """The results of every capture, in the query's order.

    ``streamed`` has the sites and the samples of captures that were written out as they ran;
    ``samples`` is how many the data has.
    """
    settle(plan, outcome)
    found = [_capture(plan, capture, outcome, streamed or {}) for capture in plan.captures]
    return [evolve(result, samples=samples) for result in found]


def settle(plan: Plan, outcome: Outcome) -> None:
    """Let accumulators that saw no row know their axes, and grouped ones all groups."""
    for place, detector in outcome.detectors.items():
        axes = {}
        for target in plan.wanted(place):
            for asked in target.asked:
                sizes = asked.expression.axes.sizes
                axes[asked.expression.node] = [size for size in sizes if size is not None]
        for job in detector.jobs.values():
            job.settle(axes)


def site_groups(plan: Plan, capture: PlannedCapture) -> list[list[Target]]:
    """The targets of each site of the result: one each, or those whose layers are pooled.

    Layers are pooled within a role, where they are alike in axes and calls; else each stands alone.
    """
    groups: dict[object, list[Target]] = {}
    for target in capture.targets:
        seen = plan.probe.seen[target.point]
        alike = (target.role, seen.shape, seen.calls, seen.layout.stream)
        key = alike if "layer" in capture.spec.pool else id(target)
        groups.setdefault(key, []).append(target)
    return list(groups.values())


def site_result(
    plan: Plan,
    capture: PlannedCapture,
    targets: Sequence[Target],
    outcome: Outcome,
    groups: Ints | None = None,
) -> SiteResult:
    """One place, or those of one role with their layers pooled; of these groups alone."""
    detectors = [outcome.detectors[target.place] for target in targets]
    seen = detectors[0].seen
    jobs = [d.jobs[t.selector] for d, t in zip(detectors, targets, strict=True)]
    faults = [fault for job in jobs for fault in job.nonfinite.values()]
    places = [fault.first for fault in faults if fault.first is not None]
    single = len(targets) == 1 and "layer" not in capture.spec.pool
    variables: dict[str, Array] = {}
    axes: dict[str, tuple[str, ...]] = {}
    counts: dict[str, int | Array] = {}
    labels: dict[str, dict[str, Array]] = {}
    for number, asked in enumerate(targets[0].asked):
        if asked.selector != targets[0].selector and asked.statistic.key != "count":
            taking = [
                d.jobs[t.asked[number].selector] for d, t in zip(detectors, targets, strict=True)
            ]
            counts[asked.spec.variable] = _count(plan, asked.selector, taking, groups)
        left = tuple(name for name in asked.axes if name not in capture.spec.pool)
        for name, array in _numbers(capture, number, targets, detectors, outcome, groups).items():
            variables[name], axes[name] = array, left
        taken = asked.expression.labels.items()
        labels[asked.spec.variable] = {n: np.array(at) for n, at in taken if n in left}
    first = outcome.place(min(places))[::2] if places else None
    return SiteResult(
        module=_module(targets[0]) if single else tuple(_module(t) for t in targets),
        layer=targets[0].layer if single else None,
        role=targets[0].role,
        calls=seen.calls,
        axes=tuple(axis for axis in seen.axes if axis not in capture.spec.pool),
        count=_count(plan, targets[0].selector, jobs, groups),
        variables=variables,
        counts=counts,
        variable_axes=axes,
        variable_coordinates=labels,
        nonfinite=sum(fault.count for fault in faults),
        first_nonfinite=first,
    )


def _module(target: Target) -> str:
    return target.point.module


def _count(plan: Plan, selector: int, jobs: Sequence[Job], groups: Ints | None) -> int | Array:
    """The tokens kept; where each layer keeps its own, those of all pooled layers together."""
    counts = [job.kept if groups is None else job.group_counts[groups] for job in jobs]
    return sum(counts[1:], start=counts[0]) if plan.own(selector) else counts[0]


def occurring(plan: Plan, capture: PlannedCapture, outcome: Outcome) -> Ints:
    """The groups in which a capture has rows."""
    jobs = [outcome.detectors[t.place].jobs[t.selector] for t in capture.targets]
    return np.flatnonzero(sum(job.group_counts for job in jobs)).astype(np.int64)


def _capture(
    plan: Plan,
    capture: PlannedCapture,
    outcome: Outcome,
    streamed: Mapping[str, tuple[Sequence[SiteResult], Array]],
) -> CaptureResult:
    keys: tuple[GroupAxis, ...] = ()
    sites: Sequence[SiteResult]
    if capture.name in streamed:
        sites, samples = streamed[capture.name]
        keys = (_axis(plan, capture, 0, samples),)
    else:
        groups = None
        if capture.keys:
            groups = occurring(plan, capture, outcome)
            found = _table(plan, capture, outcome).keys(groups)
            keys = tuple(
                _axis(plan, capture, number, values) for number, values in enumerate(found)
            )
        sites = [
            site_result(plan, capture, targets, outcome, groups)
            for targets in site_groups(plan, capture)
        ]
    return CaptureResult(
        name=capture.name,
        text=capture.spec.text,
        statistics=capture.spec.statistics,
        sites=tuple(sites),
        attributes=_attributes(plan, capture, outcome),
        pool=capture.spec.pool,
        keys=keys,
        token_text=_texts(plan),
        own=any(plan.own(number) for number in capture.selectors),
    )


def _attributes(plan: Plan, capture: PlannedCapture, outcome: Outcome) -> dict[str, object]:
    found: dict[str, object] = {}
    if any(plan.own(number) for number in capture.selectors):
        jobs = [outcome.detectors[t.place].jobs[t.selector] for t in capture.targets]
        found["tokens_undefined"] = max((job.undefined for job in jobs), default=0)
    else:
        found["tokens_kept"] = sum(outcome.kept[number] for number in capture.selectors)
        found["tokens_undefined"] = sum(outcome.undefined[n] for n in capture.selectors)
    found["mask"] = plan.describe_mask(capture.selectors[0])
    if capture.left_out:
        found["modules_left_out"] = ", ".join(capture.left_out)
    return found


def _table(plan: Plan, capture: PlannedCapture, outcome: Outcome) -> Any:
    selector = plan.selectors[capture.selectors[0]]
    return outcome.tables[selector.keys, selector.stream]


def _axis(plan: Plan, capture: PlannedCapture, number: int, values: Array) -> GroupAxis:
    key = capture.spec.by[number]
    texts = None
    of_tokens = isinstance(key.expression, ast.Name) and key.expression.id in _TOKENS
    read = _texts(plan)
    if of_tokens and read is not None:
        texts = np.array(read(values.tolist()), dtype=object)
    described = (
        f"`{key.expression.column}` of the data"
        if isinstance(key.expression, ast.Row)
        else _SAID.get(key.name, key.name)
    )
    return GroupAxis(key.name, values, texts, described)


_SAID = {
    "position": "position in the context",
    "content_position": "position among the tokens that are not special",
    "sample": "index of the sample in the data",
    "token": "id of the token",
    "prev": "id of the token before",
    "next": "id of the token after",
    "chunk": "number of the context within its sample",
    "phase": "whether the token was given or generated",
    "step": "number of the generated token",
    "role": "who says the token",
}


def _texts(plan: Plan) -> Callable[[Sequence[int]], list[str]] | None:
    words = plan.vocabulary
    return None if words is None or words.tokenizer is None else words.text


# --- one statistic at one site ------------------------------------------------------------------


def _numbers(
    capture: PlannedCapture,
    number: int,
    targets: Sequence[Target],
    detectors: Sequence[Detector],
    outcome: Outcome,
    groups: Ints | None,
) -> dict[str, Array]:
    """The arrays of one statistic, each ([calls,] [G,] *axes, *extra)."""
    asked = targets[0].asked[number]
    if asked.statistic.key == "count":
        return {}  # every result has the number of tokens kept
    if asked.statistic.raw:
        seen, rows = detectors[0].seen, detectors[0].jobs[asked.selector].kept
        calls = (seen.calls,) if seen.calls > 1 else ()
        shape = (*calls, rows, *(size or 0 for size in asked.expression.axes.sizes))
        nothing = np.zeros((), row_dtype(detectors[0], asked))
        return {asked.spec.variable: np.broadcast_to(nothing, shape)}
    states = [
        [
            _state(capture, target.asked[number], detector, call, groups)
            for call in range(detector.seen.calls)
        ]
        for target, detector in zip(targets, detectors, strict=True)
    ]
    merged = states[0]
    if len(states) > 1:
        merged = copy.deepcopy(merged)
        for others in states[1:]:
            for mine, other in zip(merged, others, strict=True):
                mine.merge(other)
    per_call = [_finished(asked, state, outcome) for state in merged]
    if None in asked.expression.axes.sizes:
        selector = detectors[0].jobs[asked.selector]
        per_call = [_unragged(capture, asked, selector, found, groups) for found in per_call]
    return {
        name: np.stack([found[name] for found in per_call]) if len(per_call) > 1 else array
        for name, array in per_call[0].items()
    }


def _state(
    capture: PlannedCapture, asked: Asked, detector: Detector, call: int, groups: Ints | None
) -> Any:
    """One accumulator, of these groups, with the pooled axes merged away, the last axis first."""
    states = detector.jobs[asked.selector].states[call][asked.expression.node]
    state = states[state_key(asked.statistic, asked.spec.parameters)]
    sizes = asked.expression.axes.sizes
    axes = [n for n, size in zip(asked.axes, sizes, strict=True) if size is not None]
    if groups is not None and len(axes) == len(sizes):
        state = state.select(torch.from_numpy(groups))
    for number in reversed(range(len(axes))):
        if axes[number] in capture.spec.pool:
            state = state.pool(number)
    return state


def _finished(asked: Asked, state: Any, outcome: Outcome) -> dict[str, Array]:
    """What a statistic reads off its accumulator, by variable."""
    found = asked.statistic.finish(state, **asked.spec.parameters)
    variable = asked.spec.variable
    if not isinstance(found, Mapping):
        array = found.cpu().numpy()
        counts = asked.statistic.name == "sum" and asked.expression.kind == "truth"
        return {variable: np.rint(array) if counts else array}
    arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    if (order := arrays.pop("order", None)) is not None:
        places = zip(("sample", "chunk", "position"), outcome.place(order), strict=True)
        arrays |= {name: np.where(order < 0, -1, values) for name, values in places}
    return {f"{variable}_{name}" if name else variable: a for name, a in arrays.items()}


def _unragged(
    capture: PlannedCapture, asked: Asked, job: Job, found: Mapping[str, Array], groups: Ints | None
) -> dict[str, Array]:
    """Arrays (pairs, *axes but the key, *extra) with the key as the axis that it is."""
    want = next(w for w in job.wants if w.expression.node == asked.expression.node)
    assert want.pairs is not None
    pairs = want.pairs.pairs()
    numbers = np.zeros(1, np.int64) if groups is None else groups
    place = np.full(int(pairs[:, 0].max(initial=0)) + 1, -1, np.int64)
    place[numbers[numbers < len(place)]] = np.flatnonzero(numbers < len(place))
    row = place[pairs[:, 0]]
    wanted = row >= 0
    keys = int(pairs[wanted, 1].max(initial=-1)) + 1
    pooled = sum(name in capture.spec.pool for name in asked.axes[: asked.axes.index("key")])
    axis = asked.axes.index("key") - pooled
    made = {}
    for name, array in found.items():
        nothing: Any = (
            np.nan if array.dtype.kind == "f" else 0 if name == asked.spec.variable else -1
        )
        whole = np.full((len(numbers), keys, *array.shape[1:]), nothing, array.dtype)
        whole[row[wanted], pairs[wanted, 1]] = array[wanted]
        whole = np.moveaxis(whole, 1, axis + 1)
        made[name] = whole[0] if groups is None else whole
    return made
