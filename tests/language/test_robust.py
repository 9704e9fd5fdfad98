"""No text, however broken, raises anything but `QueryError`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.errors import QueryError
from hookql.language.formatter import format_text
from hookql.language.parser import LONGEST, parse
from hookql.language.resolve import resolve
from tests.language.forms import QUERIES

WORDS = """
let capture from where by pool during as into except isa and or not in within ** == != <= >=
x token position row.a 3 1e999 3x 0.5 "a" /a/ h[0] @attn WHERE NOT
"""
PIECES = [*WORDS.split(), *"()[]{}.,:;=<>~!&|/*+-@#\"'\\\n\r\t \ufeff\u200b“”$^%\x00\ud800é９"]


def survives(text):
    """Parse, resolve and format a text; what goes wrong must be a `QueryError` that renders."""
    try:
        program = parse(text)
    except QueryError as error:
        assert_well_formed(error, text)
        return
    assert format_text(text)
    try:
        resolve(program)
    except QueryError as error:
        assert_well_formed(error, text)


def assert_well_formed(error, text):
    """Every diagnostic has a code and a message and points into the text, in order."""
    starts = []
    for diagnostic in error.diagnostics:
        assert diagnostic.code
        assert diagnostic.message == diagnostic.message.strip()
        assert diagnostic.code in diagnostic.render()
        if diagnostic.span is not None:
            assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text)
            starts.append(diagnostic.span.start)
    assert sorted(starts) == starts
    assert len(set(starts)) > 0 or error.code == "empty-query"


@settings(max_examples=800, deadline=None, derandomize=True)
@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join))
def test_any_text(text):
    """Random characters and random words."""
    survives(text)


@pytest.mark.parametrize("seed", range(6))
def test_mutated_queries(seed):
    """Valid queries with pieces cut out, doubled, swapped and put in."""
    rng = random.Random(seed)
    for _ in range(400):
        text = rng.choice(QUERIES)[: rng.choice([120, 400])]
        for _ in range(rng.randint(1, 4)):
            a, b = sorted(rng.choices(range(len(text) + 1), k=2))
            b = min(b, a + 12)
            put = rng.choice(["", "", text[a:b] * 2, rng.choice(PIECES), text[b:a:-1]])
            text = text[:a] + put + text[b:]
        survives(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "capture mean from h where " + "(" * 5_000 + "x" + ")" * 5_000,
        "capture mean from h where " + "not " * 5_000 + "x",
        "capture mean from h where " + "-" * 5_000 + "x",
        "capture mean from h where x " + "+ 1 " * 5_000,
        "capture mean from h where x" + " ** 2" * 5_000,
        "capture mean from h where x" + "[0]" * 5_000,
        "capture mean from h" + "[0]" * 5_000,
        "capture mean from h" + ".a" * 5_000,
        "capture mean from {" + "a," * 5_000 + "a}",
        "capture mean from " + "{a,b}" * 5_000,
        "capture mean from h where token in {" + "1, " * 5_000 + "1}",
        "capture " + "mean, " * 5_000 + "std from h",
        "capture mean from h where x == " + "9" * 100_000,
        "capture mean from h[" + "9" * 100_000 + "]",
        "from " * 5_000,
        "capture mean from h where " * 2_000,
        "let a = special; " * 2_000,
        '"' * 5_000,
        "/" * 5_000,
        "capture mean from h where token ~ /" + "(" * 5_000 + "/",
        "#" * 200_000,
        "x" * (LONGEST + 1),
        "let a0 = special or special;"
        + "".join(f"let a{n + 1} = a{n} or not a{n};" for n in range(60))
        + "capture mean from h where a60",
        "".join(f"let a{n} = not a{n + 1};" for n in range(2_000)),
        "".join(f"let a{n} = a{n + 1};" for n in range(2_000)) + "let a2000 = a0",
    ],
    ids=lambda text: f"{text[:30]!r}…{len(text)}",
)
def test_huge_queries(text):
    """Length and depth run into limits of ours, never into Python's."""
    survives(text)


def test_a_long_query_is_fine():
    """A set of many thousands is no depth, and `and` takes any number of operands."""
    many = ", ".join(map(str, range(5_000)))
    both = " and ".join(["special"] * 2_000)
    query = resolve(parse(f"capture mean from h where token in {{{many}}} and {both}"))
    assert len(query.captures[0].where.operands) == 2_001
