"""The texts that detectors are asked for with: read by the language's own parser, with carets."""

from __future__ import annotations

from attrs import evolve
from torch import nn

from hookql.errors import Diagnostic, QueryError, Source, Span
from hookql.language import ast
from hookql.language.parser import parse
from hookql.language.query import CaptureSpec, StatisticSpec
from hookql.language.resolve import resolve
from hookql.models.paths import Match, match_sites

_SITE = "capture count from "
_STATISTICS = "capture "


def matches(root: nn.Module, key: str) -> list[Match]:
    """The modules that a key of `attach` names: what can stand behind `from`.

    Raises QueryError, pointing into the key.
    """
    try:
        spec = _capture(_SITE, key, "", "a key is what can stand after `from`")
        source = Source(_SITE + key, "<key>")
        return match_sites(root, spec.sites, spec.excepts, source)
    except QueryError as error:
        raise _pointed(error, _SITE, key, "<key>") from None


def statistics(text: str) -> tuple[StatisticSpec, ...]:
    """Statistics as a query writes them: ``mean, quantile(0.5)``. Raises QueryError."""
    try:
        spec = _capture(_STATISTICS, text, " from m", "statistics are what stands before `from`")
        return spec.statistics
    except QueryError as error:
        raise _pointed(error, _STATISTICS, text, "<statistics>") from None


def _capture(before: str, text: str, after: str, what: str) -> CaptureSpec:
    """The one capture that the text makes, which must be all of it."""
    program = parse(before + text + after)
    capture = program.statements[0]
    plain = isinstance(capture, ast.Capture) and capture == ast.Capture(
        capture.statistics, capture.sites, capture.excepts
    )
    if not plain or len(program.statements) > 1:
        message = f"{what}, without a query's other clauses"
        raise QueryError(Diagnostic("bad-pattern", message))
    return resolve(program).captures[0]


def _pointed(error: QueryError, before: str, text: str, name: str) -> QueryError:
    """The error with its carets under the text alone."""
    return QueryError(
        [_shifted(each, len(before), Source(text, name)) for each in error.diagnostics]
    )


def _shifted(diagnostic: Diagnostic, before: int, source: Source) -> Diagnostic:
    if diagnostic.span is None:
        return diagnostic
    whole = len(source.text)
    start, end = (min(max(0, at - before), whole) for at in _ends(diagnostic.span))
    return evolve(diagnostic, span=Span(start, max(end, start + 1)), source=source)


def _ends(span: Span) -> tuple[int, int]:
    return span.start, span.end
