"""The plan: a query bound to a model. What will be read where, what is shared, where it stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from hookql.detectors import Detector
from hookql.errors import Diagnostic, HookQLError, QueryError, listing
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.query import CaptureSpec, Query, capture_names
from hookql.language.walk import walk
from hookql.models.cost import share_run
from hookql.models.feed import Feed
from hookql.models.load import Model
from hookql.models.names import as_one_problem, folded, reason
from hookql.models.paths import layer_and_role, match_sites
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, probe
from hookql.predicates.evaluate import Predicate, compile_predicate
from hookql.predicates.vocabulary import Vocabulary
from hookql.statistics import STATISTICS, Statistic


@frozen
class Target:
    """One hook point of a capture, and where its numbers go."""

    point: HookPoint
    layer: int | None
    role: str
    site: ast.Site


@frozen(eq=False)
class PlannedCapture:
    """One capture: its meaning, its name, its hook points and the number of its mask."""

    spec: CaptureSpec
    name: str
    targets: tuple[Target, ...]
    mask: int
    left_out: tuple[str, ...] = ()  # hook points that a wildcard matched and that cannot be read


@frozen(eq=False)
class Plan:
    """What will run. Hook points, masks and accumulators stand here once, whoever shares them."""

    query: Query
    model: Model
    feed: Feed
    captures: tuple[PlannedCapture, ...]
    masks: tuple[ast.Expression | None, ...]
    predicates: tuple[Predicate | None, ...]
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

    def wanted(self, point: HookPoint) -> dict[int, list[Statistic]]:
        """For each mask, the statistics that some capture asks for at a hook point."""
        wanted: dict[int, list[Statistic]] = {}
        for capture in self.captures:
            if any(target.point == point for target in capture.targets):
                statistics = wanted.setdefault(capture.mask, [])
                statistics += [STATISTICS[s.name] for s in capture.spec.statistics]
        return wanted

    def detectors(self) -> dict[HookPoint, Detector]:
        """Fresh detectors, one for each hook point."""
        return {p: Detector(seen, self.wanted(p)) for p, seen in self.probe.seen.items()}

    def describe_mask(self, number: int) -> str:
        """A mask as the query writes it."""
        where = self.masks[number]
        return "every token" if where is None else format_expression(where)


def bind(query: Query, model: Model, feed: Feed, columns: Sequence[str] | None = None) -> Plan:
    """Bind a query to a model. Raises QueryError or ModelError with everything that is wrong.

    ``columns`` are the data's columns where they are known, for ``row.NAME``.
    """
    problems: list[Diagnostic] = []
    masks: list[ast.Expression | None] = []
    captures: list[PlannedCapture] = []
    for spec, name in zip(query.captures, capture_names(query), strict=True):
        if spec.where not in masks:
            masks.append(spec.where)
        try:
            targets = _targets(query, spec, model)
        except HookQLError as error:
            problems += error.diagnostics
            continue
        captures.append(PlannedCapture(spec, name, targets, masks.index(spec.where)))
    problems += _unknown_columns(query, masks, feed)
    predicates: list[Predicate | None] = []
    vocabulary = Vocabulary(model.tokenizer) if feed.tokens else None
    for where in masks:
        try:
            predicates.append(
                None
                if where is None
                else compile_predicate(where, vocabulary, query.source, columns)
            )
        except HookQLError as error:
            problems += error.diagnostics
    if problems:
        raise QueryError(sorted(problems, key=lambda d: d.span.start if d.span else -1))
    wanted = {target.point for capture in captures for target in capture.targets}
    order = {name: i for i, (name, _) in enumerate(model.module.named_modules())}
    points = sorted(wanted, key=lambda p: (order.get(p.module, 0), p.side, str(p.element)))
    learnt = probe(model, points, feed)
    captures, warnings = _without_problems(query, captures, learnt)
    _check_pools(query, captures, learnt)
    stop = _stop(learnt)
    share = share_run(model.module, learnt.events, stop)
    return Plan(
        query=query,
        model=model,
        feed=feed,
        captures=tuple(captures),
        masks=tuple(masks),
        predicates=tuple(predicates),
        probe=learnt,
        stop=stop,
        share=share,
        warnings=(*query.warnings, *warnings),
    )


def _related(one: str, other: str) -> bool:
    """Whether one module is the other, inside it or around it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _unknown_columns(
    query: Query, masks: Sequence[ast.Expression | None], feed: Feed
) -> list[Diagnostic]:
    """Columns that a query asks for and that these inputs do not say anything of."""
    names = [
        node
        for where in masks
        if where is not None
        for node in walk(where)
        if isinstance(node, ast.Name)
    ]
    if not feed.tokens:
        unknown = [node for node in names if node.id in (*_OF_SPECIAL, "token", "prev", "next")]
        what = "these inputs are not token ids"
        advice, notes = None, ("there are position, length, sample and random()",)
        return [_unknown(query, node, what, advice, notes) for node in unknown]
    if not getattr(feed, "knows_special", True):
        what = "nothing says which of these ids the tokenizer added"
        advice = "give `tokenizer=`, or a `special_tokens_mask` among the inputs"
        unknown = [node for node in names if node.id in _OF_SPECIAL]
        return [_unknown(query, node, what, advice, ()) for node in unknown]
    return []


def _unknown(
    query: Query, node: ast.Name, what: str, advice: str | None, notes: tuple[str, ...]
) -> Diagnostic:
    message = f"there is no `{node.id}` here: {what}"
    return Diagnostic("no-tokens", message, node.span, query.source, advice, notes)


_OF_SPECIAL = ("special", "content_position")


def _targets(query: Query, spec: CaptureSpec, model: Model) -> tuple[Target, ...]:
    matches = match_sites(model.module, spec.sites, spec.excepts, query.source)
    sites = {HookPoint.of(match.module, match.site): match.site for match in reversed(matches)}
    return tuple(_target(point, site) for point, site in reversed(sites.items()))


def _target(point: HookPoint, site: ast.Site) -> Target:
    """Ports other than the output are part of the role: they are other numbers."""
    layer, role = layer_and_role(point.module)
    role = role or "model"
    return Target(point, layer, role if point.port == "output" else f"{role}:{point.port}", site)


def _without_problems(
    query: Query, captures: Sequence[PlannedCapture], learnt: Probe
) -> tuple[list[PlannedCapture], list[Diagnostic]]:
    """The captures less what cannot be captured, where only a wildcard asked for it, with warnings.

    A module that the query names and that cannot be captured is an error; so is a site of which
    nothing is left.
    """
    errors: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    left = []
    for capture in captures:
        usable = tuple(t for t in capture.targets if t.point in learnt.seen)
        failed = [t for t in capture.targets if t.point not in learnt.seen]
        sites = {t.site for t in usable}
        wrong = [t for t in failed if not _wildcard(t.site) or t.site not in sites]
        errors += _together(query, wrong, learnt)
        if failed and not wrong:
            reasons = {learnt.problems[t.point].code for t in failed}
            warnings.append(
                Diagnostic(
                    "modules-left-out",
                    f"{len(failed)} of the modules that `{capture.name}` matches cannot be "
                    f"captured and {'are' if len(failed) > 1 else 'is'} left out "
                    f"({', '.join(sorted(reasons))})",
                    span=failed[0].site.span,
                    source=query.source,
                    notes=(listing(folded([_said(target.point) for target in failed])),),
                    severity="warning",
                )
            )
        left.append(evolve(capture, targets=usable, left_out=tuple(str(t.point) for t in failed)))
    if errors:
        raise QueryError(errors)
    return left, warnings


def _together(query: Query, targets: Sequence[Target], learnt: Probe) -> list[Diagnostic]:
    """What is wrong with targets: once where it is the same of several modules of a site."""
    groups: dict[tuple[ast.Site, tuple[str, ...]], list[HookPoint]] = {}
    for target in targets:
        why = reason(learnt.problems[target.point])
        groups.setdefault((target.site, why), []).append(target.point)
    return [
        evolve(
            as_one_problem([learnt.problems[p] for p in points], [_said(p) for p in points]),
            span=site.span,
            source=query.source,
        )
        for (site, _), points in groups.items()
    ]


def _said(point: HookPoint) -> str:
    """A hook point as a query writes it, where the output goes without saying."""
    return str(point).removesuffix(":output")


def _wildcard(site: ast.Site) -> bool:
    """Whether a site takes what there is, rather than naming its modules."""
    if not isinstance(site, ast.PathSite):
        return False
    last = site.path.steps[-1]
    globbed = isinstance(last, ast.GlobStep) and any("*" in a for a in last.alternatives)
    return site.isa is not None or isinstance(last, ast.AnyDepth) or globbed


def _stop(learnt: Probe) -> int:
    """The last event that some hook point needs: the module's last call, its input or output."""
    places: Mapping[tuple[str, str], list[int]] = {
        (point.side, point.module): [] for point in learnt.seen
    }
    for number, (kind, module) in enumerate(learnt.events):
        if (kind, module) in places:
            places[kind, module].append(number)
    return max(numbers[-1] for numbers in places.values())


def _check_pools(query: Query, captures: Sequence[PlannedCapture], learnt: Probe) -> None:
    """Every pooled dimension must be one that every site of the capture has."""
    problems = []
    for capture in captures:
        for dimension in sorted(capture.spec.pool):
            for target in capture.targets:
                axes = learnt.seen[target.point].layout.axes
                there = ("layer", *axes) if target.layer is not None else axes
                if dimension not in there:
                    problems.append(
                        Diagnostic(
                            "no-such-dimension",
                            f"`{_said(target.point)}` has no dimension `{dimension}` to pool",
                            span=capture.spec.pool_spans[dimension],
                            source=query.source,
                            notes=(f"its dimensions: {listing(there) or 'none'}",),
                        )
                    )
                    break
    if problems:
        raise QueryError(problems)
