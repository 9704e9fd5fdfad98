"""Queries of a config, each with where in the config its text stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from hookql.api import read_query_file
from hookql.configs.document import Document, Where, said
from hookql.configs.settings import QuerySettings
from hookql.errors import Diagnostic, HookQLError, QueryError, Source, Span, UsageError
from hookql.language.parser import parse
from hookql.language.query import Query
from hookql.language.resolve import resolve

Failure = TypeVar("Failure", bound=HookQLError)


@frozen(eq=False)
class Located:
    """A query; ``at`` says where in the config each of its characters stands, if there."""

    query: Query
    at: Sequence[int] | None
    document: Document

    def here(self, diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
        """Diagnostics about the query, pointing into the config."""
        source = self.query.source
        return tuple(_moved(each, source, self.at, self.document) for each in diagnostics)


def located(document: Document, name: str, settings: QuerySettings, file: Path | None) -> Located:
    """Read and resolve the query ``name``; ``file`` is where its text is, if in a file.

    Raises UsageError where the file cannot be read, QueryError with all that is wrong with the
    query, each pointing to where it is written.
    """
    path: Where = ("queries", name)
    if file is not None:
        try:
            source = Source(read_query_file(file), str(file))
        except UsageError as error:
            raise placed(error, document, (*path, "file")) from None
        return Located(resolve(parse(source.text, source.name)), None, document)
    assert settings.query is not None
    at = document.node((*path, "query")).at
    source = Source(settings.query, f"{document.name}, {said(path)}")
    try:
        query = resolve(parse(source.text, source.name))
    except QueryError as error:
        moved = [_moved(each, source, at, document) for each in error.diagnostics]
        if any(each.span is None for each in moved):
            raise placed(QueryError(moved), document, path) from None
        raise QueryError(moved) from None
    return Located(query, at, document)


def placed(error: Failure, document: Document, path: Where) -> Failure:
    """The same error, pointing to a value of the config where it points nowhere."""
    span = document.span(path)
    if span is None:
        return error
    found = [
        evolve(each, span=span, source=document.source) if each.span is None else each
        for each in error.diagnostics
    ]
    return type(error)(found)


def _moved(
    diagnostic: Diagnostic, source: Source, at: Sequence[int] | None, document: Document
) -> Diagnostic:
    span = diagnostic.span
    if not at or span is None or document.source is None or diagnostic.source != source:
        return diagnostic
    start = at[span.start] if span.start < len(at) else at[-1] + 1
    last = min(span.end, len(at)) - 1
    end = at[last] + 1 if last >= span.start else start + 1
    return evolve(diagnostic, span=Span(start, max(end, start + 1)), source=document.source)
