"""A maker of valid queries, by the grammar: statistics, expressions, predicates, groups, pools.

Each is of right kinds for its sites, and compares activations with numbers that lie in gaps of
what was observed, so that there is one right answer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from hypothesis import strategies as st

from tests.reference.maker import Draw, Maker
from tests.reference.models import CONTEXT, FAMILIES, Subject, subject
from tests.reference.places import PLACES, Where


@frozen
class Query:
    """A query's text and how it is run."""

    text: str
    family: str
    max_length: int
    overflow: str
    batch_size: int | None

    def subject(self) -> Subject:
        return subject(self.family, self.max_length, self.overflow)


@st.composite
def queries(
    draw: Draw,
    families: Sequence[str] = FAMILIES,
    captures: int = 4,
    maker: Callable[[Draw, Subject, Where], Maker] = Maker,
) -> Query:
    """A query of up to that many captures, the model that it is for, and how it is run."""
    family = draw(st.sampled_from(families))
    max_length, overflow = draw(
        st.sampled_from([(CONTEXT, "split"), (9, "split"), (12, "truncate")])
    )
    about = subject(family, max_length, overflow)
    texts = []
    for number in range(draw(st.integers(1, captures))):
        where = draw(st.sampled_from(PLACES[family]))
        texts.append(maker(draw, about, where).capture(f"c{number}"))
    if draw(st.booleans()):
        texts = _with_let(texts)
    batch_size = draw(st.sampled_from([None, 1, 2, 3, 7]))
    return Query("\n".join(texts), family, max_length, overflow, batch_size)


def _with_let(texts: list[str]) -> list[str]:
    """The first predicate that there is named by a `let`."""
    for number, text in enumerate(texts):
        lines = text.split("\n")
        for at, line in enumerate(lines):
            if line.startswith("  where "):
                predicate = line.removeprefix("  where ")
                lines[at] = "  where chosen"
                changed = [*texts[:number], "\n".join(lines), *texts[number + 1 :]]
                return [f"let chosen = {predicate}", *changed]
    return texts
