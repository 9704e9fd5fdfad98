"""Canonical texts made identifiers: ``mean(x > 0)`` is ``mean_x_gt_0``."""

from __future__ import annotations

import re

from hookql.language import ast
from hookql.language.formatter import format_expression
from hookql.language.words import write_number

LONGEST = 100
"""Characters of a variable's name that nobody chose."""

_WORDS = {
    "==": "eq",
    "!=": "ne",
    "<=": "le",
    ">=": "ge",
    "<": "lt",
    ">": "gt",
    "**": "power",
    "+": "plus",
    "-": "minus",
    "*": "times",
    "/": "over",
    "~": "matches",
    ":": "to",
}
_TOKEN = re.compile(r"\w+|==|!=|<=|>=|\*\*|[-+*/<>~:]")


def identifier(expression: ast.Expression) -> str:
    """The canonical text of an expression as one word: operators as words, the rest left out.

    Different expressions may become the same word, as ``(a + b) * c`` and ``a + b * c`` do.
    """
    return words(format_expression(expression))


def words(text: str) -> str:
    """A text as one word."""
    found = (_WORDS.get(token, token) for token in _TOKEN.findall(text))
    return "_".join(found)


def number(value: int | float) -> str:
    """A number as a part of a name: ``0_5``, ``minus_1``, and ``1`` of 1.0 too."""
    value = int(value) if value == int(value) and abs(value) < 1e15 else value
    return words(("-" if value < 0 else "") + write_number(abs(value)))
