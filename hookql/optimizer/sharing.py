"""Sharing: queries over the same model and data run in one pass, where that is no more work.

The queries' captures make one query, whose plan has every hook point, mask, expression and
accumulator once. Its pass runs what the deepest of them needs, for the tokens of all: a query that
needs few tokens and much of the model is left by itself, where company would make it dearer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from attrs import evolve, frozen

from hookql.binding_errors import needs_generation
from hookql.data.batches import Batch
from hookql.errors import Source
from hookql.language.query import Query
from hookql.plan import Plan

Ints = npt.NDArray[np.int64]
Batches = Callable[[], Iterable[Batch]]


@frozen
class Passes:
    """Which queries run together, by name; ``why`` says of each that runs alone what is so."""

    groups: tuple[tuple[str, ...], ...]
    why: Mapping[str, str]

    def of(self, name: str) -> tuple[str, ...]:
        """The queries of the pass that a query runs in, itself among them."""
        return next(group for group in self.groups if name in group)


def saves(passes: Passes) -> str | None:
    """How many passes over the data there are, and would be."""
    queries = sum(map(len, passes.groups))
    if len(passes.groups) == queries:
        return None
    return f"{_passes(len(passes.groups))} over the data instead of {queries}"


def described(passes: Passes, plans: Mapping[str, Plan]) -> list[str]:
    """Lines for `explain`: the passes, and why a query has one to itself."""
    lines = []
    for group in passes.groups:
        if len(group) > 1:
            shares = [1.0 if (p := plans[n]).query.generation else p.share for n in group]
            through = f"in one pass over the data, through {max(shares):.0%} of the model"
            lines.append(f"together   {', '.join(group)}: {through}")
        else:
            lines.append(f"alone      {group[0]}: {passes.why[group[0]]}")
    return [*lines, *([f"saves      {saved}"] if (saved := saves(passes)) else [])]


def _passes(number: int) -> str:
    return f"{number} pass" + ("es" if number > 1 else "")


# --- which go together ----------------------------------------------------------------------------


def together(plans: Mapping[str, Plan], batches: Batches | None) -> Passes:
    """The passes for queries over the same data; ``batches`` give a beginning of it to look at.

    None: it can be read only once, so that one pass has to do for all that can share it.
    """
    why: dict[str, str] = {}
    alike: dict[object, list[str]] = {}
    for name, plan in plans.items():
        if (reason := _apart(plan)) is None:
            alike.setdefault(_generation(plan.query), []).append(name)
        else:
            why[name] = reason
    found: list[tuple[str, ...]] = [(name,) for name in why]
    for names in alike.values():
        found += _cheapest({name: plans[name] for name in names}, batches)
    for group in found:
        if len(group) == 1:
            why.setdefault(group[0], _alone(plans, group[0], alike))
    order = list(plans)
    return Passes(tuple(sorted(found, key=lambda group: order.index(group[0]))), why)


def _alone(plans: Mapping[str, Plan], name: str, alike: Mapping[object, list[str]]) -> str:
    if len(plans) == 1:
        return "no other query is over the same data"
    generation = _generation(plans[name].query)
    if len(alike[generation]) > 1:
        return "with another in one pass, more of the model would run than for each by itself"
    if generation is None:
        return "no other query looks at plain passes over the same data"
    return "no other query has the model generate with the same arguments"


def _generation(query: Query) -> object:
    """What has to be equal for the model to be called in the same way."""
    during = query.generation
    return None if during is None else tuple(sorted(during.arguments.items()))


def _apart(plan: Plan) -> str | None:
    """Why a query's numbers might not be those that it has alone; None where they are."""
    for capture in plan.captures:
        for target in capture.targets:
            for asked in target.asked:
                if None in asked.expression.axes.sizes and asked.selector != target.selector:
                    return "it reads single keys of a pattern beside all of them"
    return None


def _cheapest(plans: Mapping[str, Plan], batches: Batches | None) -> list[tuple[str, ...]]:
    """Groups of queries that cost least: the deepest query first, each to the best company."""
    if batches is None or any(plan.query.generation is not None for plan in plans.values()):
        return [tuple(plans)]
    needs = _needs(plans, batches)
    groups: list[list[str]] = []

    def cost(names: Sequence[str]) -> float:
        tokens = np.maximum.reduce([needs[name] for name in names]).sum()
        return float(tokens) * max(plans[name].share for name in names)

    for name in sorted(plans, key=lambda name: -plans[name].share):
        own = cost([name])
        saved = [cost(group) + own - cost([*group, name]) for group in groups]
        best = max(range(len(groups)), key=saved.__getitem__, default=None)
        if best is not None and saved[best] >= -1e-9 * own:
            groups[best].append(name)
        else:
            groups.append([name])
    order = list(plans)
    return [tuple(sorted(group, key=order.index)) for group in groups]


def _needs(plans: Mapping[str, Plan], batches: Batches) -> dict[str, Ints]:
    """How many tokens of each context each query needs, of some contexts, int64 (contexts,).

    Nothing is read where it makes no difference: what needs all tokens, or is equally deep, may
    have any company.
    """
    shares = {plan.share for plan in plans.values()}
    if len(shares) == 1 or not any(map(_chooses, plans.values())):
        return {name: np.ones(1, np.int64) for name in plans}
    found: dict[str, list[Ints]] = {name: [] for name in plans}
    for batch in batches():
        for name, plan in plans.items():
            found[name].append(_needed(plan, batch))
    none = np.zeros(0, np.int64)
    return {name: np.concatenate([none, *parts]) for name, parts in found.items()}


def _chooses(plan: Plan) -> bool:
    """Whether a query may need only some of the samples, or only their beginnings."""
    numbers = range(len(plan.selectors))
    return not any(plan.predicates[n] is None or plan.own(n) or plan.signals(n) for n in numbers)


def _needed(plan: Plan, batch: Batch) -> Ints:
    """The tokens that a query needs of each context of a batch: up to the last that it keeps."""
    length = batch.length
    if not _chooses(plan):
        return length
    needed = np.zeros(len(length), np.int64)
    position = np.arange(1, batch.mask.shape[1] + 1)
    for selector, predicate in zip(plan.selectors, plan.predicates, strict=True):
        if selector.stream == "target" or predicate is None:
            return length
        needed = np.maximum(needed, (predicate(batch)[0] * position).max(axis=1, initial=0))
    # Only where later tokens change nothing of earlier ones may a sample be cut.
    return needed if plan.probe.causal else np.where(needed > 0, length, 0)


# --- one plan for several, and what of it is whose ------------------------------------------------


def merged(queries: Iterable[Query]) -> Query:
    """One query with the captures of all."""
    queries = list(queries)
    text = "\n".join(query.canonical for query in queries)
    captures = tuple(capture for query in queries for capture in query.captures)
    return Query(Source(text, "several queries"), captures, text, ())


def part(whole: Plan, alone: Plan) -> Plan:
    """The plan of one query within the merged plan of several; ``alone`` is it by itself.

    It has the merged plan's selectors by their numbers, and its own captures, names and warnings.
    """
    planned = {id(capture.spec): capture for capture in whole.captures}
    captures = [evolve(planned[id(each.spec)], name=each.name) for each in alone.captures]
    generates = alone.query.generation is not None
    return evolve(
        whole,
        query=alone.query,
        captures=tuple(captures),
        logits=alone.logits,
        stop=whole.stop if generates else alone.stop,
        share=whole.share if generates else alone.share,
        warnings=(*alone.warnings, *needs_generation(alone.query)),
    )
