"""Predicates and columns compiled from the text of a query."""

from __future__ import annotations

from typing import Any

from hookql.errors import Source
from hookql.language import ast
from hookql.language.parser import parse
from hookql.predicates.evaluate import Column, Predicate, compile_column, compile_predicate
from hookql.predicates.vocabulary import Vocabulary


def where(text: str) -> tuple[ast.Expression, Source]:
    """The tree of a predicate, and the query around it."""
    program = parse(f"capture mean from a where {text}", "query.hq")
    (capture,) = program.statements
    assert isinstance(capture, ast.Capture)
    assert capture.where is not None
    return capture.where, program.source


def predicate(text: str, vocabulary: Vocabulary | None, **options: Any) -> Predicate:
    """A compiled predicate."""
    tree, source = where(text)
    return compile_predicate(tree, vocabulary, source, **options)


def column(text: str, vocabulary: Vocabulary | None = None, **options: Any) -> Column:
    """A compiled token column."""
    tree, source = where(text)
    return compile_column(tree, vocabulary, source, **options)
