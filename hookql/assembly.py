"""Assembly: a plan's detectors and group tables, made fresh for a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hookql.detectors import Detector, Place, Watched
from hookql.expressions import Expression
from hookql.jobs import Job, Want
from hookql.language import ast
from hookql.models.ports import HookPoint
from hookql.models.probe import Seen
from hookql.plan import Asked, Plan, PlannedCapture
from hookql.predicates.groups import GroupTable
from hookql.selection import PairTable
from hookql.statistics import Groups, Places, Statistic, accumulators, state_key


def group_tables(plan: Plan) -> dict[object, GroupTable]:
    """Fresh group tables, one for all selectors of the same keys and stream."""
    return {
        (s.keys, s.stream): GroupTable([plan.columns[key] for key in s.keys])
        for s in plan.selectors
        if s.keys
    }


def make_detectors(
    plan: Plan,
    tables: Mapping[object, GroupTable],
    pairs: dict[object, PairTable],
) -> dict[Place, Detector]:
    """Fresh detectors, one for each place, sharing the tables of groups.

    ``pairs`` is filled with the tables of ragged keys, by the selector of their capture.
    """
    places = dict.fromkeys(t.place for capture in plan.captures for t in capture.targets)
    return {place: _detector(plan, place, tables, pairs) for place in places}


def _detector(
    plan: Plan,
    place: Place,
    tables: Mapping[object, GroupTable],
    pairs: dict[object, PairTable],
) -> Detector:
    targets = list(plan.wanted(place))
    wants: dict[int, dict[ast.Expression, list[Asked]]] = {t.selector: {} for t in targets}
    whole = {t.selector: t.selector for t in targets}  # the capture's own, of each selector
    for target in targets:
        for asked in target.asked:
            whole.setdefault(asked.selector, target.selector)
            of_selector = wants.setdefault(asked.selector, {})
            if asked.statistic.key != "count":
                of_selector.setdefault(asked.expression.node, []).append(asked)
    seen = {"x": plan.probe.seen[place.point]}
    expressions = [a.expression for t in targets for a in t.asked]
    values = {node: e for target in targets for node, e in target.values.items()}
    if any("input" in e.operands for e in (*expressions, *values.values())):
        point = HookPoint(place.point.module, "input")
        seen["input"] = plan.probe.seen[point]
    jobs = {}
    for number, of_selector in wants.items():
        selector = plan.selectors[number]
        table = tables.get((selector.keys, selector.stream))
        made = [
            _want(
                [*asked, *_peers(plan, place, asked)],
                seen["x"],
                pairs.setdefault(whole[number], PairTable()),
            )
            for asked in of_selector.values()
        ]
        jobs[number] = Job(made, seen["x"].calls, table, plan.has(selector.keys))
    needs = [plan.signals(number) for number in jobs]
    needs += [
        plan.columns[leaf].signals for e in (*expressions, *values.values()) for leaf in e.leaves
    ]
    predicates = {n: p for n in jobs if (p := plan.predicates[n]) is not None and p.values}
    return Detector(
        Watched(place, seen, predicates, values, _shared(wants), waits=any(needs)), jobs
    )


def _peers(plan: Plan, place: Place, asked: Sequence[Asked]) -> list[Asked]:
    """What is asked where layers are pooled with this place, so that states can be merged.

    Statistics of one key share the state of the highest order that somebody asks for.
    """
    keys = {(a.selector, a.expression.node, a.statistic.key) for a in asked}
    return [
        other
        for capture in plan.captures
        if "layer" in capture.spec.pool and any(t.place == place for t in capture.targets)
        for peer in capture.targets
        for target in plan.wanted(peer.place)
        for other in target.asked
        if (other.selector, other.expression.node, other.statistic.key) in keys
    ]


def _want(asked: list[Asked], seen: Seen, pairs: PairTable) -> Want:
    """What an expression is worked out for; a ragged key becomes one more group."""
    expression = asked[0].expression
    statistics = [(a.statistic, a.spec.parameters) for a in asked if not a.statistic.raw]
    if None not in expression.axes.sizes:
        return Want(expression, statistics, len(statistics) < len(asked))
    axis = expression.axes.sizes.index(None)
    sees = bool(seen.causal), seen.window
    return Want(expression, statistics, key_axis=axis, sees=sees, pairs=pairs)


def bytes_a_group(plan: Plan) -> dict[tuple[tuple[ast.Expression, ...], str], int]:
    """About what accumulators hold of one group, for each table of groups."""
    held: dict[tuple[tuple[ast.Expression, ...], str], int] = {}
    known: dict[object, int] = {}
    for capture in plan.captures:
        for target in capture.targets if capture.keys else ():
            selector = plan.selectors[target.selector]
            key = selector.keys, selector.stream
            calls = plan.probe.seen[target.point].calls
            for asked in target.asked:
                sizes = tuple(size or 1 for size in asked.expression.axes.sizes)
                state = state_key(asked.statistic, asked.spec.parameters), sizes
                if state not in known:
                    known[state] = _bytes_of((asked.statistic, asked.spec.parameters), sizes)
                held[key] = held.get(key, 0) + calls * known[state]
    return held


def bytes_a_row(plan: Plan, captures: Sequence[PlannedCapture] | None = None) -> int:
    """What the raw rows of one token take, in bytes of float32; of some captures, or of all."""
    held = 0
    for capture in plan.captures if captures is None else captures:
        for target in capture.targets:
            for asked in target.asked:
                if asked.statistic.raw:
                    sizes = [size or 0 for size in asked.expression.axes.sizes]
                    held += 4 * math.prod(sizes) * plan.probe.seen[target.point].calls
    return held


def bytes_a_sample(plan: Plan) -> int:
    """About what accumulators hold of one sample, where samples are kept apart."""
    sizes = bytes_a_group(plan)
    return max(1, sum(n for (keys, _), n in sizes.items() if keys == (ast.Name("sample"),)))


def _bytes_of(wanted: tuple[Statistic, Mapping[str, Any]], axes: Sequence[int]) -> int:
    """What a statistic holds of a group, found by giving it some ordinary rows."""
    held = 0
    spread = torch.linspace(-2, 2, 64) ** 9  # of many sizes, as activations are
    rows = spread[:, None].expand(64, math.prod(axes)).reshape(64, *axes)
    for state in accumulators([wanted], grouped=True).values():
        given: list[Any] = [rows, Groups(np.zeros(64, np.int64), 1)]
        if getattr(state, "places", False):
            given.append(Places(torch.arange(64), torch.zeros(64, dtype=torch.int64)))
        state.update(*given)
        held += state.nbytes
    return held


def _shared(wants: Mapping[int, Mapping[ast.Expression, list[Asked]]]) -> tuple[Expression, ...]:
    """Expressions, more than `x` alone, that several selectors ask for."""
    users: dict[ast.Expression, list[Expression]] = {}
    for of_selector in wants.values():
        for node, asked in of_selector.items():
            if not isinstance(node, ast.Name):
                users.setdefault(node, []).append(asked[0].expression)
    return tuple(found[0] for found in users.values() if len(found) > 1)
