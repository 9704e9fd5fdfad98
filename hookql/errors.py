"""What HookQL says when something is wrong: spans, diagnostics and the exceptions that carry them.

Floor 0 of the house: imports nothing of HookQL, so that every other module can report errors.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

from attrs import field, frozen


@frozen
class Span:
    """A half-open range of characters ``[start, end)`` of a source text."""

    start: int
    end: int


NOWHERE = Span(0, 0)


@frozen
class Source:
    """A text that spans point into, and the name that diagnostics call it by."""

    text: str = field(repr=False)
    name: str = "<query>"

    def line_column(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column of a character offset."""
        before = self.text[:offset]
        return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1

    def line(self, number: int) -> str:
        """The text of a 1-based line, without its line break."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if number <= len(lines) else ""


@frozen
class Diagnostic:
    """One thing that is wrong: a stable code, one sentence, where it stands, what would help."""

    code: str
    message: str
    span: Span | None = None
    source: Source | None = None
    help: str | None = None
    notes: tuple[str, ...] = ()
    severity: str = "error"

    def render(self) -> str:
        """The diagnostic as text: header, source line with carets, one help, notes."""
        lines = [_line(f"{self.severity}[{self.code}]: {self.message}")]
        gutter = " "
        if self.source is not None and self.span is not None:
            number, column = self.source.line_column(self.span.start)
            text = self.source.line(number)
            gutter = " " * len(str(number))
            width = max(1, min(self.span.end - self.span.start, len(text) - column + 1))
            shown, caret = _excerpt(text, column - 1, width)
            lines += [
                _line(f"{gutter}--> {self.source.name}:{number}:{column}"),
                f"{gutter} |",
                f"{number} | {shown}",
                f"{gutter} | {caret}",
            ]
        if self.help:
            lines.append(_line(f"{gutter} = help: {self.help}"))
        lines += [_line(f"{gutter} = note: {note}") for note in self.notes]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class HookQLError(Exception):
    """Every error that HookQL reports on purpose; ``diagnostics`` holds them all.

    ``code``, ``message``, ``span``, ``help`` and ``notes`` are those of the first one.
    ``exit_code`` is what the command line exits with: 1, a run that failed.
    """

    exit_code = 1

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        if isinstance(diagnostics, Diagnostic):
            diagnostics = (diagnostics,)
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(d.render() for d in self.diagnostics)

    @property
    def code(self) -> str:
        return self.diagnostics[0].code

    @property
    def message(self) -> str:
        return self.diagnostics[0].message

    @property
    def span(self) -> Span | None:
        return self.diagnostics[0].span

    @property
    def help(self) -> str | None:
        return self.diagnostics[0].help

    @property
    def notes(self) -> tuple[str, ...]:
        return self.diagnostics[0].notes


class QueryError(HookQLError):
    """The query is wrong, by itself or for the model it is bound to (exit code 2)."""

    exit_code = 2


class UsageError(HookQLError):
    """An option or argument is wrong (exit code 2)."""

    exit_code = 2


class DataError(HookQLError):
    """The data cannot be read or run (exit code 1)."""


class ModelError(HookQLError):
    """The model cannot be loaded, probed or run (exit code 1)."""


class Interrupted(HookQLError):
    """The run was asked to stop, and did in good order (exit code 130)."""

    exit_code = 130


class AlreadyDone(HookQLError):
    """There is nothing to do, for it was done before (exit code 0)."""

    exit_code = 0


def suggest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` most likely meant, or None."""
    candidates = list(known)
    lowered = {c.lower(): c for c in reversed(candidates)}
    close = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """``did you mean `known`?`` for the closest known word, or None."""
    close = suggest(word, known)
    return f"did you mean `{close}`?" if close else None


def listing(items: Sequence[str], most: int = 12) -> str:
    """``a, b, c``, cut with a count of what is left out after ``most`` items."""
    shown = ", ".join(items[:most])
    return f"{shown}, … ({len(items) - most} more)" if len(items) > most else shown


# A query may be one line of ten megabytes: what is shown of it is at most this wide.
_WIDEST = 100
_LONGEST_LINE = 2000


def _excerpt(text: str, start: int, width: int) -> tuple[str, str]:
    """The part of a source line around a span, and the caret line that goes under it."""
    left = 0
    if len(text) > _WIDEST:
        left = max(0, min(start - _WIDEST // 3, len(text) - _WIDEST))
        width = min(width, max(1, left + _WIDEST - start))
    shown = printable(text[left : left + _WIDEST])
    prefix = "…" if left else ""
    suffix = "…" if left + _WIDEST < len(text) else ""
    pad = " " * (len(prefix) + _cells(printable(text[left:start])))
    marked = printable(text[start : start + width])
    return prefix + shown + suffix, pad + "^" * max(1, _cells(marked))


def _line(text: str) -> str:
    """A line of a diagnostic: names of files and columns in it may be anybody's."""
    shown = "\n".join(printable(line) for line in text.split("\n"))
    return shown if len(shown) <= _LONGEST_LINE else shown[:_LONGEST_LINE] + " …"


def printable(text: str) -> str:
    """Tabs and control characters as one visible character each, so that carets stay aligned."""
    return "".join(" " if c == "\t" else c if c.isprintable() else "�" for c in text)


def _cells(text: str) -> int:
    """How many terminal cells a text takes: wide characters two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def raised_in(error: BaseException, module: str) -> str:
    """Where in a module's code an error came from, ``in `f`, line 3 of module``; or nothing."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals.get("__name__") == module:
            where = f" in `{code.co_qualname}`, line {trace.tb_lineno} of {module}"
        trace = trace.tb_next
    return where


class HookQLWarning(UserWarning):
    """Something in a run that the user should look at; the run went on."""
