"""Where something has a value, written as predicates: so that undefined rows are never selected."""

from __future__ import annotations

from collections.abc import Sequence

from hookql.expressions import Expression
from hookql.language import ast
from hookql.language.walk import walk
from hookql.models.probe import Seen

_ALWAYS = {
    "token",
    "special",
    "position",
    "length",
    "sample",
    "chunk",
    "offset",
    "phase",
    "entropy",
    "last",
}
"""Columns that every token has."""


def always(leaf: ast.Expression) -> bool:
    """Whether a token leaf has a value at every token."""
    return all(
        part.id in _ALWAYS or part.id in ("true", "false")
        for part in walk(leaf)
        if isinstance(part, ast.Name)
    ) and not any(isinstance(part, ast.Row) for part in walk(leaf))


def there(leaf: ast.Expression) -> ast.Expression:
    """A predicate that holds where a leaf has a value."""
    return ast.Compare(("!=",), (leaf, ast.Name("none")), span=leaf.span)


def visible(expression: Expression, seen: Seen) -> list[ast.Expression]:
    """Predicates that hold where the query sees every key that an expression reads by number."""
    found: list[ast.Expression] = []
    position: ast.Expression = ast.Name("position")
    for key in sorted(expression.keys):
        number = ast.Number(key)
        if not seen.causal:
            found.append(ast.Compare((">",), (ast.Name("length"), number)))
        elif key > 0:
            found.append(ast.Compare((">=",), (position, number)))
        if seen.window is not None:
            end = ast.Number(key + seen.window)
            found.append(ast.Compare(("<",), (position, end)))
            if not seen.causal and key >= seen.window:
                start = ast.Number(key - seen.window)
                found.append(ast.Compare((">",), (position, start)))
    return found


def joined(parts: Sequence[ast.Expression | None]) -> ast.Expression | None:
    """All of these predicates as one."""
    flat: list[ast.Expression] = []
    for part in parts:
        if part is not None:
            flat += part.operands if isinstance(part, ast.And) else (part,)
    flat = list(dict.fromkeys(flat))
    return flat[0] if len(flat) == 1 else ast.And(tuple(flat)) if flat else None
