"""What can be wrong with a query only for this model, and what is left out of it with a warning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import evolve

from hookql.errors import Diagnostic, QueryError, listing
from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.query import CaptureSpec, Query, StatisticSpec
from hookql.language.values import operands_in
from hookql.language.walk import walk
from hookql.models.feed import Feed
from hookql.models.names import as_one_problem, folded, reason
from hookql.models.paths import Match
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe

if TYPE_CHECKING:
    from hookql.expressions import Expression
    from hookql.plan import PlannedCapture, Target
    from hookql.statistics import Statistic

_OF_SPECIAL = ("special", "content_position", "offset")
_OF_TOKENS = ("token", "prev", "next", "role", "surprisal", "loss", "prob", "rank", "entropy")

Matched = tuple[CaptureSpec, str, Sequence[Match]]
Kept = tuple[CaptureSpec, str, Sequence[Match], tuple[str, ...]]


def no_such_columns(query: Query, feed: Feed) -> list[Diagnostic]:
    """Columns that a query asks for and that these inputs do not say anything of."""
    names = [node for node in _nodes(query) if isinstance(node, ast.Name)]
    if not feed.tokens:
        unknown = [node for node in names if node.id in (*_OF_SPECIAL, *_OF_TOKENS)]
        what = "these inputs are not token ids"
        advice, notes = None, ("there are position, length, sample and random()",)
        return [_unknown(query, node, what, advice, notes) for node in unknown]
    found: list[Diagnostic] = []
    live = getattr(feed, "live", False)
    if not getattr(feed, "knows_special", True):
        what = "nothing says which of these ids the tokenizer added"
        advice = "give `tokenizer=`, or a `special_tokens_mask` among the inputs"
        advice = "write `bind(model, tokenizer)`" if live else advice
        unknown = [node for node in names if node.id in _OF_SPECIAL]
        found += [_unknown(query, node, what, advice, ()) for node in unknown]
    if not getattr(feed, "knows_roles", False):
        message = "there is no `role` here: nothing says who speaks"
        help = "run messages as a chat, with `--chat` (in Python `chat=True`)"
        help = "a live plan sees ids alone: use `hookql.run(..., chat=True)`" if live else help
        roles = [node for node in names if node.id == "role"]
        found += [Diagnostic("no-roles", message, n.span, query.source, help) for n in roles]
    return _in_order(found)


def needs_generation(query: Query) -> list[Diagnostic]:
    """What a query asks of generated tokens though it generates none, for runs over data alone.

    Errors where it reads `step`, which no token would have; warnings where it asks for a `phase`,
    which is ``prompt`` at each. A live binding sees what its user generates, and needs neither.
    """
    if query.generation is not None:
        return []
    help = "write `during generate(max_new_tokens=32)`"
    found = []
    for node in _nodes(query):
        if node == ast.Name("step"):
            message = "`step` counts generated tokens, and this query generates none"
            found.append(Diagnostic("nothing-generated", message, node.span, query.source, help))
        elif node == ast.Name("phase"):
            message = "`phase` is `prompt` at every token: this query generates none"
            found.append(
                Diagnostic(
                    "nothing-generated",
                    message,
                    node.span,
                    query.source,
                    help,
                    severity="warning",
                )
            )
    return _in_order(found)


def _in_order(found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Each once, in the order of the query: a let that is used twice is one place."""
    return sorted(dict.fromkeys(found), key=lambda d: d.span.start if d.span else 0)


def _nodes(query: Query) -> Iterator[ast.Node]:
    """Every node that says what is kept, kept apart and worked out."""
    for spec in query.captures:
        for whole in (spec.where, *(key.expression for key in spec.by), *_values(spec)):
            if whole is not None:
                yield from walk(whole)


def _values(spec: CaptureSpec) -> list[ast.Expression]:
    return [statistic.value for statistic in spec.statistics]


def _unknown(
    query: Query, node: ast.Name, what: str, advice: str | None, notes: tuple[str, ...]
) -> Diagnostic:
    message = f"there is no `{node.id}` here: {what}"
    return Diagnostic("no-tokens", message, node.span, query.source, advice, notes)


def without_problems(
    query: Query, captures: Sequence[Matched], learnt: Probe
) -> tuple[list[Kept], list[Diagnostic]]:
    """The captures less what cannot be captured, where only a wildcard asked for it, with warnings.

    A module that the query names and that cannot be captured is an error; so is a site of which
    nothing is left.
    """
    errors: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    left: list[Kept] = []
    for spec, name, matches in captures:
        reads_input = any(
            "input" in operands_in(e)
            for e in (*_values(spec), *([spec.where] * bool(spec.where)))
            if e is not None
        )
        wrong_point = {m: _wrong_point(m, reads_input, learnt) for m in matches}
        usable = [m for m in matches if wrong_point[m] is None]
        failed = [m for m in matches if wrong_point[m] is not None]
        sites = {match.site for match in usable}
        wrong = [m for m in failed if not _wildcard(m.site) or m.site not in sites]
        named = [(m, p) for m in wrong if (p := wrong_point[m]) is not None]
        errors += _together(query, named, learnt)
        points = [p for m in failed if (p := wrong_point[m]) is not None]
        if failed and not wrong:
            warnings.append(_left_out(query, name, failed[0].site, points, learnt))
        left.append((spec, name, usable, tuple(map(str, points))))
    if errors:
        raise QueryError(errors)
    return left, warnings


def _wrong_point(match: Match, reads_input: bool, learnt: Probe) -> HookPoint | None:
    """The hook point of a match that cannot be read."""
    if match.point not in learnt.seen:
        return match.point
    beside = HookPoint(match.module, "input")
    if reads_input and match.whole and beside not in learnt.seen:
        return beside
    return None


def _left_out(
    query: Query, name: str, site: ast.Site, points: Sequence[HookPoint], learnt: Probe
) -> Diagnostic:
    reasons = {learnt.problems[point].code for point in points}
    return Diagnostic(
        "modules-left-out",
        f"{len(points)} of the modules that `{name}` matches cannot be "
        f"captured and {'are' if len(points) > 1 else 'is'} left out "
        f"({', '.join(sorted(reasons))})",
        span=site.span,
        source=query.source,
        notes=(listing(folded([said(point) for point in points])),),
        severity="warning",
    )


def _together(
    query: Query, wrong: Sequence[tuple[Match, HookPoint]], learnt: Probe
) -> list[Diagnostic]:
    """What is wrong with places: once where it is the same of several modules of a site."""
    groups: dict[tuple[ast.Site, tuple[str, ...]], list[HookPoint]] = {}
    for match, point in wrong:
        why = reason(learnt.problems[point])
        groups.setdefault((match.site, why), []).append(point)
    return [
        evolve(
            as_one_problem([learnt.problems[p] for p in points], [said(p) for p in points]),
            span=site.span,
            source=query.source,
        )
        for (site, _), points in groups.items()
    ]


def said(point: HookPoint) -> str:
    """A hook point as a query writes it, where the output goes without saying."""
    return str(point).removesuffix(":output")


def _wildcard(site: ast.Site) -> bool:
    """Whether a site takes what there is, rather than naming its modules."""
    if not isinstance(site, ast.PathSite):
        return False
    last = site.path.steps[-1]
    globbed = isinstance(last, ast.GlobStep) and any("*" in a for a in last.alternatives)
    return site.isa is not None or isinstance(last, ast.AnyDepth) or globbed


def unusable(
    asked: StatisticSpec,
    statistic: Statistic,
    expression: Expression,
    match: Match,
    query: Query,
) -> Diagnostic | None:
    """Why a statistic cannot be had of an expression; None where it can."""
    shown = format_expression(asked.value)
    axes = expression.axes
    if statistic.raw and None in axes.sizes:
        message = f"the rows of `{shown}` differ in length, as each query sees other keys"
        help = "choose keys, as in `values(x[key=0])`, or reduce them, as in `values(entropy(x))`"
        return Diagnostic("ragged-values", message, asked.span, query.source, help)
    if statistic.needs == "feature" and (not axes.names or axes.sizes[-1] is None):
        message = f"`{asked.name}` compares features, and `{shown}` has no axis of them"
        notes = (f"axes of `{shown}` at `{said(match.point)}`: {listing(axes.names) or 'none'}",)
        return Diagnostic("bad-axes", message, asked.span, query.source, None, notes)
    return None


def rows_differ(
    asked: StatisticSpec, conditions: Sequence[ast.Expression], query: Query
) -> Diagnostic:
    """The error for rows of values that would have holes: their expression is undefined there."""
    shown = format_expression(asked.value)
    message = f"`{shown}` is undefined at some tokens, and rows without it would be missing"
    where = " and ".join(format_expression(condition) for condition in conditions)
    help = f"keep those tokens alone at which it is defined: `where {where}`"
    return Diagnostic("rows-differ", message, asked.span, query.source, help)


def wrong_groups(
    query: Query, spec: CaptureSpec, targets: Sequence[Target], learnt: Probe
) -> list[Diagnostic]:
    """Sites that cannot share one `by`."""
    if not spec.by:
        return []
    span, found = spec.by[0].span, []
    if len({learnt.seen[target.point].layout.stream for target in targets}) > 1:
        message = "encoder and decoder sites have tokens of their own and cannot share one `by`"
        help = "write a capture for each"
        found.append(Diagnostic("two-streams", message, span, query.source, help))
    ragged = any(
        None in asked.expression.axes.sizes and asked.statistic.key != "count"
        for target in targets
        for asked in target.asked
    )
    if ragged and any(key.expression == ast.Name("sample") for key in spec.by):
        message = "the keys of an attention pattern cannot be kept apart by sample"
        help = "choose keys, as in `x[key=0]`, or reduce them, as in `entropy(x)`"
        found.append(Diagnostic("ragged-groups", message, span, query.source, help))
    return found


def no_such_pools(query: Query, captures: Sequence[PlannedCapture], learnt: Probe) -> None:
    """Raise QueryError where a pooled dimension is one that no statistic of some site has."""
    problems = []
    for capture in captures:
        for dimension in sorted(capture.spec.pool):
            for target in capture.targets:
                axes = {name for asked in target.asked for name in asked.axes}
                there = {*axes, *(["layer"] if target.layer is not None else [])}
                if dimension not in there:
                    problems.append(
                        Diagnostic(
                            "no-such-dimension",
                            f"`{said(target.point)}` has no dimension `{dimension}` to pool",
                            span=capture.spec.pool_spans[dimension],
                            source=query.source,
                            notes=(f"its dimensions: {listing(sorted(there)) or 'none'}",),
                        )
                    )
                    break
    if problems:
        raise QueryError(problems)
