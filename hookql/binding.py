"""Binding: a query and a model make a plan, or every error that stands in the way at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from attrs import define, evolve, field

from hookql.binding_errors import (
    no_such_columns,
    no_such_pools,
    rows_differ,
    unusable,
    without_problems,
    wrong_groups,
)
from hookql.conditions import always, joined, there, visible
from hookql.detectors import Place
from hookql.errors import Diagnostic, HookQLError, QueryError
from hookql.expressions import Axes, Expression, compile_expression, require_scalar
from hookql.language import ast
from hookql.language.query import CaptureSpec, Query, StatisticSpec, capture_names
from hookql.language.values import (
    operands_in,
    signals_in,
    token_leaves,
    value_leaves,
    with_row_truths,
)
from hookql.language.walk import walk
from hookql.models.cost import share_run
from hookql.models.feed import Feed
from hookql.models.lens import Lens, find_lens
from hookql.models.load import Model
from hookql.models.paths import Match, match_sites
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, Seen, probe
from hookql.models.signals import logits_point, not_causal
from hookql.models.stopping import stop_of
from hookql.plan import USUAL, Asked, Plan, PlannedCapture, Selector, Target
from hookql.predicates.evaluate import Column, Predicate, compile_column, compile_predicate
from hookql.predicates.vocabulary import Vocabulary
from hookql.statistics import STATISTICS

P = ParamSpec("P")
T = TypeVar("T")


def bind(
    query: Query,
    model: Model,
    feed: Feed,
    columns: Sequence[str] | None = None,
    rules: frozenset[str] = USUAL,
    look: Callable[[Model, Sequence[HookPoint], Feed], Probe] = probe,
) -> Plan:
    """Bind a query to a model. Raises QueryError or ModelError with everything that is wrong.

    ``columns`` are the data's columns where they are known, for ``row.NAME``; ``rules`` those of
    the optimiser that are on; ``look`` learns of the model what the plan needs: `probe` by running
    it, `probe_shapes` without its weights.
    """
    binder = _Binder(query, model, feed, columns)
    matched = [binder.matches(spec) for spec in query.captures]
    binder.problems += no_such_columns(query, feed)
    for spec in query.captures:
        binder.readers(spec)
    logits = binder.logits()
    binder.raise_problems()
    points = _points(model, query, matched, logits)
    learnt = look(model, points, feed)
    names = capture_names(query)
    whole = zip(query.captures, names, matched, strict=True)
    kept, warnings = without_problems(query, list(whole), learnt)
    if logits is not None:
        binder.check_logits(logits, learnt)
    captures = [
        binder.capture(spec, name, matches, left_out, learnt)
        for spec, name, matches, left_out in kept
    ]
    binder.raise_problems()
    no_such_pools(query, captures, learnt)
    stop = stop_of(learnt.seen, learnt.events)
    return Plan(
        query=query,
        model=model,
        feed=feed,
        captures=tuple(captures),
        selectors=tuple(binder.selectors),
        predicates=tuple(binder.predicate(selector.where) for selector in binder.selectors),
        columns=binder.compiled,
        there=binder.there,
        vocabulary=binder.words(),
        logits=logits,
        probe=learnt,
        stop=stop,
        share=share_run(model.module, learnt.events, stop) if "depth" in rules else 1.0,
        warnings=(*query.warnings, *warnings),
        rules=rules,
    )


@define(eq=False)
class _Binder:
    """What is made while a query is bound, and what is wrong with it."""

    query: Query
    model: Model
    feed: Feed
    names: Sequence[str] | None
    problems: list[Diagnostic] = field(factory=list)
    selectors: list[Selector] = field(factory=list)
    compiled: dict[ast.Expression, Column] = field(factory=dict)
    there: dict[ast.Expression, Predicate] = field(factory=dict)
    _predicates: dict[ast.Expression, Predicate] = field(factory=dict)
    _vocabulary: Vocabulary | None = None
    _lens: Lens | Diagnostic | None = None

    def raise_problems(self) -> None:
        """Raise what is wrong so far, in the order of the text."""
        if self.problems:
            once = dict.fromkeys(self.problems)
            raise QueryError(sorted(once, key=lambda d: d.span.start if d.span else -1))

    def matches(self, spec: CaptureSpec) -> list[Match]:
        """The places of a capture."""
        found = self._trying(
            lambda: match_sites(self.model.module, spec.sites, spec.excepts, self.query.source)
        )
        return found or []

    def readers(self, spec: CaptureSpec) -> None:
        """Compile a capture's predicate, its keys and all token leaves."""
        whole = [stat.value for stat in spec.statistics]
        whole += value_leaves(spec.where) if spec.where is not None else ()
        leaves = [leaf for node in whole for leaf in token_leaves(with_row_truths(node))]
        for node in (*leaves, *(key.expression for key in spec.by)):
            self._trying(self._column, node)
        for key in (key.expression for key in spec.by):
            if not always(key) and (has_key := self._trying(self.predicate, there(key))):
                self.there[key] = has_key
        self._trying(self.predicate, spec.where)

    def predicate(self, where: ast.Expression | None) -> Predicate | None:
        """A predicate, compiled once."""
        if where is None:
            return None
        if where not in self._predicates:
            self._predicates[where] = compile_predicate(
                where, self.words(), self.query.source, self.names
            )
        return self._predicates[where]

    def logits(self) -> HookPoint | None:
        """Where the model's prediction is read, if something asks for it."""
        asks = self._asks_prediction()
        if asks is None:
            return None
        found = logits_point(self.model)
        if isinstance(found, Diagnostic):
            self.problems.append(evolve(found, span=asks.span, source=self.query.source))
            return None
        return found

    def check_logits(self, point: HookPoint, learnt: Probe) -> None:
        """The prediction must be there, and rest on earlier tokens alone."""
        asks = self._asks_prediction()
        assert asks is not None
        wrong = learnt.problems.get(point)
        if wrong is None and learnt.causal is False:
            wrong = not_causal(self.model)
        if wrong is not None:
            self.problems.append(evolve(wrong, span=asks.span, source=self.query.source))

    def capture(
        self,
        spec: CaptureSpec,
        name: str,
        matches: Sequence[Match],
        left_out: tuple[str, ...],
        learnt: Probe,
    ) -> PlannedCapture:
        """A capture with everything that is asked of each of its places."""
        targets = []
        for match in matches:
            target = self._trying(self._target, spec, match, learnt)
            if target is not None:
                targets.append(target)
        self.problems += wrong_groups(self.query, spec, targets, learnt)
        return PlannedCapture(spec, name, tuple(targets), left_out)

    def _target(self, spec: CaptureSpec, match: Match, learnt: Probe) -> Target:
        seen = learnt.seen[match.point]
        stream = seen.layout.stream
        operands = {"x": _axes(match, seen)}
        if match.whole:
            operands["output"] = operands["x"]
            beside = learnt.seen.get(HookPoint(match.module, "input"))
            if beside is not None:
                operands["input"] = Axes(beside.axes, beside.sizes)
        keys = tuple(key.expression for key in spec.by)
        values = {}
        for leaf in value_leaves(spec.where) if spec.where is not None else ():
            found = self._trying(self._one_number, leaf, operands, stream)
            if found is not None:
                values[leaf] = found
        if values and seen.calls > 1:
            self.problems.append(self._several_calls(spec, match, seen))
        selector = self._selector(spec.where, keys, stream)

        def ask(stat: StatisticSpec) -> Asked:
            expression = self._expression(stat.value, operands, stream)
            wrong = unusable(stat, STATISTICS[stat.name], expression, match, self.query)
            if wrong is not None:
                raise QueryError([wrong])
            more = [there(leaf) for leaf in expression.leaves if not always(leaf)]
            more += visible(expression, seen)
            number = self._selector(joined([spec.where, *more]), keys, stream) if more else selector
            if number != selector and STATISTICS[stat.name].raw:
                raise QueryError([rows_differ(stat, more, self.query)])
            return Asked(stat, STATISTICS[stat.name], expression, number)

        asked = [self._trying(ask, stat) for stat in spec.statistics]
        right = tuple(one for one in asked if one is not None)
        place = Place(match.point, match.view)
        return Target(place, match.layer, match.role, match.site, right, selector, values)

    def _one_number(
        self, leaf: ast.Expression, operands: Mapping[str, Axes], stream: str
    ) -> Expression:
        """A value expression of a predicate, which must be one number a token."""
        expression = self._expression(leaf, operands, stream)
        require_scalar(expression, self.query.source)
        return expression

    def _expression(
        self, node: ast.Expression, operands: Mapping[str, Axes], stream: str
    ) -> Expression:
        node = with_row_truths(node)
        leaves = {leaf: self._column(leaf).kind for leaf in token_leaves(node)}
        for part in walk(node):
            if isinstance(part, ast.Call) and part.function == "lens":
                self._lens = self._lens or find_lens(self.model)
                if isinstance(self._lens, Lens) and self._lens.stream != stream:
                    whose = "decoder" if self._lens.stream == "target" else "text"
                    message = f"`lens` reads the {whose}'s stream, and this site is not in it"
                    raise QueryError(
                        [Diagnostic("wrong-lens", message, part.span, self.query.source)]
                    )
        return compile_expression(node, operands, leaves, self._lens, self.query.source)

    def _column(self, node: ast.Expression) -> Column:
        if node not in self.compiled:
            self.compiled[node] = compile_column(node, self.words(), self.query.source, self.names)
        return self.compiled[node]

    def words(self) -> Vocabulary | None:
        """What tokens spell; None where the inputs are no tokens."""
        if self._vocabulary is None and self.feed.tokens:
            self._vocabulary = Vocabulary(self.model.tokenizer)
        return self._vocabulary

    def _selector(
        self, where: ast.Expression | None, keys: tuple[ast.Expression, ...], stream: str
    ) -> int:
        selector = Selector(where, keys, stream)
        if selector not in self.selectors:
            self.selectors.append(selector)
        return self.selectors.index(selector)

    def _asks_prediction(self) -> ast.Name | None:
        """The first word of the query that asks for the model's prediction."""
        for spec in self.query.captures:
            for node in _expressions(spec):
                for part in walk(node):
                    if isinstance(part, ast.Name) and signals_in(part):
                        return part
        return None

    def _several_calls(self, spec: CaptureSpec, match: Match, seen: Seen) -> Diagnostic:
        assert spec.where is not None
        message = f"`{match.module}` runs {seen.calls} times in a pass, and `where` asks for values"
        advice = "such a `where` goes with modules that run once"
        return Diagnostic("several-calls", message, spec.where.span, self.query.source, advice)

    def _trying(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What is made, or None where it is wrong, which is noted."""
        try:
            return make(*args, **kwargs)
        except HookQLError as error:
            self.problems += error.diagnostics
            return None


def _expressions(spec: CaptureSpec) -> list[ast.Expression]:
    where = [] if spec.where is None else [spec.where]
    return [*where, *(key.expression for key in spec.by), *(s.value for s in spec.statistics)]


def _axes(match: Match, seen: Seen) -> Axes:
    if match.view is None:
        return Axes(seen.axes, seen.sizes)
    width = 1
    for size in seen.sizes:
        assert size is not None
        width *= size
    return Axes(*match.view.axes(width))


def _points(
    model: Model, query: Query, matched: Sequence[Sequence[Match]], logits: HookPoint | None
) -> list[HookPoint]:
    """Every hook point that is needed, in the order of the model's modules."""
    wanted = {} if logits is None else {logits: None}
    for spec, matches in zip(query.captures, matched, strict=True):
        operands = frozenset[str]().union(*(operands_in(node) for node in _expressions(spec)))
        for match in matches:
            wanted[match.point] = None
            if "input" in operands and match.whole:
                wanted[HookPoint(match.module, "input")] = None
    order = {name: i for i, (name, _) in enumerate(model.module.named_modules())}
    return sorted(wanted, key=lambda p: (order.get(p.module, 0), p.side, str(p.element)))
