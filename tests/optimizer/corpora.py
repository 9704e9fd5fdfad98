"""Corpora that give the optimiser something to do, and queries for them, in float64."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import torch
from attrs import frozen
from hypothesis import strategies as st

from hookql.language import ast
from hookql.language.parser import parse
from hookql.optimizer.rules import RULES
from tests.reference.maker import Draw, Maker
from tests.reference.models import FAMILIES, ROWS, subject
from tests.reference.places import Where
from tests.reference.queries import Query, queries

HEADS = ("", "to be, ", "to be, or not ", "to be, or not to be: that is ")
"""Each begins like the one before: prefixes of prefixes."""

_BODIES = (*(row["text"] for row in ROWS), "b", "e", "the cat", "ab<eos>", "a <bos>a")
_DIVIDED_BY_SPREAD = ("skew", "kurtosis", "corr")
_RAW = ("resid_post[*]", "block[-1]", "embed")


class TokenMaker(Maker):
    """Makes predicates of tokens alone: only of those is known beforehand which rows they keep."""

    @property
    def causal(self) -> bool:
        return False

    def atom(self, values: bool) -> str:
        return super().atom(False)


@frozen
class Case:
    """A query, the samples it is run over, and how: with some of the rules."""

    query: Query
    rows: tuple[Mapping[str, Any], ...]
    rules: frozenset[str]
    tokens_per_batch: int | None
    window: int
    """How many contexts are gathered before they are cut into batches."""

    @property
    def optimize(self) -> str:
        """The rules as the option says them."""
        return ",".join(["none", *(f"+{rule}" for rule in RULES if rule in self.rules)])


@st.composite
def cases(draw: Draw) -> Case:
    """Any query over any corpus with any rules."""
    maker = draw(st.sampled_from([TokenMaker, TokenMaker, TokenMaker, Maker]))
    query: Query = draw(queries(FAMILIES, 3, maker))
    # Nothing hangs on a bit here but which bin a divergence of 0 falls into.
    text = query.text.replace("hist(kl(", "hist(0.777 + kl(")
    text = _with_spreads(text, draw(st.booleans()))
    if draw(st.booleans()):
        text += "\n" + draw(raw(query))
    query = Query(text, query.family, query.max_length, query.overflow, query.batch_size)
    rules = {rule for rule in RULES if draw(st.booleans())}
    tokens = draw(st.sampled_from([8, 20, 64, None]))
    window = draw(st.sampled_from([8192, 3, 10]))
    return Case(query, tuple(draw(corpora())), frozenset(rules), tokens, window)


@st.composite
def raw(draw: Draw, query: Query) -> str:
    """A capture of the rows themselves: it shows each with its place."""
    about = subject(query.family, query.max_length, query.overflow)
    names = [f"@{name}" for name in _RAW if name != "block[-1]" or query.family != "bert"]
    place = Where(draw(st.sampled_from(names)))
    predicate = TokenMaker(draw, about, place).predicate()
    return f"capture values(x)\n  from {place.text}\n  where {predicate}\n  as raw"


@st.composite
def corpora(draw: Draw) -> list[Mapping[str, Any]]:
    """Samples that begin alike, that are the same, that are empty or short; in any order."""
    body = st.one_of(st.sampled_from(_BODIES), st.text("abehotw ", max_size=7))
    one = st.tuples(
        st.sampled_from(HEADS), body, st.sampled_from(ROWS), st.sampled_from([1, 1, 1, 2, 5])
    )
    drawn = draw(st.lists(one, min_size=1, max_size=14))
    rows: list[Mapping[str, Any]] = []
    for head, text, row, times in drawn:
        rows += [{**row, "text": head + text}] * times
    return list(draw(st.permutations(rows)))


@functools.cache
def double(family: str) -> torch.nn.Module:
    """The family's model in float64, so that differences mean bugs."""
    return copy.deepcopy(subject(family).model).double()


def _with_spreads(text: str, all_of: bool) -> str:
    """Beside statistics the standard deviation of what they are of, which measures differences."""
    inserted: list[tuple[int, str]] = []
    for capture in parse(text).statements:
        if not isinstance(capture, ast.Capture):
            continue
        spreads = ""
        for number, statistic in enumerate(capture.statistics):
            if statistic.name == "count" or not (all_of or statistic.name in _DIVIDED_BY_SPREAD):
                continue
            of = "x"
            if statistic.arguments:
                value = statistic.arguments[0].value.span
                of = text[value.start : value.end]
            spreads += f", std({of}) as d{number}"
        inserted.append((text.index("\n  from", capture.span.start), spreads))
    for place, more in sorted(inserted, reverse=True):
        text = text[:place] + more + text[place:]
    return text
