"""Regular expressions: compiled with a place for what is wrong, searched for a bounded time."""

from __future__ import annotations

import time

import regex

from hookql.errors import Diagnostic, QueryError, Source, Span

# Seconds that one pattern may take over the whole vocabulary, or over one text of the data.
PATIENCE = 10.0


def compile_regex(
    pattern: str, source: Source | None = None, span: Span | None = None
) -> regex.Pattern[str]:
    """The compiled pattern.

    Raises:
        QueryError: saying why and at which character it is no pattern.
    """
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        at = getattr(error, "pos", None)
        why = getattr(error, "msg", None) or str(error) or "nested too deeply"
        where = "" if at is None else f", at character {at} of the pattern"
        if at is not None and span is not None and span.end - span.start == len(pattern) + 2:
            # The pattern stands in the source as it is: point into it.
            start = min(span.start + 1 + at, span.end - 1)
            span = Span(start, start + 1)
        raise QueryError(
            Diagnostic("bad-regex", f"this is no pattern: {why}{where}", span, source)
        ) from None


def search(
    compiled: regex.Pattern[str],
    text: str,
    deadline: float,
    source: Source | None = None,
    span: Span | None = None,
) -> bool:
    """Whether the text has a match, found before the deadline (of ``time.monotonic``).

    Raises:
        QueryError: where it takes longer.
    """
    left = deadline - time.monotonic()
    try:
        if left <= 0:
            raise TimeoutError
        return compiled.search(text, timeout=left) is not None
    except TimeoutError:
        raise too_slow(source, span) from None


def find_all(
    compiled: regex.Pattern[str],
    text: str,
    source: Source | None = None,
    span: Span | None = None,
) -> list[tuple[int, int]]:
    """Start and stop of every match that does not overlap one before it, empty ones left out.

    Raises:
        QueryError: where it takes longer than `PATIENCE`.
    """
    try:
        found = [match.span() for match in compiled.finditer(text, timeout=PATIENCE)]
    except TimeoutError:
        raise too_slow(source, span) from None
    return [(start, stop) for start, stop in found if start < stop]


def too_slow(source: Source | None, span: Span | None) -> QueryError:
    """The error for a pattern that takes too long."""
    return QueryError(
        Diagnostic(
            "regex-too-slow",
            f"this pattern takes longer than {PATIENCE:g} seconds",
            span,
            source,
            help="a repetition within a repetition, as in `(a+)+`, is what takes long",
        )
    )
