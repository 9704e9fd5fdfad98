"""What expressions are made of."""

from __future__ import annotations

import pytest

from hookql.language.formatter import format_expression
from hookql.language.functions import FUNCTIONS
from hookql.language.parser import parse
from hookql.language.values import (
    is_constant,
    mentions_values,
    needs_text,
    operands_in,
    signals_in,
    token_leaves,
    value_leaves,
)


def read(text):
    """The tree of an expression."""
    return parse(f"let v = {text}").statements[0].value


def texts(expressions):
    """Expressions as canonical texts."""
    return [format_expression(expression) for expression in expressions]


TOKEN_LEAVES = {
    "x": [],
    "norm(x, 1) + 2 * 3 - sqrt(2)": [],
    "argmax(lens(x)) == next": ["next"],
    "x > 0 and position > 3": ["position > 3"],
    "x > 0 and position > 3 and special": ["position > 3", "special"],
    "surprisal": ["surprisal"],
    "exp(surprisal) * 2": ["exp(surprisal) * 2"],
    "x * row.w + row.w": ["row.w"],
    "0 < x < position - 1": ["position - 1"],
    "argmax(x) in {next, prev}": ["next", "prev"],
    "clip(x, 0, 1) * random(0.5)": ["random(0.5)"],
    'x > 0 or (token == "a" or within "b") and true': ['(token == "a" or within "b") and true'],
    "input - output == prev": ["prev"],
}


@pytest.mark.parametrize("text", TOKEN_LEAVES)
def test_token_leaves(text):
    """The largest parts without the site's values, in order, each once; no literals."""
    assert texts(token_leaves(read(text))) == TOKEN_LEAVES[text]


VALUE_LEAVES = {
    "special": [],
    "norm(x) > 100": ["norm(x)"],
    "norm(x) > 2 * x[3] and not isnan(x[3])": ["norm(x)", "x[3]", "isnan(x[3])"],
    "argmax(lens(x)) == next or prev == none": ["argmax(lens(x))"],
    "input > 0 and position < output[head=1][0]": ["input", "output[head=1][0]"],
    "cos(x + position, input) in {1, 2}": ["cos(x + position, input)"],
    "abs(position) > 1 and norm(x) + norm(x) > 1": ["norm(x)"],
}


@pytest.mark.parametrize("text", VALUE_LEAVES)
def test_value_leaves(text):
    """The largest names, calls and indices that read the site, in order, each once."""
    assert texts(value_leaves(read(text))) == VALUE_LEAVES[text]


def test_what_is_mentioned():
    """Operands, signals and texts; the function `entropy` is no signal."""
    node = read('entropy(softmax(input)) > loss and x > rank and within "a"')
    assert operands_in(node) == {"input", "x"}
    assert signals_in(node) == {"loss", "rank"}
    assert (mentions_values(node), needs_text(node)) == (True, True)
    plain = read("entropy > 1 and token == 3")
    assert signals_in(plain) == {"entropy"}
    assert (mentions_values(plain), needs_text(plain)) == (False, False)


def test_constants():
    """What is the same at every token."""
    constant = ["1", "-2 ** 3", "true", "sqrt(2) > 1"]
    differing = ["x", "position", "row.a", "random(0.5)", "last", 'within "a"']
    assert [text for text in constant + differing if is_constant(read(text))] == constant


def test_functions_are_those_that_are_computed():
    """The language's table of functions and that of the expressions say the same."""
    import hookql.expressions.compile  # noqa: F401
    from hookql.expressions.functions import FUNCTIONS as COMPUTED

    known = {name: f for name, f in FUNCTIONS.items() if name != "lens"}
    most = {n: f.values + len(f.literals) for n, f in known.items()}
    assert {n: (f.values, f.arity) for n, f in COMPUTED.items()} == {
        n: (f.values, (most[n] - f.optional, most[n])) for n, f in known.items()
    }
    # What `argmax` finds is computed as an id; here it is a number that ids may be compared with.
    kinds = {n: "number" if f.kind == "id" else f.kind for n, f in COMPUTED.items()}
    assert kinds == {n: f.kind for n, f in known.items()}
    assert {n: tuple(p.name for p in f.parameters) for n, f in COMPUTED.items()} == {
        n: f.literals for n, f in known.items()
    }
    vectors = {name for name, f in COMPUTED.items() if f.axes != "each"}
    assert vectors == {name for name, f in known.items() if f.vector}
