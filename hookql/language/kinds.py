"""Which kinds of values predicates compare: a token with a text, a position with `last`.

Kinds: ``id`` (token, prev, next), ``place`` (position, content_position), ``amount`` (length,
sample), ``number``, ``truth``, ``row`` (a column of the data: any type), ``text``, ``role``,
``none``, ``last``, and ``unknown`` for what an error has been reported about.
"""

from __future__ import annotations

import re
from itertools import pairwise

from attrs import frozen

from hookql.errors import Span, did_you_mean
from hookql.language import ast, names
from hookql.language.formatter import format_expression
from hookql.language.lets import UNKNOWN
from hookql.language.report import Report
from hookql.language.walk import literal

NUMERIC = frozenset({"number", "place", "amount", "row", "last"})
_DESCRIBED = {
    "id": "a token",
    "place": "a number",
    "amount": "a number",
    "number": "a number",
    "truth": "true or false",
    "row": "a column of the data",
    "text": "a text",
    "role": "a role",
    "none": "`none`",
    "last": "`last`",
}
_ONE_WAY = ({"<", "<="}, {">", ">="}, {"=="})
# Of each two kinds the first in this order decides how they are compared.
_DECIDES = ("unknown", "none", "role", "text", "truth", "last", "id", "number", "place", "amount")


@frozen
class Kinds:
    """Finds the kind of an expression, and reports what has none."""

    report: Report
    defined: frozenset[str] = frozenset()  # the names of lets, for suggestions

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
            "text": f"token == {text}",
            "role": f"token == {text}",
        }.get(kind)
        help = f"compare it: `{instead}`" if instead and len(text) <= 40 else None
        shown = f"`{text}` is" if len(text) <= 40 else "this is"
        message = f"{shown} {_DESCRIBED[kind]}, and not by itself true or false"
        if kind in ("none", "last"):
            message = f"`{kind}` is nothing by itself"
        self.report.error("not-boolean", message, node.span, help)

    def kind(self, node: ast.Expression) -> str:
        """The kind of an expression, whose parts are checked."""
        match node:
            case ast.Number():
                return "number"
            case ast.String():
                return "text"
            case ast.Row():
                return "row"
            case ast.Name():
                return self._name(node)
            case ast.Call():
                return self._call(node)
            case ast.Subscript() | ast.Within() | ast.Regex():
                what = "`within` is" if isinstance(node, ast.Within) else "value expressions are"
                self.report.not_yet(what, node.span)
                return "unknown"
            case ast.Unary(_, operand):
                self._numbers(operand)
                return "number"
            case ast.Binary(_, left, right):
                self._numbers(left, right)
                return "number"
            case ast.Not(operand):
                self.predicate(operand)
            case ast.And(operands) | ast.Or(operands):
                for operand in operands:
                    self.predicate(operand)
            case ast.Compare():
                self._compare(node)
            case ast.Membership(value, members):
                for member in members:
                    self._pair(value, "==" if not node.negated else "!=", member)
            case ast.Match():
                self._match(node)
        return "truth"

    def _name(self, node: ast.Name, help: str | None = None) -> str:
        word = node.id
        known = names.COLUMNS.get(word) or names.CONSTANTS.get(word)
        if known is not None:
            return known
        if word in names.ROLES:
            return "role"
        if word in names.LATER_COLUMNS:
            self.report.not_yet(f"the column `{word}` is", node.span)
        elif word in names.VALUES:
            self.report.not_yet(f"a predicate about `{word}` is", node.span)
        elif node is not UNKNOWN:
            row = f"a column of the data is written `row.{word}`"
            unknown_name(self.report, node, self.defined, help or row)
        return "unknown"

    def _call(self, node: ast.Call) -> str:
        if node.function == "random":
            self._random(node)
            return "truth"
        unknown_function(self.report, node)
        return "unknown"

    def _random(self, node: ast.Call) -> None:
        """``random(rate, seed=0)``: both written out."""
        given: dict[str, ast.Expression] = {}
        for argument in node.arguments:
            name = argument.name or ("rate" if "rate" not in given else "")
            if name not in ("rate", "seed") or name in given:
                message = "`random` takes a rate and `seed=`, once each"
                self.report.error("bad-argument", message, argument.span)
                return
            given[name] = argument.value
        rate, seed = given.get("rate"), given.get("seed", ast.Number(0))
        if not isinstance(rate, ast.Number) or rate.value > 1:
            message = "the rate of `random` is a number from 0 to 1"
            at = node.span if rate is None else rate.span
            self.report.error("bad-argument", message, at, "write `random(0.01, seed=0)`")
        if not isinstance(seed, ast.Number) or isinstance(seed.value, float):
            message = "the seed of `random` is a whole number from 0"
            self.report.error("bad-argument", message, seed.span)

    def _numbers(self, *operands: ast.Expression) -> None:
        for operand in operands:
            kind = self.kind(operand)
            if kind not in NUMERIC and kind != "unknown":
                message = f"{_DESCRIBED[kind]} cannot be reckoned with"
                self.report.error("wrong-kind", message, operand.span)

    def _match(self, node: ast.Match) -> None:
        kind = self.kind(node.value)
        if kind not in ("id", "row", "unknown"):
            message = f"`~` searches the text of a token or of a column, not {_DESCRIBED[kind]}"
            self.report.error("wrong-kind", message, node.value.span)
        check_regex(self.report, node.regex)

    def _compare(self, node: ast.Compare) -> None:
        if len(node.ops) > 1 and not any(set(node.ops) <= way for way in _ONE_WAY):
            shown = " and ".join(f"`{op}`" for op in dict.fromkeys(node.ops))
            message = f"a chain of {shown} says less than it seems to"
            help = "compare two at a time, joined by `and`"
            self.report.error("mixed-chain", message, node.span, help)
        for op, (left, right) in zip(node.ops, pairwise(node.operands), strict=True):
            self._pair(left, op, right)
            self._behind_the_last(left, op, right)

    def _side(self, node: ast.Expression, other: ast.Expression) -> str:
        """The kind of one operand; a word that nothing is called may be meant as a text."""
        if isinstance(node, ast.Name) and node is not UNKNOWN and isinstance(other, ast.Name):
            help = f'a text stands in quotes: `"{node.id}"`'
            return self._name(node, help if names.COLUMNS.get(other.id) == "id" else None)
        return self.kind(node)

    def _pair(self, left: ast.Expression, op: str, right: ast.Expression) -> None:
        """One comparison, by the kinds of its two operands."""
        kinds = self._side(left, right), self._side(right, left)
        ranks = [_DECIDES.index(k) if k in _DECIDES else len(_DECIDES) for k in kinds]
        if ranks[0] > ranks[1]:
            left, right, kinds = right, left, (kinds[1], kinds[0])
        span = Span(min(left.span.start, right.span.start), max(left.span.end, right.span.end))
        first, second = kinds
        ordering = op not in ("==", "!=")
        if "unknown" in kinds:
            return
        if not self._fit(first, second, left, right):
            message = f"{_DESCRIBED[first]} cannot be compared with {_DESCRIBED[second]}"
            if first != "last" and (_mentions_last(left) or _mentions_last(right)):
                first, message = "last", "`last` of which position? there is not exactly one here"
            self.report.error("wrong-kind", message, span, _advice(first, second))
        elif ordering and first in ("none", "role", "truth"):
            what = "true and false have" if first == "truth" else f"{_DESCRIBED[first]} has"
            self.report.error("wrong-kind", f"{what} no order", span)
        elif ordering and first == "text" and second == "id":
            self.report.error("wrong-kind", "the text of a token has no order", span)
        elif first == "role" and _is_pad(left) and op == "==":
            message = f"`{format_expression(right)} == pad` is never true: padding is never a row"
            self.report.warning("never-pad", message, span)
        else:
            self._literals(left, first, right, second)

    def _behind_the_last(self, left: ast.Expression, op: str, right: ast.Expression) -> None:
        """`position > -1`: true nowhere, for negative places count from the end."""
        if op == "<":
            left, right = right, left
        elif op != ">":
            return
        place = isinstance(left, ast.Name) and names.COLUMNS.get(left.id) == "place"
        if not place or not (right == ast.Name("last") or literal(right) == -1):
            return
        message = f"`{format_expression(right)}` is the last position: nothing lies behind it"
        self.report.warning("never-true", message, right.span)

    def _fit(self, first: str, second: str, left: ast.Expression, right: ast.Expression) -> bool:
        match first:
            case "none":
                if literal(right) is not None:
                    return False
                return second in ("id", "place", "amount", "number", "row", "truth")
            case "role":
                return second == "id"
            case "text":
                return second in ("id", "row")
            case "truth":
                return second in ("truth", "row")
            case "id":
                whole = isinstance(right, ast.Number | ast.Unary) and literal(right) is not None
                return second in ("id", "row") or (second == "number" and whole)
        if first == "last" or _mentions_last(left) or _mentions_last(right):
            return second in NUMERIC and len(_places(left) | _places(right)) == 1
        return second in NUMERIC

    def _literals(
        self, left: ast.Expression, first: str, right: ast.Expression, other: str
    ) -> None:
        """Numbers that nothing could equal."""
        for node, kind in ((left, other), (right, first)):
            value = literal(node)
            if value is None:
                continue
            if kind == "id" and (value < 0 or value != int(value)):
                self.report.error(
                    "wrong-kind", "the id of a token is a whole number from 0", node.span
                )
            if kind == "amount" and value < 0:
                message = "only `position` and `content_position` count from the end"
                self.report.error("wrong-kind", message, node.span)


def _advice(first: str, second: str) -> str | None:
    if "role" in (first, second):
        return "roles are compared with `token`, `prev` and `next`"
    if "last" in (first, second):
        return "`last` is compared with `position` or `content_position`"
    if "id" in (first, second):
        return "a token is compared with a text, an id, a role, `none` or another token"
    return None


def _is_pad(node: ast.Expression) -> bool:
    return node == ast.Name("pad")


def _words(node: ast.Expression) -> set[str]:
    match node:
        case ast.Name(word):
            return {word}
        case ast.Unary(_, operand):
            return _words(operand)
        case ast.Binary(_, left, right):
            return _words(left) | _words(right)
    return set()


def _mentions_last(node: ast.Expression) -> bool:
    return "last" in _words(node)


def _places(node: ast.Expression) -> set[str]:
    return {word for word in _words(node) if names.COLUMNS.get(word) == "place"}


def unknown_name(
    report: Report, node: ast.Name, defined: frozenset[str], help: str | None = None
) -> None:
    """Report a name that means nothing; a misspelt one is likelier than what `help` says."""
    if node.id == "row":
        report.error("unknown-name", "`row` needs the name of a column: `row.NAME`", node.span)
        return
    if node.id in names.FUNCTIONS:
        message = f"`{node.id}` is a function"
        report.error("unknown-name", message, node.span, "write `random(0.1, seed=0)`")
        return
    known = [*names.COLUMNS, *defined, *names.ROLES, *names.CONSTANTS, *names.VALUES]
    report.error(
        "unknown-name",
        f"there is no column or `let` called `{node.id}`",
        node.span,
        did_you_mean(node.id, known) or help,
        (f"columns: {', '.join(names.COLUMNS)}, row.NAME",),
    )


def unknown_function(report: Report, node: ast.Call) -> None:
    """Report a call of what is no function, or of one that is not built."""
    name = node.function
    if name in names.LATER_FUNCTIONS:
        report.not_yet(f"`{name}` is", node.span)
        return
    span = Span(node.span.start, node.span.start + len(name))
    known = [*names.FUNCTIONS, *names.LATER_FUNCTIONS, "not"]
    message = f"there is no function `{name}`"
    report.error("unknown-function", message, span, did_you_mean(name, known))


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
