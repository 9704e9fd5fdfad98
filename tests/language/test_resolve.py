"""What a right query means."""

from __future__ import annotations

import pytest

from hookql.errors import QueryError
from hookql.language.formatter import format_expression
from hookql.language.names import CANONICAL
from hookql.language.parser import parse
from hookql.language.query import capture_names
from hookql.language.resolve import resolve
from tests.language.forms import QUERIES

FINE = """special
row.flag or row.n > 3 or row.date < "2024" or row.a == row.b or row.x == none
true and not false and special == true
token in {"a", " a", 3, eos, none} and prev == token and token != row.id
0 <= position < -1 and position == last - 1 and -3 <= content_position <= last
position in {0, -1, last} and position / length < 0.5 and sample != 3
prev ~ /a/ or row.text ~ /(?i)b/
random(0.5) and random(rate=0.1, seed=3)
0 < row.a + 1 <= 3
within "New York" or not within /(?i)paris/
chunk == 0 and offset + position < 100 and 0 < surprisal <= 5 and loss / prob > 1 and rank == 0
surprisal == none or entropy != none
norm(x) > 100 and x[3] < -1 and argmax(lens(x)) == next and not isnan(x[0]) and cos(x, x) > 0.5
phase == "generated" or phase in {"prompt"} or step >= 3 and step == none and phase != none
role == "user" or role not in {"system", "narrator"} and role == none or role ~ /(?i)^as/
dot(input, output) > norm(x, 1) ** 2 or abs(position - 3) > 2 or x[head=1][0] > row.threshold"""

VALUES = """x > 0
2 * x[[0, -1]] ** 2 / norm(x) - position
not isfinite(x)
x > 0 and token == "Paris" or within "a" and position == last
argmax(lens(x)) == next
argmax(x) in {next, prev, 3}
kl(softmax(input), softmax(output))
clip(x, -1, 1) + entropy(softmax(x)) * entropy
sqrt(surprisal) + sqrt(2)
row.w * x
surprisal
x == token
x * (role == "user")
step
phase == "generated" and step < 3
prev == none and x == x[0]"""


@pytest.mark.parametrize("where", FINE.splitlines())
def test_predicates_that_are_fine(where):
    """These pass without an error or a warning, and unchanged."""
    query = resolve(parse(f"capture mean from h where {where}"))
    assert ((), where) == (query.warnings, format_expression(query.captures[0].where))


@pytest.mark.parametrize("value", VALUES.splitlines())
def test_values_that_are_fine(value):
    """What a statistic can be of: no error, no warning, and handed on unchanged."""
    query = resolve(parse(f"capture mean({value}) as m from h"))
    assert query.warnings == ()
    assert format_expression(query.captures[0].statistics[0].value) == value


def test_literals_by_place():
    """Named literals of functions are put in their places, in values and in predicates."""
    text = "capture mean(clip(norm(x, p=3), hi=2, lo=1)) from h where norm(x, p=1) > 1"
    (capture,) = resolve(parse(text)).captures
    assert format_expression(capture.statistics[0].value) == "clip(norm(x, 3), 1, 2)"
    assert format_expression(capture.where) == "norm(x, 1) > 1"


NAMES = {
    "mean": "mean",
    "mean()": "mean",
    "mean(x)": "mean",
    "mean(x > 0)": "mean_x_gt_0",
    "mean(not isfinite(x))": "mean_not_isfinite_x",
    "max(-x[0:3])": "max_minus_x_0_to_3",
    "max(x[head=3][[5, 99]])": "max_x_head_3_5_99",
    "mean(cos(input, output) ** 2 / 0.5)": "mean_cos_input_output_power_2_over_0_5",
    'mean(token == " Paris!" and x <= -1e-7)': "mean_token_eq_Paris_and_x_le_minus_1e_minus_07",
    "mean(v)": "mean_v",
    "mean(row.w)": "mean_row_w",
    "std(ddof=1)": "std_ddof_1",
    "std(x, 1)": "std_ddof_1",
    "std(abs(x), ddof=0.5)": "std_abs_x_ddof_0_5",
    "mean(x) as m": "m",
    "mean(größe)": "mean_größe",
    "mean(role == user)": "mean_role_eq_user",
}


@pytest.mark.parametrize("statistic", NAMES)
def test_names_of_variables(statistic):
    """The canonical text made an identifier, `x` alone left out, or what `as` says."""
    lets = "let v = norm(x); let größe = position; "
    query = resolve(parse(f"{lets} capture {statistic} from h where v > 1 and größe > 1"))
    assert [s.variable for s in query.captures[0].statistics] == [NAMES[statistic]]


def test_keys():
    """Keys and their dimensions; a row's column steps back where its name is taken."""
    lets = "let k = row.kind "
    by = 'position, row.label, row.position, row.mean, row."odd name", row."9", k, token'
    query = resolve(parse(f"{lets}capture mean from h by {by}"))
    assert [(format_expression(k.expression), k.name) for k in query.captures[0].by] == [
        ("position", "position"),
        ("row.label", "label"),
        ("row.position", "row_position"),
        ("row.mean", "row_mean"),
        ('row."odd name"', "odd_name"),
        ("row.9", "row_9"),
        ("row.kind", "kind"),
        ("token", "token"),
    ]


def test_keys_step_back():
    """No column's dimension is called like a part of the result, or like what a variable brings."""
    by = "row.token_text, row.bin_lo, row.module, row.a_sample, row.a_count, row.b_text, token"
    query = resolve(parse(f"capture top(norm(x)) as a from h by {by}"))
    assert [k.name for k in query.captures[0].by] == [
        "row_token_text",
        "row_bin_lo",
        "row_module",
        "row_a_sample",
        "row_a_count",
        "b_text",
        "token",
    ]


def test_sites_that_are_fine():
    """Every canonical site, ports where there are some, and both ports of whole modules."""
    once = ("embed", "final_norm", "unembed", "logits")
    sites = [f"@{name}" + ("" if name in once else "[0:2]") for name in CANONICAL]
    resolve(parse(f"capture mean from {', '.join(sites)}, @block[0]:input, h.attn:pattern"))
    text = "capture mean(dot(input, output)) from @block, @attn_out[*], @mlp_out[-1], h"
    assert len(resolve(parse(text)).captures[0].sites) == 4


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


def test_names_of_captures():
    """By the last name and the port of the first site, numbered where they meet."""
    sites = ["h[0].attn", "@block[*]", "@block[0]:input", "@z", "h.attn:pattern", "attn", "input"]
    query = resolve(parse(" ".join(f"capture mean from {site}" for site in sites)))
    assert capture_names(query) == [
        "attn",
        "block",
        "block_input",
        "z",
        "attn_pattern",
        "attn_2",
        "input",
    ]


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
    assert format_expression(capture.statistics[0].value) == "x"
    assert query.warnings == ()


def test_the_corpus_is_understood():
    """Queries that are right in syntax are right, but for what is meant as wrong."""
    said = []
    for query in QUERIES:
        try:
            resolve(parse(query))
        except QueryError as error:
            said += [(d.code, d.message) for d in error.diagnostics]
    assert said == [
        ("unknown-port", "`@q` is one tensor, which has no ports"),
        ("wrong-kind", "the id of a token is a whole number from 0"),
    ]


def test_errors_come_together_and_in_order():
    """Errors of several captures and lets, sorted by where they stand, once each."""
    text = "capture meen from h where a\nlet a = specal\ncapture mean from h where a by length"
    with pytest.raises(QueryError) as caught:
        resolve(parse(text))
    assert [d.code for d in caught.value.diagnostics] == [
        "unknown-statistic",
        "unknown-name",
        "unknown-key",
    ]
