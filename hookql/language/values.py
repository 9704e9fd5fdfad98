"""What an expression is made of: the site's tensors, columns of tokens, signals, text.

Names of `let` are expanded in what is asked about here. A *token leaf* of a value expression is a
largest part that says something of the token alone (`next`, `position > 3`); a *value leaf* of a
predicate is a largest name, call or index that reads the site's tensors (`norm(x)`, `x[3]`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from hookql.language import ast, names
from hookql.language.walk import fields, parts, walk


def operands_in(node: ast.Node) -> frozenset[str]:
    """Which of ``x``, ``input`` and ``output`` an expression reads."""
    return _names_in(node, names.VALUES)


def mentions_values(node: ast.Node) -> bool:
    """Whether an expression reads the site's tensors: ``x``, ``input`` or ``output``."""
    return bool(operands_in(node))


def signals_in(node: ast.Node) -> frozenset[str]:
    """The signals of the model's own prediction that an expression reads, as ``surprisal``."""
    return _names_in(node, names.SIGNALS)


def needs_text(node: ast.Node) -> bool:
    """Whether an expression looks into the sample's text: ``within``."""
    return any(isinstance(below, ast.Within) for below in walk(node))


def token_leaves(node: ast.Expression) -> tuple[ast.Expression, ...]:
    """The token leaves of a value expression, in the order of the text, each once.

    A leaf mentions none of the site's tensors, at least one column, and is as large as can be: of
    ``x > 0 and position > 3`` it is ``position > 3``. Numbers alone (``2 * 3``) are none.
    """
    return _largest(node, lambda part: not mentions_values(part) and not is_constant(part))


def value_leaves(node: ast.Expression) -> tuple[ast.Expression, ...]:
    """The value leaves of a predicate, in the order of the text, each once.

    A leaf is a name, call or index that mentions the site's tensors and is as large as can be: of
    ``norm(x) > 2 * x[3]`` they are ``norm(x)`` and ``x[3]``.
    """

    def leaf(part: ast.Node) -> bool:
        return isinstance(part, ast.Name | ast.Call | ast.Subscript) and mentions_values(part)

    return _largest(node, leaf)


def with_row_truths(node: ast.Expression) -> ast.Expression:
    """The expression with ``row.flag == true`` where ``row.flag`` alone is joined by logic.

    What kind of values a column has is not known; beside `and`, `or` and `not` it must be a truth.
    """
    changes: dict[str, Any] = {}
    logic = isinstance(node, ast.And | ast.Or | ast.Not)
    for name, value in fields(node).items():
        new: list[Any] = []
        for part in value if isinstance(value, tuple) else (value,):
            if logic and isinstance(part, ast.Row):
                true = ast.Name("true", span=part.span)
                new.append(ast.Compare(("==",), (part, true), span=part.span))
            else:
                new.append(with_row_truths(part))
        changes[name] = tuple(new) if isinstance(value, tuple) else new[0]
    return attrs.evolve(node, **changes) if changes else node


def is_constant(node: ast.Node) -> bool:
    """Whether an expression is the same at every token: numbers, `true`, `sqrt(2)`."""
    for below in walk(node):
        if isinstance(below, ast.Name) and below.id not in ("true", "false"):
            return False
        if isinstance(below, ast.Row | ast.Within):
            return False
        if isinstance(below, ast.Call) and below.function == "random":
            return False
    return True


def _names_in(node: ast.Node, wanted: tuple[str, ...]) -> frozenset[str]:
    """The names among `wanted`; functions of such a name, as ``entropy(p)``, are none."""
    return frozenset(n.id for n in walk(node) if isinstance(n, ast.Name) and n.id in wanted)


def _largest(node: ast.Expression, wanted: Callable[[Any], bool]) -> tuple[ast.Expression, ...]:
    """The largest parts of an expression that are wanted, each once."""
    found: dict[ast.Expression, None] = {}
    waiting: list[Any] = [node]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, ast.Argument) and wanted(part):
            found.setdefault(part)
        else:
            waiting += reversed(parts(part))
    return tuple(found)
