"""What is said of expressions that make no sense at a site."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hookql.errors import Diagnostic, QueryError
from hookql.expressions import require_scalar
from tests.expressions.expression import FEATURES, HEADS, PATTERN, Unembedding, compiled, read

NO_LENS = Diagnostic("no-head", "this model has no unembedding")

WRONG = {
    "a vector and a number": "cos(x, norm(x))",
    "numbers for vectors": "norm(norm(x))",
    "an index too far": "x[6]",
    "an index too far back": "norm(x) + x[-7]",
    "a slice too long": "x[2:60]",
    "a list with one too many": "x[[1, 99, 2]]",
    "a slice of nothing": "x[4:2]",
    "an axis that is not there": "x[head=1]",
    "an index of a number": "norm(x)[0]",
    "axes of two lengths": "x + x[0:2]",
    "vectors of two lengths": "dot(x[0:3], x[0:2])",
    "a number as truth": "x and not norm(x)",
    "a text": 'argmax(x) == "Paris"',
    "a text in a set": 'argmax(x) in {5, "Paris"}',
    "a regex": "argmax(x) ~ /Paris/",
    "a function that is none": "nrom(x)",
    "too many arguments": "norm(x, 1, 2)",
    "too few arguments": "dot(x)",
    "no arguments": "lens()",
    "a literal that is none": "norm(x, x)",
    "a literal out of bounds": "norm(x, -1)",
    "a parameter that is none": "norm(x, q=1)",
    "a parameter given twice": "clip(x, 0, lo=1)",
    "bounds the wrong way round": "clip(x, 1, 0)",
    "another width than the lens has": "lens(x[0:3])",
    "a lens of numbers": "lens(norm(x))",
    "several at once": "x[9] + cos(x, norm(x)) + nrom(x)",
}


def told(text: str, **more: object) -> str:
    """What is said of an expression."""
    with pytest.raises(QueryError) as raised:
        compiled(text, **more)  # type: ignore[arg-type]
    return str(raised.value)


def test_wrong_expressions(golden: Callable[[str, str], None]) -> None:
    """Each with its place in the query."""
    lens = Unembedding(6, 11)
    said = [f"# {what}\n{told(text, lens=lens)}\n" for what, text in WRONG.items()]
    golden("expressions/wrong.txt", "\n".join(said))


def test_wrong_at_other_sites(golden: Callable[[str, str], None]) -> None:
    """What fits some sites does not fit others."""
    port = {"x": FEATURES}
    said = [
        told("output - input", axes=port),
        told("dot(norm(x), x)", axes=HEADS),
        told("dot(norm(x), x[head=0])", axes=HEADS),
        told("norm(x + 1)", axes=PATTERN),
        told("x[-1]", axes=PATTERN),
        told("x[key=0:3]", axes=PATTERN),
        told("lens(x)", axes=PATTERN, lens=Unembedding(6, 11)),
        told("x + input", axes={"x": HEADS, "input": PATTERN.resized("head", 5)}),
        told("argmax(lens(x))", lens=NO_LENS),
        told("argmax(lens(x))"),
    ]
    golden("expressions/wrong_site.txt", "\n\n".join(said) + "\n")


def test_not_one_number(golden: Callable[[str, str], None]) -> None:
    """A predicate asks for one number at each token."""
    said = []
    for text, axes in (("x", FEATURES), ("softmax(x)", HEADS), ("output * 2", FEATURES)):
        with pytest.raises(QueryError) as raised:
            require_scalar(compiled(text, axes), read(text)[1])
        said.append(str(raised.value))
    golden("expressions/not_one_number.txt", "\n\n".join(said) + "\n")


def test_one_number() -> None:
    """What is one number is let through."""
    for text in ("norm(x)", "x[3]", "argmax(x)", "x[3] > 0"):
        require_scalar(compiled(text), read(text)[1])
