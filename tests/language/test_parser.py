"""The syntax tree of every form of the language."""

from __future__ import annotations

import pytest

from hookql.errors import QueryError, Span
from hookql.language import ast
from hookql.language.ast import (
    AnyDepth,
    Argument,
    Binary,
    Call,
    CanonicalSite,
    Capture,
    Compare,
    GlobStep,
    IndexStep,
    Let,
    Membership,
    ModelSite,
    Name,
    NameStep,
    Number,
    Path,
    PathSite,
    Port,
    Row,
    Slice,
    Statistic,
    String,
    Subscript,
    Unary,
)
from hookql.language.formatter import format_program
from hookql.language.parser import parse
from tests.language.forms import QUERIES

H = NameStep("h")


def one(text):
    """The only statement of a query."""
    (statement,) = parse(text).statements
    return statement


SITES = {
    "h.0.attn": PathSite(Path((H, NameStep("0"), NameStep("attn")))),
    "h[0:6]": PathSite(Path((H, IndexStep((Slice(0, 6),))))),
    "h[-1]": PathSite(Path((H, IndexStep((-1,))))),
    "h[::2]": PathSite(Path((H, IndexStep((Slice(None, None, 2),))))),
    "h[0,3,5]": PathSite(Path((H, IndexStep((0, 3, 5))))),
    "h[*]": PathSite(Path((H, IndexStep((Slice(),))))),
    "h[:]": PathSite(Path((H, IndexStep((Slice(),))))),
    "h[*].{attn,mlp}": PathSite(Path((H, IndexStep((Slice(),)), GlobStep(("attn", "mlp"))))),
    "{q,k}_proj": PathSite(Path((GlobStep(("q_proj", "k_proj")),))),
    "*_proj": PathSite(Path((GlobStep(("*_proj",)),))),
    "**": PathSite(Path((AnyDepth(),))),
    "**.attn": PathSite(Path((AnyDepth(), NameStep("attn")))),
    "** isa Linear": PathSite(Path((AnyDepth(),)), "Linear"),
    "** isa linear:input": PathSite(Path((AnyDepth(),)), "linear", Port("input")),
    "h:output[1]": PathSite(Path((H,)), None, Port("output", 1)),
    "h:input.mask": PathSite(Path((H,)), None, Port("input", "mask")),
    "@attn[0:6]": CanonicalSite("attn", IndexStep((Slice(0, 6),))),
    "@embed:input": CanonicalSite("embed", None, Port("input")),
    "input": ModelSite("input"),
    "output": ModelSite("output"),
    '"output"': PathSite(Path((NameStep("output"),))),
    "output.dense": PathSite(Path((NameStep("output"), NameStep("dense")))),
    '"h.0"."odd name"': PathSite(Path((H, NameStep("0"), NameStep("odd name")))),
    "from.where": PathSite(Path((NameStep("from"), NameStep("where")))),
    '"where"': PathSite(Path((NameStep("where"),))),
}

X = Name("x")
EXPRESSIONS = {
    "3": Number(3),
    ".5": Number(0.5),
    "1e3": Number(1000.0),
    r'"a\"\\\n\x41\u20ac"': String('a"\\\nA€'),
    "row.label": Row("label"),
    'row."odd name"': Row("odd name"),
    "-x ** 2": Unary("-", Binary("**", X, Number(2))),
    "x ** -x ** 2": Binary("**", X, Unary("-", Binary("**", X, Number(2)))),
    "x - x - x": Binary("-", Binary("-", X, X), X),
    "x - x * x": Binary("-", X, Binary("*", X, X)),
    "0 < x <= 5": Compare(("<", "<="), (Number(0), X, Number(5))),
    'x in {1, "a"}': Membership(X, (Number(1), String("a"))),
    "x not in {1}": Membership(X, (Number(1),), True),
    "not x in {1}": ast.Not(Membership(X, (Number(1),))),
    r"x ~ /a\/\d/": ast.Match(X, ast.Regex(r"a/\d")),
    'within "New York"': ast.Within(String("New York")),
    "within /a b/": ast.Within(ast.Regex("a b")),
    "not x and x or x": ast.Or((ast.And((ast.Not(X), X)), X)),
    "x and (x and x)": ast.And((X, X, X)),
    "x and (x or x)": ast.And((X, ast.Or((X, X)))),
    "norm(x, 1)": Call("norm", (Argument(X), Argument(Number(1)))),
    "random(0.1, seed=0)": Call("random", (Argument(Number(0.1)), Argument(Number(0), "seed"))),
    "x[3]": Subscript(X, 3),
    "x[1:-1]": Subscript(X, Slice(1, -1)),
    "x[[5, 99]]": Subscript(X, (5, 99)),
    "x[head=3]": Subscript(X, 3, "head"),
    "asx": Name("asx"),
}

CLAUSES = {
    "where x": {"where": X},
    "by position, row.a": {"by": (Name("position"), Row("a"))},
    "pool feature, head": {"pool": (Name("feature"), Name("head"))},
    "during prompt": {"during": ast.During("prompt")},
    "during generate(n=3)": {"during": ast.During("generate", (Argument(Number(3), "n"),))},
    "as neurons": {"alias": Name("neurons")},
    'into "a.nc"': {"into": String("a.nc")},
    "except lm_head, ** isa Norm": {
        "excepts": (PathSite(Path((NameStep("lm_head"),))), PathSite(Path((AnyDepth(),)), "Norm"))
    },
    'into "a.nc" as b where x': {"where": X, "alias": Name("b"), "into": String("a.nc")},
}

STATISTICS = {
    "mean": Statistic("mean"),
    "mean()": Statistic("mean", ()),
    "mean as m": Statistic("mean", None, "m"),
    "top(x, k=10) as t": Statistic("top", (Argument(X), Argument(Number(10), "k")), "t"),
}


@pytest.mark.parametrize("text", SITES)
def test_sites(text):
    """Every form of a site."""
    assert SITES[text] == one(f"capture mean from {text}").sites[0]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text):
    """Every form of an expression."""
    assert Let("a", EXPRESSIONS[text]) == one(f"let a = {text}")


@pytest.mark.parametrize("text", CLAUSES)
def test_clauses(text):
    """Every clause, and clauses in any order."""
    expected = Capture((Statistic("mean"),), (PathSite(Path((H,))),), **CLAUSES[text])
    assert expected == one(f"capture mean from h {text}")


@pytest.mark.parametrize("text", STATISTICS)
def test_statistics(text):
    """Statistics with and without arguments and names."""
    assert STATISTICS[text] == one(f"capture {text} from h").statistics[0]


def test_spans_cover_what_they_name():
    """Each node knows exactly where it stands."""
    text = "capture mean(x) as m from  h[0:6].attn:input where (position) > 1 # end"
    capture = one(text)
    spans = {
        "mean(x) as m": capture.statistics[0],
        "h[0:6].attn:input": capture.sites[0],
        "h[0:6].attn": capture.sites[0].path,
        "[0:6]": capture.sites[0].path.steps[1],
        ":input": capture.sites[0].port,
        "(position) > 1": capture.where,
        "position": capture.where.operands[0],
        text[:-6]: capture,
    }
    assert list(spans) == [text[n.span.start : n.span.end] for n in spans.values()]


def test_statements_may_touch_and_semicolons_may_not_matter():
    """Statements need nothing between them."""
    text = "let a = x;; let b = a capture mean from h capture std from h;"
    assert [type(s).__name__ for s in parse(text).statements] == [
        "Let",
        "Let",
        "Capture",
        "Capture",
    ]


def test_the_corpus(golden):
    """The canonical text of every query of the corpus."""
    golden("language/corpus.txt", "# ---\n".join(format_program(parse(q)) for q in QUERIES))


def test_the_trees_of_the_corpus(golden):
    """The syntax tree of every query of the corpus, a statement a line."""
    lines = [f"{statement!r}\n" for q in QUERIES for statement in parse(q).statements]
    golden("language/trees.txt", "".join(lines))


def test_all_errors_at_once():
    """Every syntax error is reported together, in order, under the query's name."""
    with pytest.raises(QueryError) as caught:
        parse("captuer mean from h wher x = 1\ncapture from h where", "q.hq")
    assert [d.code for d in caught.value.diagnostics] == [
        "unknown-keyword",
        "unknown-keyword",
        "single-equals",
        "syntax",
        "syntax",
    ]
    assert Span(0, 7) == caught.value.span
    assert "--> q.hq:1:1" in str(caught.value)
