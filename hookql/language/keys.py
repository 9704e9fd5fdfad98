"""The keys of `by`: which columns keep rows apart, and the dimensions they become."""

from __future__ import annotations

import re
from collections.abc import Collection

from hookql.errors import did_you_mean
from hookql.language import ast, names
from hookql.language.formatter import format_expression
from hookql.language.lets import UNKNOWN, Lets
from hookql.language.query import Key
from hookql.language.report import Report

# What a statistic may bring along is called like its variable, with one of these behind it.
COMPANIONS = ("sample", "position", "chunk", "token", "text", "count")


def read_keys(
    report: Report, lets: Lets, by: tuple[ast.Expression, ...], variables: Collection[str]
) -> tuple[Key, ...]:
    """The keys of one capture, in the order of the query; wrong ones are reported and left out.

    `variables` are the names of the capture's results, which a dimension cannot have too.
    """
    keys: dict[ast.Expression, Key] = {}
    for node in by:
        expression = lets.expand(node)
        if expression is None or expression is UNKNOWN or not _is_key(report, expression, node):
            continue
        assert isinstance(expression, ast.Name | ast.Row)
        text = format_expression(expression)
        name = _dimension(expression, {*variables, *(key.name for key in keys.values())})
        if expression in keys:
            report.error("duplicate-key", f"`{text}` is a key already", node.span)
        elif name is None:
            message = f"the dimension of `{text}` would have the name of another"
            report.error("duplicate-key", message, node.span)
        else:
            keys[expression] = Key(expression, name, node.span)
            if name in variables:
                message = f"a variable of this capture is called `{name}`, as its key is"
                report.error("reserved-name", message, node.span, "name the variable with `as`")
    return tuple(keys.values())


def _is_key(report: Report, expression: ast.Expression, node: ast.Expression) -> bool:
    """Whether rows can be kept apart by this; reported where they cannot."""
    if isinstance(expression, ast.Row):
        return True
    word = expression.id if isinstance(expression, ast.Name) else format_expression(node)
    if word in names.KEYS or word in names.OFFERED:
        return True
    report.error(
        "unknown-key",
        f"`by` takes no `{word}`",
        node.span,
        did_you_mean(word, names.KEYS),
        (f"keys: {', '.join(names.KEYS)}, row.NAME",),
    )
    return False


def _dimension(expression: ast.Name | ast.Row, taken: Collection[str]) -> str | None:
    """The name of a key's dimension; None where each name that it could have is taken."""
    if isinstance(expression, ast.Name):
        return expression.id
    name = re.sub(r"\W+", "_", expression.column)
    brought = {f"{variable}_{suffix}" for variable in taken for suffix in COMPANIONS}
    reserved = {*taken, *brought, *names.RESULT_NAMES, *names.KEYS}
    fine = name.isidentifier() and not re.fullmatch(r"axis_\d+", name)
    choices = [name] * fine + [f"row_{name}"]
    return next((choice for choice in choices if choice not in reserved), None)
