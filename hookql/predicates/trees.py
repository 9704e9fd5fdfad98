"""What the tree of a predicate says by itself: literals, truth values, columns."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from hookql.language import ast
from hookql.predicates.columns import COLUMNS
from hookql.predicates.functions import TESTS

CONSTANTS = {"true": True, "false": False}


def is_truth(node: ast.Expression) -> bool:
    """Whether a call, or what an index takes from, is true or false."""
    match node:
        case ast.Subscript(value):
            return is_truth(value)
        case ast.Call(name):
            return name in TESTS
        case ast.And() | ast.Or() | ast.Not() | ast.Compare() | ast.Membership():
            return True
    return False


def constant_number(node: ast.Expression) -> int | float | None:
    """The number that a literal, perhaps negative, writes out; None for anything else."""
    match node:
        case ast.Number(value):
            return value
        case ast.Unary("-", ast.Number(value)):
            return -value
    return None


def constant(node: ast.Expression) -> object:
    """The number, text or boolean that a literal writes out; None for anything else."""
    match node:
        case ast.String(text):
            return text
        case ast.Name("true" | "false" as name):
            return CONSTANTS[name]
    return constant_number(node)


def spanning(left: ast.Expression, right: ast.Expression) -> ast.Expression:
    """The left operand with a span from its start to the right one's end, either way round."""
    first, last = sorted((left.span, right.span), key=lambda span: span.start)
    return attrs.evolve(left, span=attrs.evolve(first, end=max(first.end, last.end)))


def columns_in(node: ast.Expression) -> Iterable[str]:
    """The columns in an arithmetic operand."""
    match node:
        case ast.Name(name) if name in COLUMNS:
            yield name
        case ast.Unary(_, operand):
            yield from columns_in(operand)
        case ast.Binary(_, left, right):
            yield from columns_in(left)
            yield from columns_in(right)
