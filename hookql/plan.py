"""The plan: a query bound to a model. What will be read where, what is shared, where it stops."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attrs import frozen

from hookql.detectors import Detector, Place, Watched
from hookql.errors import Diagnostic
from hookql.expressions import Expression
from hookql.jobs import Job, Want
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.query import CaptureSpec, Query, StatisticSpec
from hookql.models.feed import Feed
from hookql.models.load import Model
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, Seen
from hookql.predicates.evaluate import Column, Predicate
from hookql.predicates.groups import GroupTable
from hookql.selection import PairTable
from hookql.statistics import Groups, Places, Statistic, accumulators


@frozen
class Selector:
    """Which rows: those of a mask, perhaps kept apart by the values of keys.

    Selectors that are equal select the same rows and group them by the same numbers.
    """

    where: ast.Expression | None
    keys: tuple[ast.Expression, ...] = ()
    stream: str = "text"  # or "target": the decoder's tokens


@frozen(eq=False)
class Asked:
    """One statistic of a capture at one of its places."""

    spec: StatisticSpec
    statistic: Statistic
    expression: Expression
    selector: int

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of its result: the expression's."""
        return self.expression.axes.names


@frozen(eq=False)
class Target:
    """One place of a capture, what is asked of it, and where its numbers go."""

    place: Place
    layer: int | None
    role: str
    site: ast.Site
    asked: tuple[Asked, ...]
    selector: int  # of the rows that the capture keeps
    values: Mapping[ast.Expression, Expression]  # what the capture's predicate asks of the place

    @property
    def point(self) -> HookPoint:
        """The hook point of its `x`."""
        return self.place.point


@frozen(eq=False)
class PlannedCapture:
    """One capture: its meaning, its name and its places."""

    spec: CaptureSpec
    name: str
    targets: tuple[Target, ...]
    left_out: tuple[str, ...] = ()  # hook points that a wildcard matched and that cannot be read

    @property
    def selectors(self) -> tuple[int, ...]:
        """The selectors of the rows that it keeps; several only where streams differ."""
        return tuple(dict.fromkeys(target.selector for target in self.targets))

    @property
    def keys(self) -> tuple[ast.Expression, ...]:
        """What its rows are grouped by."""
        return tuple(key.expression for key in self.spec.by)

    @property
    def streams(self) -> bool:
        """Whether its groups are written out as samples complete."""
        return self.keys == (ast.Name("sample"),)


@frozen(eq=False)
class Plan:
    """What will run. Hook points, masks and accumulators stand here once, whoever shares them."""

    query: Query
    model: Model
    feed: Feed
    captures: tuple[PlannedCapture, ...]
    selectors: tuple[Selector, ...]
    predicates: tuple[Predicate | None, ...]  # one for each selector
    columns: Mapping[ast.Expression, Column]  # token leaves and group keys
    there: Mapping[ast.Expression, Predicate]  # whether a key has a value, where it may have none
    logits: HookPoint | None  # where the model's prediction is read, if anything asks for it
    probe: Probe
    stop: int  # the event of the probe's after which nothing more is needed
    share: float  # the share of the forward pass that runs, 0 to 1
    warnings: tuple[Diagnostic, ...]

    @property
    def leave(self) -> tuple[str, str] | None:
        """The event at which the pass is left: when another module begins, after the last needed.

        Not at once, so that a module that runs more often on the data than in the probe is noticed.
        Behind the input of a module its work is not waited for.
        """
        events, after = self.probe.events, self.stop + 1
        kind, module = events[self.stop]
        if kind == "input":
            at_work = after < len(events) and events[after] != ("output", module)
            return events[after] if at_work else events[self.stop]
        for event in events[after:]:
            if event[0] == "input" and not _related(event[1], module):
                return event
        return None

    @property
    def points(self) -> tuple[HookPoint, ...]:
        """Every hook point once, in the order of the model's modules."""
        return tuple(self.probe.seen)

    @property
    def streams(self) -> bool:
        """Whether some capture's groups are written out as samples complete."""
        return any(capture.streams for capture in self.captures)

    def bytes_a_sample(self) -> int:
        """About what accumulators hold of one sample, where samples are kept apart."""
        held = 1
        for capture in self.captures:
            for target in capture.targets if capture.streams else ():
                wanted = [(a.statistic, a.spec.parameters) for a in target.asked]
                sizes = [a.expression.axes.sizes for a in target.asked]
                for one, axes in zip(wanted, sizes, strict=True):
                    held += _bytes_of(one, [size or 1 for size in axes])
        return held

    @property
    def text(self) -> bool:
        """Whether something looks into the samples' text."""
        readers = (*self.predicates, *self.columns.values())
        return any(reader is not None and reader.text for reader in readers)

    def signals(self, selector: int) -> frozenset[str]:
        """What of the model's prediction a selector's rows and groups need."""
        predicate = self.predicates[selector]
        found = frozenset() if predicate is None else predicate.signals
        keys = self.selectors[selector].keys
        return found.union(*(self.columns[key].signals for key in keys))

    def own(self, selector: int) -> bool:
        """Whether a selector's rows differ from place to place: it asks for their values."""
        predicate = self.predicates[selector]
        return predicate is not None and bool(predicate.values)

    def has(self, keys: Sequence[ast.Expression]) -> tuple[Predicate, ...]:
        """Predicates that hold where all these keys have a value."""
        return tuple(self.there[key] for key in keys if key in self.there)

    def wanted(self, place: Place) -> Iterator[Target]:
        """The targets of all captures at a place."""
        for capture in self.captures:
            yield from (target for target in capture.targets if target.place == place)

    def describe_mask(self, number: int) -> str:
        """A mask as the query writes it."""
        where = self.selectors[number].where
        return "every token" if where is None else format_expression(where)

    def tables(self) -> dict[object, GroupTable]:
        """Fresh group tables, one for all selectors of the same keys and stream."""
        return {
            (s.keys, s.stream): GroupTable([self.columns[key] for key in s.keys])
            for s in self.selectors
            if s.keys
        }

    def detectors(
        self,
        tables: Mapping[object, GroupTable],
        pairs: dict[object, PairTable],
    ) -> dict[Place, Detector]:
        """Fresh detectors, one for each place, sharing the tables of groups.

        ``pairs`` is filled with the tables of ragged keys, by the selector of their capture.
        """
        places = dict.fromkeys(t.place for capture in self.captures for t in capture.targets)
        return {place: self._detector(place, tables, pairs) for place in places}

    def _detector(
        self,
        place: Place,
        tables: Mapping[object, GroupTable],
        pairs: dict[object, PairTable],
    ) -> Detector:
        targets = list(self.wanted(place))
        wants: dict[int, dict[ast.Expression, list[Asked]]] = {t.selector: {} for t in targets}
        whole = {t.selector: t.selector for t in targets}  # the capture's own, of each selector
        for target in targets:
            for asked in target.asked:
                whole.setdefault(asked.selector, target.selector)
                of_selector = wants.setdefault(asked.selector, {})
                if asked.statistic.key != "count":
                    of_selector.setdefault(asked.expression.node, []).append(asked)
        seen = {"x": self.probe.seen[place.point]}
        expressions = [a.expression for t in targets for a in t.asked]
        values = {node: e for target in targets for node, e in target.values.items()}
        if any("input" in e.operands for e in (*expressions, *values.values())):
            point = HookPoint(place.point.module, "input")
            seen["input"] = self.probe.seen[point]
        jobs = {}
        for number, of_selector in wants.items():
            selector = self.selectors[number]
            table = tables.get((selector.keys, selector.stream))
            made = [
                _want(
                    [*asked, *self._peers(place, asked)],
                    seen["x"],
                    pairs.setdefault(whole[number], PairTable()),
                )
                for asked in of_selector.values()
            ]
            jobs[number] = Job(made, seen["x"].calls, table, self.has(selector.keys))
        needs = [self.signals(number) for number in jobs]
        needs += [
            self.columns[leaf].signals
            for e in (*expressions, *values.values())
            for leaf in e.leaves
        ]
        predicates = {n: p for n in jobs if (p := self.predicates[n]) is not None and p.values}
        return Detector(
            Watched(place, seen, predicates, values, _shared(wants), waits=any(needs)), jobs
        )

    def _peers(self, place: Place, asked: Sequence[Asked]) -> list[Asked]:
        """What is asked where layers are pooled with this place, so that states can be merged.

        Statistics of one key share the state of the highest order that somebody asks for.
        """
        keys = {(a.selector, a.expression.node, a.statistic.key) for a in asked}
        return [
            other
            for capture in self.captures
            if "layer" in capture.spec.pool and any(t.place == place for t in capture.targets)
            for peer in capture.targets
            for target in self.wanted(peer.place)
            for other in target.asked
            if (other.selector, other.expression.node, other.statistic.key) in keys
        ]


def _want(asked: list[Asked], seen: Seen, pairs: PairTable) -> Want:
    """What an expression is worked out for; a ragged key becomes one more group."""
    expression = asked[0].expression
    statistics = [(a.statistic, a.spec.parameters) for a in asked]
    if None not in expression.axes.sizes:
        return Want(expression, statistics)
    axis = expression.axes.sizes.index(None)
    return Want(expression, statistics, axis, (bool(seen.causal), seen.window), pairs)


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


def _related(one: str, other: str) -> bool:
    """Whether one module is the other, inside it or around it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
