"""Tree to text to tree, and formatting twice."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookql.language.formatter import format_expression, format_program, format_text
from hookql.language.parser import parse, tokens
from tests.language.forms import QUERIES
from tests.language.trees import expressions, programs

SLOW = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@SLOW
@given(programs)
def test_a_tree_survives_its_text(program):
    """What the formatter prints parses to the same tree, and prints the same again."""
    text = format_program(program)
    again = parse(text)
    assert program == again
    assert text == format_program(again)
    assert text == format_text(text)


@SLOW
@given(expressions)
def test_parentheses_are_minimal(expression):
    """Without any one pair of its parentheses, an expression means something else."""
    text = format_expression(expression)
    let = f"let a = {text}"
    lexemes = list(tokens(let))
    opened = []
    for place, lexeme in enumerate(lexemes):
        if lexeme.kind == "_LPAR":
            # A call's parentheses are no grouping.
            call = lexemes[place - 1].kind == "NAME"
            opened.append(None if call else lexeme.start)
        elif lexeme.kind == "_RPAR":
            start = opened.pop()
            if start is None:
                continue
            without = let[:start] + " " + let[start + 1 : lexeme.start] + " " + let[lexeme.end :]
            try:
                other = parse(without).statements[0].value
            except Exception:
                continue
            assert expression != other, without


@pytest.mark.parametrize("query", QUERIES)
def test_formatting_keeps_the_tree_and_settles(query):
    """A corpus query keeps its meaning, and its canonical form is its own canonical form."""
    text = format_text(query)
    assert parse(query) == parse(text)
    assert text == format_text(text)


@st.composite
def commented(draw):
    """A corpus query with comments between some of its tokens."""
    query = draw(st.sampled_from(QUERIES))
    comments = ["# one", "#two", "   # three", "\n# four", "\n\n  # five", "\r\n# six\r\n\r\n"]
    pieces, end = [], 0
    for lexeme in tokens(query):
        # A dot and a port touch what follows, and a path that begins with a keyword its dot.
        loose = not pieces or pieces[-1] not in (".", ":")
        loose = loose and query[lexeme.start] not in ".:["
        pieces.append(query[end : lexeme.start])
        if loose and draw(st.integers(0, 4)) == 0:
            pieces.append(
                draw(st.sampled_from(comments)) + draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
            )
        pieces.append(query[lexeme.start : lexeme.end])
        end = lexeme.end
    return "".join(pieces) + query[end:] + draw(st.sampled_from(["", "\n# end", "# end"]))


@SLOW
@given(commented())
def test_no_comment_is_lost(text):
    """Wherever comments stand, all of them are there afterwards, and formatting settles."""
    formatted = format_text(text)
    assert comments_of(text) == comments_of(formatted)
    assert parse(text) == parse(formatted)
    assert formatted == format_text(formatted)


def comments_of(text):
    """The comments of a text, sorted, read off between its tokens."""
    gaps, end = [], 0
    for lexeme in tokens(text):
        gaps.append(text[end : lexeme.start])
        end = lexeme.end
    gaps.append(text[end:])
    return sorted(c.rstrip() for gap in gaps for c in re.findall(r"#[^\r\n]*", gap))
