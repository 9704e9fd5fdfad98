"""Regular expressions: compiled with a place for what is wrong, searched for a bounded time."""

from __future__ import annotations

import re
import time

import regex

from hookql.errors import Diagnostic, QueryError, Source, Span

# Seconds that one pattern may take over the whole vocabulary, or over one text of the data.
PATIENCE = 10.0

# The engine writes repetitions out while it compiles, at about 300 bytes for each piece.
MOST_PIECES = 200_000
_COUNT = re.compile(r"([)\s]?)\{(\d*)(?:,(\d*))?\}")
_CALL = re.compile(r"\(\?(?:R|[+-]?\d|&|P>)")


def compile_regex(
    pattern: str, source: Source | None = None, span: Span | None = None
) -> regex.Pattern[str]:
    """The compiled pattern.

    Raises:
        QueryError: saying why and at which character it is no pattern; for one that would take
            far more memory than any text needs.
    """
    why = _too_much(pattern)
    if why is not None:
        raise QueryError(Diagnostic("bad-regex", f"this pattern {why}", span, source))
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
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


def _too_much(pattern: str) -> str | None:
    """What keeps a pattern from being compiled at all, or None; its syntax is not looked at.

    Repetitions of groups are taken to stand within each other, the worst that they could mean.
    """
    if _CALL.search(pattern):
        return "calls itself or a part of itself, which takes memory without bound"
    groups, single = 1, len(pattern)
    for before, low, high in _COUNT.findall(pattern):
        digits = (high or low).lstrip("0")
        count = min(int(digits[:12] or 0), MOST_PIECES + 1)
        if before:  # behind a bracket, or space that the flag (?x) would leave out
            groups = min(groups * max(1, count), MOST_PIECES + 1)
        else:
            single += count
    if groups * single > MOST_PIECES:
        return f"repeats so much that it is more than {MOST_PIECES:,} pieces long"
    return None


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
    except (TimeoutError, MemoryError):  # the engine takes 1 GB at most
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
    except (TimeoutError, MemoryError):
        raise too_slow(source, span) from None
    return [(start, stop) for start, stop in found if start < stop]


def too_slow(source: Source | None, span: Span | None) -> QueryError:
    """The error for a pattern that takes too long."""
    return QueryError(
        Diagnostic(
            "regex-too-slow",
            f"this pattern takes longer than {PATIENCE:g} seconds, or 1 GB of memory",
            span,
            source,
            help="a repetition within a repetition, as in `(a+)+`, is what takes long",
        )
    )
