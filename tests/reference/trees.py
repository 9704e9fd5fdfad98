"""Questions about a syntax tree: its names, its parts, its token leaves, its `let`s written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from hookql.language import ast

OPERANDS = ("x", "input", "output")


def expanded(node: Any, lets: Mapping[str, ast.Expression]) -> Any:
    """A node with every `let` written out."""
    if isinstance(node, ast.Name) and node.id in lets:
        return expanded(lets[node.id], lets)
    if isinstance(node, tuple):
        return tuple(expanded(one, lets) for one in node)
    if not isinstance(node, ast.Node):
        return node
    fields = {
        f.name: expanded(getattr(node, f.name), lets)
        for f in attrs.fields(type(node))
        if f.name != "span"
    }
    return type(node)(**fields)


def children(node: ast.Node) -> list[ast.Node]:
    """The nodes directly below one."""
    found: list[ast.Node] = []
    for f in attrs.fields(type(node)):
        below = getattr(node, f.name)
        found += [n for n in (below if isinstance(below, tuple) else (below,))
                  if isinstance(n, ast.Node)]  # fmt: skip
    return found


def mentions(node: ast.Node, names: Sequence[str]) -> bool:
    """Whether one of these names stands anywhere in it."""
    return not _names(node).isdisjoint(names)


_KNOWN: dict[tuple[str, int], tuple[ast.Node, Any]] = {}


def once(function: Callable[[ast.Node], Any]) -> Callable[[ast.Node], Any]:
    """Remembers what was asked of a node, which it keeps, so that none takes its number."""

    def remembered(node: ast.Node) -> Any:
        key = (function.__name__, id(node))
        if key not in _KNOWN:
            _KNOWN[key] = (node, function(node))
        return _KNOWN[key][1]

    return remembered


def forget() -> None:
    """Drop what `once` remembers."""
    _KNOWN.clear()


@once
def _names(node: ast.Node) -> frozenset[str]:
    if isinstance(node, ast.Name):
        return frozenset({node.id})
    return frozenset().union(*map(_names, children(node)))


@once
def leaves(node: ast.Node) -> list[ast.Node]:
    """The largest parts that say something of the token alone."""
    if not mentions(node, OPERANDS):
        return [node] if _column(node) else []
    return [leaf for below in children(node) for leaf in leaves(below)]


def subscripts(node: ast.Node) -> list[ast.Subscript]:
    """Every index in an expression."""
    below = [found for part in children(node) for found in subscripts(part)]
    return [node, *below] if isinstance(node, ast.Subscript) else below


def _column(node: ast.Node) -> bool:
    if isinstance(node, ast.Name):
        return node.id not in ("true", "false")
    return isinstance(node, ast.Row | ast.Within) or any(map(_column, children(node)))
