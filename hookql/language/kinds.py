"""Which kinds of values expressions have: a token with a text, a position with `last`.

Kinds: ``id`` (token, prev, next), ``place`` (position, content_position), ``amount`` (length,
sample, chunk, offset, step), ``number``, ``truth``, ``row`` (a column of the data: any type),
``phase``, ``speaker`` (the column `role`), ``text``, ``role`` (of a token: `bos`, `pad`), ``none``,
``last``, and ``unknown`` for what an error has been reported about. The values of a site are
numbers; their axes are for the model to say.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from attrs import field, frozen

from hookql.errors import Span, did_you_mean
from hookql.language import ast, names
from hookql.language.comparing import DESCRIBED, NUMERIC, Comparing, mentions_last, unknown_word
from hookql.language.formatter import format_expression
from hookql.language.functions import FUNCTIONS, Calls
from hookql.language.lets import UNKNOWN
from hookql.language.report import Report
from hookql.language.values import is_constant, mentions_values


@frozen
class Kinds:
    """Finds the kind of an expression, and reports what has none.

    ``defined`` are the names of lets, for suggestions, ``statistics`` those of statistics.
    """

    report: Report
    defined: frozenset[str] = frozenset()
    statistics: Collection[str] = ()
    _calls: Calls = field(init=False)
    _comparing: Comparing = field(init=False)

    @_calls.default
    def _make_calls(self) -> Calls:
        return Calls(self.report, self.kind, self._number)

    @_comparing.default
    def _make_comparing(self) -> Comparing:
        return Comparing(self.report, self._side)

    def predicate(self, node: ast.Expression) -> None:
        """Check what must be true or false."""
        kind = self.kind(node)
        if kind in ("truth", "row", "unknown"):
            return
        text = format_expression(node)
        instead = {
            "id": f'{text} == "text"',
            "place": f"{text} >= 1",
            "amount": f"{text} >= 1",
            "number": f"{text} > 0" if not is_constant(node) else None,
            "text": f"token == {text}",
            "role": f"token == {text}",
            "phase": f"{text} == generated",
            "speaker": f"{text} == user",
        }.get(kind)
        help = f"compare it: `{instead}`" if instead and len(text) <= 40 else None
        shown = f"`{text}` is" if len(text) <= 40 else "this is"
        message = f"{shown} {DESCRIBED[kind]}, and not by itself true or false"
        if kind in ("none", "last"):
            message = f"`{kind}` is nothing by itself"
        self.report.error("not-boolean", message, node.span, help)

    def value(self, node: ast.Expression) -> None:
        """Check what a statistic is of: a number at each token, or true and false as 1 and 0."""
        kind = self.kind(node)
        if kind in ("id", "text", "role", "none", "phase", "speaker"):
            what = {"id": "tokens", "text": "text"}.get(kind, DESCRIBED[kind])
            instead = {"id": '"text"', "phase": "generated", "speaker": "user"}.get(kind)
            help = f"compare it: `{format_expression(node)} == {instead}`" if instead else None
            message = f"a statistic is of numbers, not of {what}"
            self.report.error("wrong-kind", message, node.span, help)
        elif kind != "unknown" and not self._lonely_last(node) and is_constant(node):
            message = "this is the same at every token, and a statistic of it says nothing"
            self.report.error("bad-argument", message, node.span)

    def kind(self, node: ast.Expression) -> str:
        """The kind of an expression, whose parts are checked."""
        match node:
            case ast.Number():
                return "number"
            case ast.String() | ast.Regex():
                return "text"
            case ast.Row():
                return "row"
            case ast.Name():
                return self._name(node)
            case ast.Call():
                return self._calls.check(node, self.statistics)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Unary(_, operand):
                self._reckoned(operand)
                return "number"
            case ast.Binary(_, left, right):
                # Beside values, true and false count as 1 and 0: `x * (x > 0)`.
                beside = mentions_values(node)
                self._reckoned(left, beside)
                self._reckoned(right, beside)
                return "number"
            case ast.Not(operand):
                self.predicate(operand)
            case ast.And(operands) | ast.Or(operands):
                for operand in operands:
                    self.predicate(operand)
            case ast.Compare():
                self._comparing.chain(node)
            case ast.Membership(value, members):
                for member in members:
                    self._comparing.pair(value, "!=" if node.negated else "==", member)
            case ast.Match():
                self._match(node)
            case ast.Within(pattern):
                self._within(pattern)
        return "truth"

    def _name(self, node: ast.Name, help: str | None = None) -> str:
        word = node.id
        known = names.COLUMNS.get(word) or names.CONSTANTS.get(word)
        if known is not None:
            return known
        if word in names.VALUES or word in names.SIGNALS:
            return "amount" if word == "rank" else "number"
        if word in names.ROLES:
            return "role"
        if node is not UNKNOWN:
            row = f"a column of the data is written `row.{word}`"
            unknown_name(self.report, node, self.defined, help or row)
        return "unknown"

    def _subscript(self, node: ast.Subscript) -> str:
        kind = self.kind(node.value)
        if kind != "unknown" and not mentions_values(node.value):
            text = format_expression(node.value)
            shown = f"`{text}` is" if len(text) <= 40 else "this is"
            message = f"{shown} one thing a token, with no axis to index"
            self.report.error("wrong-kind", message, node.span)
            return "unknown"
        return kind

    def _reckoned(self, node: ast.Expression, truths: bool = False) -> None:
        """Check an operand of arithmetic."""
        kind = self.kind(node)
        if kind not in NUMERIC and kind != "unknown" and not (truths and kind == "truth"):
            message = f"{DESCRIBED[kind]} cannot be reckoned with"
            self.report.error("wrong-kind", message, node.span)

    def _number(self, node: ast.Expression) -> None:
        """Check an argument of a function, which is no place for `last`."""
        self._reckoned(node)
        self._lonely_last(node)

    def _lonely_last(self, node: ast.Expression) -> bool:
        if not mentions_last(node):
            return False
        message = "`last` is not compared with a position here"
        help = "`last` is compared with `position` or `content_position`"
        self.report.error("wrong-kind", message, node.span, help)
        return True

    def _match(self, node: ast.Match) -> None:
        kind = self.kind(node.value)
        if kind not in ("id", "row", "speaker", "unknown"):
            message = f"`~` searches the text of a token or of a column, not {DESCRIBED[kind]}"
            self.report.error("wrong-kind", message, node.value.span)
        check_regex(self.report, node.regex)

    def _within(self, pattern: ast.String | ast.Regex) -> None:
        if isinstance(pattern, ast.Regex):
            check_regex(self.report, pattern)
        elif not pattern.value:
            message = "`within` looks for a text, and this one is empty"
            self.report.error("bad-argument", message, pattern.span)

    def _side(self, node: ast.Expression, other: ast.Expression) -> str:
        """The kind of one operand; a word that nothing is called may be meant as a text."""
        if isinstance(node, ast.Name) and node is not UNKNOWN and isinstance(other, ast.Name):
            beside = names.COLUMNS.get(other.id)
            if beside in ("phase", "speaker") and node.id not in names.DEFINED:
                unknown_word(self.report, node, beside)
                return "unknown"
            help = f'a text stands in quotes: `"{node.id}"`'
            return self._name(node, help if beside == "id" else None)
        return self.kind(node)


def unknown_name(
    report: Report, node: ast.Name, defined: frozenset[str], help: str | None = None
) -> None:
    """Report a name that means nothing; a misspelt one is likelier than what `help` says."""
    if node.id == "row":
        report.error("unknown-name", "`row` needs the name of a column: `row.NAME`", node.span)
        return
    if node.id in FUNCTIONS or node.id == "random":
        usage = FUNCTIONS[node.id].usage if node.id in FUNCTIONS else "random(0.1, seed=0)"
        message = f"`{node.id}` is a function"
        report.error("unknown-name", message, node.span, f"write `{usage}`")
        return
    if node.id in (*names.PHASES, *names.SPEAKERS):
        column = "phase" if node.id in names.PHASES else "role"
        message = f"`{node.id}` means something beside `{column}` alone"
        report.error("unknown-name", message, node.span, f"write `{column} == {node.id}`")
        return
    columns = [*names.COLUMNS, *names.SIGNALS]
    known = [*columns, *defined, *names.ROLES, *names.CONSTANTS, *names.VALUES]
    report.error(
        "unknown-name",
        f"there is no column or `let` called `{node.id}`",
        node.span,
        did_you_mean(node.id, known) or help,
        (f"columns: {', '.join(columns)}, row.NAME",),
    )


def check_regex(report: Report, node: ast.Regex) -> None:
    """Report a pattern that the `regex` engine does not take."""
    import regex

    try:
        regex.compile(node.pattern)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        why = getattr(error, "msg", None) or "it is nested too deep"
        at, span = getattr(error, "pos", None), node.span
        if isinstance(at, int) and not re.search(r"\\/", node.pattern):
            start = min(span.start + 1 + at, span.end - 1)
            span = Span(start, start + 1)
        report.error("bad-regex", f"this is no pattern: {why}", span)
