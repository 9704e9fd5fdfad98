"""The operators of the language as terms: arithmetic, comparisons, sets, logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from hookql.errors import Diagnostic, QueryError
from hookql.expressions.combine import Ground, shown
from hookql.expressions.operators import ARITHMETIC, Value, compare, every, negated, some
from hookql.expressions.rows import Rows, Term
from hookql.language import ast
from hookql.language.formatter import format_expression


def negative(ground: Ground, node: ast.Unary, part: Term) -> Term:
    """``-a``, which rounds nothing."""
    return ground.each(node, [part], "number", Rows.numbers, lambda a: -a)


def arithmetic(ground: Ground, node: ast.Binary, parts: Sequence[Term]) -> Term:
    """``a + b`` and its kin, in float64."""
    return ground.each(node, parts, "number", Rows.doubles, ARITHMETIC[node.op])


def comparison(ground: Ground, node: ast.Compare, parts: Sequence[Term]) -> Term:
    """``a < b``, and a chain, which holds where all of its comparisons do."""

    def chain(*values: Value) -> Tensor:
        pairs = zip(node.ops, pairwise(values), strict=True)
        return every([compare(op, left, right) for op, (left, right) in pairs])

    return ground.each(node, parts, "truth", Rows.numbers, chain)


def membership(ground: Ground, node: ast.Membership, parts: Sequence[Term]) -> Term:
    """``a in {b, c}``: equal to one of them."""

    def among(value: Value, *members: Value) -> Tensor:
        found = some([compare("==", value, member) for member in members])
        return negated(found) if node.negated else found

    return ground.each(node, parts, "truth", Rows.numbers, among)


def logic(ground: Ground, node: ast.Not | ast.And | ast.Or, parts: Sequence[Term]) -> Term:
    """``not a``, ``a and b``, ``a or b`` of what is true or false."""
    operands = (node.operand,) if isinstance(node, ast.Not) else node.operands
    problems = [
        Diagnostic(
            "not-boolean",
            f"{shown(operand)} is a number, and not by itself true or false",
            operand.span,
            ground.source,
            f"compare it: `{format_expression(operand)} > 0`",
        )
        for operand, part in zip(operands, parts, strict=True)
        if part.kind != "truth"
    ]
    if problems:
        raise QueryError(problems)
    compute: Callable[..., Tensor] = negated
    if isinstance(node, ast.And):
        compute = _all_of
    elif isinstance(node, ast.Or):
        compute = _one_of
    return ground.each(node, parts, "truth", Rows.of, compute)


def _all_of(*values: Value) -> Tensor:
    return every(values)


def _one_of(*values: Value) -> Tensor:
    return some(values)
