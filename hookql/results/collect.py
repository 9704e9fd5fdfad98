"""From a finished run to results: the numbers of every capture at every hook point."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from hookql.detectors import Detector
from hookql.engines.local import Outcome
from hookql.plan import Plan, PlannedCapture, Target
from hookql.results.captured import CaptureResult, SiteResult
from hookql.statistics import STATISTICS, Accumulator

States = list[dict[str, Accumulator]]  # for each call of the module, accumulators by key


def collect(plan: Plan, outcome: Outcome) -> list[CaptureResult]:
    """The results of every capture, in the query's order."""
    return [_capture(plan, capture, outcome) for capture in plan.captures]


def _capture(plan: Plan, capture: PlannedCapture, outcome: Outcome) -> CaptureResult:
    groups: dict[object, list[Target]] = {}
    for target in capture.targets:
        seen = plan.probe.seen[target.point]
        # Layers are pooled within a role, where they are alike in axes and calls; else each stands
        # alone.
        alike = (target.role, seen.shape, seen.calls)
        key = alike if "layer" in capture.spec.pool else target
        groups.setdefault(key, []).append(target)
    sites = [_site(plan, capture, targets, outcome) for targets in groups.values()]
    return CaptureResult(
        name=capture.name,
        text=capture.spec.text,
        statistics=capture.spec.statistics,
        sites=tuple(sites),
        attributes={
            "tokens_kept": outcome.kept[capture.mask],
            "tokens_undefined": outcome.undefined[capture.mask],
            "mask": plan.describe_mask(capture.mask),
            **({"modules_left_out": ", ".join(capture.left_out)} if capture.left_out else {}),
        },
        pool=capture.spec.pool,
    )


def _site(
    plan: Plan, capture: PlannedCapture, targets: Sequence[Target], outcome: Outcome
) -> SiteResult:
    """One hook point, or those of one role with their layers pooled."""
    detectors = [outcome.detectors[target.point] for target in targets]
    seen = detectors[0].seen
    pooled = [_pooled(capture, detector) for detector in detectors]
    states = pooled[0] if len(pooled) == 1 else _merged(pooled)
    faults = [detector.nonfinite[capture.mask] for detector in detectors]
    places = [fault.first for fault in faults if fault.first is not None]
    single = len(targets) == 1 and "layer" not in capture.spec.pool
    return SiteResult(
        module=targets[0].point.module if single else tuple(t.point.module for t in targets),
        layer=targets[0].layer if single else None,
        role=targets[0].role,
        calls=seen.calls,
        axes=tuple(axis for axis in seen.layout.axes if axis not in capture.spec.pool),
        count=outcome.kept[capture.mask],
        variables=_variables(capture, states),
        nonfinite=sum(fault.count for fault in faults),
        first_nonfinite=outcome.place(min(places))[::2] if places else None,
    )


def _pooled(capture: PlannedCapture, detector: Detector) -> States:
    """A detector's states with the capture's pooled axes merged away, the last axis first."""
    states = detector.accumulators(capture.mask)
    axes = detector.seen.layout.axes
    for number in reversed(range(len(axes))):
        if axes[number] in capture.spec.pool:
            states = [{key: a.pool(number) for key, a in of_call.items()} for of_call in states]
    return states


def _merged(pooled: Sequence[States]) -> States:
    """The states of several layers as one; the detectors' own stay as they are."""
    merged = copy.deepcopy(pooled[0])
    for states in pooled[1:]:
        for mine, other in zip(merged, states, strict=True):
            for key, accumulator in mine.items():
                accumulator.merge(other[key])
    return merged


def _variables(capture: PlannedCapture, states: States) -> dict[str, np.ndarray]:
    variables = {}
    for asked in capture.spec.statistics:
        statistic = STATISTICS[asked.name]
        if statistic.key == "count":
            continue  # every result has the number of tokens kept
        numbers = [
            statistic.finish(of_call[statistic.key], **asked.parameters).cpu().numpy()
            for of_call in states
        ]
        variables[asked.variable] = np.stack(numbers) if len(numbers) > 1 else numbers[0]
    return variables
