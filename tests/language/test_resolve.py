"""What a right query means."""

from __future__ import annotations

import pytest

from hookql.errors import QueryError
from hookql.language.formatter import format_expression
from hookql.language.parser import parse
from hookql.language.resolve import resolve

FINE = """special
row.flag or row.n > 3 or row.date < "2024" or row.a == row.b or row.x == none
true and not false and special == true
token in {"a", " a", 3, eos, none} and prev == token and token != row.id
0 <= position < -1 and position == last - 1 and -3 <= content_position <= last
position in {0, -1, last} and position / length < 0.5 and sample != 3
prev ~ /a/ or row.text ~ /(?i)b/
random(0.5) and random(rate=0.1, seed=3)
0 < row.a + 1 <= 3"""


@pytest.mark.parametrize("where", FINE.splitlines())
def test_predicates_that_are_fine(where):
    """These pass without an error or a warning, and unchanged."""
    query = resolve(parse(f"capture mean from h where {where}"))
    assert ((), where) == (query.warnings, format_expression(query.captures[0].where))


def test_statistics():
    """Parameters are complete; variables are named by statistic, parameters or `as`."""
    query = resolve(parse("capture mean(), var, var(1), std(x, ddof=2) as s, count from h"))
    assert [(s.name, dict(s.parameters), s.variable) for s in query.captures[0].statistics] == [
        ("mean", {}, "mean"),
        ("var", {"ddof": 0}, "var"),
        ("var", {"ddof": 1}, "var_ddof_1"),
        ("std", {"ddof": 2}, "s"),
        ("count", {}, "count"),
    ]


def test_captures():
    """A capture's clauses, and the canonical texts."""
    text = 'capture mean from h, output except lm_head into "out/a.nc" as a pool head, layer'
    query = resolve(parse(text))
    (capture,) = query.captures
    assert ("a", "out/a.nc", {"head", "layer"}) == (capture.name, capture.into, capture.pool)
    assert (len(capture.sites), len(capture.excepts), capture.where) == (2, 1, None)
    canonical = (
        "capture mean\n  from h, output except lm_head\n  pool head, layer\n"
        '  as a\n  into "out/a.nc"'
    )
    assert (canonical, canonical + "\n") == (capture.text, query.canonical)


def test_lets_are_replaced():
    """Names are replaced in any order, and `and` in `and` is one."""
    query = resolve(
        parse(
            "capture mean(v), std(ddof=n) from h where c and b "
            "let c = special and b let b = position < n let n = 3 let v = x"
        )
    )
    (capture,) = query.captures
    assert format_expression(capture.where) == "special and position < 3 and position < 3"
    assert capture.statistics[1].parameters == {"ddof": 3}
    assert query.warnings == ()


def test_errors_come_together_and_in_order():
    """Errors of several captures and lets, sorted by where they stand, once each."""
    text = "capture meen from h where a\nlet a = specal\ncapture mean from h where a by token"
    with pytest.raises(QueryError) as caught:
        resolve(parse(text))
    assert [d.code for d in caught.value.diagnostics] == [
        "unknown-statistic",
        "unknown-name",
        "not-yet",
    ]
