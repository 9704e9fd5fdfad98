"""Splitting: what several queries' pass has so far, as each of them would have it alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from attrs import evolve

from hookql.detectors import Detector, Place
from hookql.engines.outcome import Outcome
from hookql.jobs import Job
from hookql.language import ast
from hookql.plan import Plan, Target
from hookql.predicates.groups import GroupTable


def split(plan: Plan, outcome: Outcome) -> Outcome:
    """The outcome of one query, whose plan is a part of that of the pass.

    It shares accumulators with the whole, and may let go of groups and rows by itself: they stay
    in the whole, which goes on.
    """
    targets: dict[Place, list[Target]] = {}
    for capture in plan.captures:
        for target in capture.targets:
            targets.setdefault(target.place, []).append(target)
    tables: dict[int, GroupTable] = {}
    detectors = {
        place: _detector(outcome.detectors[place], plan.wanted(place), tables) for place in targets
    }
    by_key = {
        key: tables[id(table)] for key, table in outcome.tables.items() if id(table) in tables
    }
    return evolve(outcome, detectors=detectors, tables=by_key)


def _detector(
    whole: Detector, targets: Iterable[Target], tables: dict[int, GroupTable]
) -> Detector:
    targets = list(targets)
    nodes: dict[int, set[ast.Expression]] = {target.selector: set() for target in targets}
    for target in targets:
        for asked in target.asked:
            of_selector = nodes.setdefault(asked.selector, set())
            if asked.statistic.key != "count":
                of_selector.add(asked.expression.node)
    read = [asked.expression for target in targets for asked in target.asked]
    read += [expression for target in targets for expression in target.values.values()]
    operands = {"x", *(name for expression in read for name in expression.operands)}
    seen = {name: seen for name, seen in whole.watched.seen.items() if name in operands}
    jobs = {
        number: _job(whole.jobs[number], of_selector, seen, tables)
        for number, of_selector in nodes.items()
    }
    return Detector(evolve(whole.watched, seen=seen), jobs)


def _job(
    whole: Job,
    nodes: Iterable[ast.Expression],
    operands: Iterable[str],
    tables: dict[int, GroupTable],
) -> Job:
    mine = copy.copy(whole)
    mine.wants = tuple(want for want in whole.wants if want.expression.node in nodes)
    mine.states = [
        {node: dict(states) for node, states in of_call.items() if node in nodes}
        for of_call in whole.states
    ]
    mine.pieces = list(whole.pieces)
    mine.nonfinite = {name: each for name, each in whole.nonfinite.items() if name in operands}
    if whole.table is not None:
        mine.table = tables.setdefault(id(whole.table), copy.copy(whole.table))
    return mine
