"""Collects what is wrong with a query, so that all of it is reported together."""

from __future__ import annotations

from attrs import field, frozen

from hookql.errors import Diagnostic, QueryError, Source, Span

MOST = 100
"""Errors that are reported at once: more of them nobody reads, and a generated query may have
one a line."""


@frozen
class Report:
    """The diagnostics of one query; the same one, from a `let` used twice, is kept once."""

    source: Source
    found: dict[tuple[str, str, Span], Diagnostic] = field(factory=dict)

    def error(
        self,
        code: str,
        message: str,
        span: Span,
        help: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Add an error."""
        self._add(Diagnostic(code, message, span, self.source, help, notes))

    def warning(self, code: str, message: str, span: Span, help: str | None = None) -> None:
        """Add a warning."""
        self._add(Diagnostic(code, message, span, self.source, help, severity="warning"))

    def _add(self, diagnostic: Diagnostic) -> None:
        assert diagnostic.span is not None
        self.found.setdefault((diagnostic.code, diagnostic.message, diagnostic.span), diagnostic)

    def warnings(self) -> tuple[Diagnostic, ...]:
        """The warnings, by position; raises `QueryError` with all errors, if there are any."""
        ordered = sorted(self.found.values(), key=lambda d: d.span.start if d.span else 0)
        errors = [d for d in ordered if d.severity == "error"]
        if errors:
            raise QueryError(errors[:MOST])
        return tuple(ordered)
