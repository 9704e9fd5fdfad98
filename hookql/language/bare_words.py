"""Texts without quotes: `phase == generated` and `role == user`."""

from __future__ import annotations

from typing import Any

import attrs

from hookql.language import ast, names
from hookql.language.walk import fields, parts

_WORDS = {"phase": names.PHASES, "speaker": names.SPEAKERS}


def with_texts(node: Any) -> Any:
    """An expression in which a bare word beside `phase` or `role` is the text that it means.

    For expressions without names of `let`, which come first. A word that a column has is none.
    """
    words = _words(node)
    changes: dict[str, Any] = {}
    for name, value in fields(node).items():
        old = value if isinstance(value, tuple) else (value,)
        new = tuple(_text(part, words) for part in map(with_texts, old))
        if any(a is not b for a, b in zip(old, new, strict=True)):
            changes[name] = new if isinstance(value, tuple) else new[0]
    return attrs.evolve(node, **changes) if changes else node


def _words(node: Any) -> tuple[str, ...]:
    """The words that stand for texts right below a comparison or a set, beside a column of it."""
    if not isinstance(node, ast.Compare | ast.Membership):
        return ()
    kinds = {names.COLUMNS.get(part.id) for part in parts(node) if isinstance(part, ast.Name)}
    return tuple(word for kind, words in _WORDS.items() if kind in kinds for word in words)


def _text(node: Any, words: tuple[str, ...]) -> Any:
    if isinstance(node, ast.Name) and node.id in words and node.id not in names.DEFINED:
        return ast.String(node.id, span=node.span)
    return node
