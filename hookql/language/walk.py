"""Looking into a syntax tree: the nodes below a node, and the numbers that literals write out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from hookql.language import ast


def fields(node: ast.Node) -> dict[str, Any]:
    """The fields of a node that hold nodes: one, or a tuple of some."""
    found = {}
    for attribute in attrs.fields(type(node)):
        value = getattr(node, attribute.name)
        if isinstance(value[0] if isinstance(value, tuple) and value else value, ast.Node):
            found[attribute.name] = value
    return found


def parts(node: ast.Node) -> list[Any]:
    """The nodes right below a node."""
    below: list[Any] = []
    for value in fields(node).values():
        below += value if isinstance(value, tuple) else (value,)
    return below


def walk(node: ast.Node) -> Iterator[Any]:
    """A node and every node below it, in the order of the text."""
    yield node
    for part in parts(node):
        yield from walk(part)


def literal(node: ast.Node) -> int | float | None:
    """The number that a literal writes out, perhaps with a minus; None for anything else."""
    match node:
        case ast.Number(value):
            return value
        case ast.Unary("-", ast.Number(value)):
            return -value
    return None
