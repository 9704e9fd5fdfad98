"""What may be compared with what, by the kinds of both sides."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from attrs import frozen

from hookql.errors import Span, did_you_mean
from hookql.language import ast, names
from hookql.language.formatter import format_expression
from hookql.language.report import Report
from hookql.language.values import mentions_values
from hookql.language.walk import literal

NUMERIC = frozenset({"number", "place", "amount", "row", "last"})
DESCRIBED = {
    "id": "a token",
    "place": "a number",
    "amount": "a number",
    "number": "a number",
    "truth": "true or false",
    "row": "a column of the data",
    "text": "a text",
    "role": "a role of tokens",
    "phase": "a phase",
    "speaker": "a speaker",
    "none": "`none`",
    "last": "`last`",
}
_ONE_WAY = ({"<", "<="}, {">", ">="}, {"=="})
# Of each two kinds the first in this order decides how they are compared.
_DECIDES = (
    *("unknown", "none", "phase", "speaker", "role", "text", "truth", "last"),
    *("id", "number", "place", "amount"),
)


@frozen
class Comparing:
    """Checks comparisons; ``side`` finds the kind of an operand, given the other one."""

    report: Report
    side: Callable[[ast.Expression, ast.Expression], str]

    def chain(self, node: ast.Compare) -> None:
        """A comparison, or several in a row."""
        if len(node.ops) > 1 and not any(set(node.ops) <= way for way in _ONE_WAY):
            shown = " and ".join(f"`{op}`" for op in dict.fromkeys(node.ops))
            message = f"a chain of {shown} says less than it seems to"
            help = "compare two at a time, joined by `and`"
            self.report.error("mixed-chain", message, node.span, help)
        for op, (left, right) in zip(node.ops, pairwise(node.operands), strict=True):
            self.pair(left, op, right)
            self._behind_the_last(left, op, right)

    def pair(self, left: ast.Expression, op: str, right: ast.Expression) -> None:
        """One comparison, by the kinds of its two operands."""
        kinds = self.side(left, right), self.side(right, left)
        ranks = [_DECIDES.index(k) if k in _DECIDES else len(_DECIDES) for k in kinds]
        if ranks[0] > ranks[1]:
            left, right, kinds = right, left, (kinds[1], kinds[0])
        span = Span(min(left.span.start, right.span.start), max(left.span.end, right.span.end))
        first, second = kinds
        ordering = op not in ("==", "!=")
        if "unknown" in kinds:
            return
        if not self._fit(first, second, left, right):
            message = f"{DESCRIBED[first]} cannot be compared with {DESCRIBED[second]}"
            help = _advice(first, second, right)
            if first == "none" and mentions_values(right):
                message, help = "a site's values are never `none`", "write `isnan(x)`"
            elif first != "last" and (mentions_last(left) or mentions_last(right)):
                message = "`last` of which position? there is not exactly one here"
                help = _advice("last", second, right)
            self.report.error("wrong-kind", message, span, help)
        elif ordering and first in ("none", "role", "truth", "phase", "speaker"):
            what = "true and false have" if first == "truth" else f"{DESCRIBED[first]} has"
            self.report.error("wrong-kind", f"{what} no order", span)
        elif ordering and first == "text" and second == "id":
            self.report.error("wrong-kind", "the text of a token has no order", span)
        elif first == "role" and left == ast.Name("pad") and op == "==":
            message = f"`{format_expression(right)} == pad` is never true: padding is never a row"
            self.report.warning("never-pad", message, span)
        elif first in ("phase", "speaker"):
            self._text(first, right)
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
                if literal(right) is not None or mentions_values(right):
                    return False
                return second not in ("none", "role", "text", "last")
            case "phase" | "speaker":
                return second == "text" and isinstance(right, ast.String)
            case "role":
                return second == "id"
            case "text":
                return second in ("id", "row")
            case "truth":
                return second in ("truth", "row")
            case "id":
                return second in ("id", "row") or (second == "number" and _may_be_id(right))
        if first == "last" or mentions_last(left) or mentions_last(right):
            # `last` counts in the one position of its comparison, which is then of tokens alone.
            return (
                second in NUMERIC
                and len(_places(left) | _places(right)) == 1
                and not (mentions_values(left) or mentions_values(right))
            )
        return second in NUMERIC

    def _text(self, kind: str, node: ast.Expression) -> None:
        """A text that no phase and no role can be."""
        assert isinstance(node, ast.String)
        if kind == "phase" and node.value not in names.PHASES:
            unknown_word(self.report, node, kind)
        elif kind == "speaker" and (wrong := _no_role(node.value)) is not None:
            help = "`role == none` holds where nobody speaks" if not node.value else None
            self.report.error("wrong-kind", f"no role {wrong}", node.span, help)

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


def mentions_last(node: ast.Expression) -> bool:
    """Whether `last` stands in a sum or product."""
    return "last" in _words(node)


def _no_role(text: str) -> str | None:
    """Why a text can be no role; None where it can."""
    if len(text) > names.LONGEST_ROLE:
        return f"is longer than {names.LONGEST_ROLE} characters"
    return "is empty" if not text else "has such characters" if "\0" in text else None


def unknown_word(report: Report, node: ast.Name | ast.String, kind: str) -> None:
    """Report a word beside `phase` that is none, or one beside `role` that needs quotes."""
    word = node.id if isinstance(node, ast.Name) else node.value
    if kind == "phase":
        near = did_you_mean(_PHASES.get(word, word), names.PHASES)
        notes = (f"phases of a token: {', '.join(names.PHASES)}",)
        report.error("unknown-phase", f"no token is of a phase `{word}`", node.span, near, notes)
        return
    message = f"there is no column or `let` called `{word}`"
    near = did_you_mean(word, names.SPEAKERS) or f'a text stands in quotes: `"{word}"`'
    notes = (f"roles that need none: {', '.join(names.SPEAKERS)}",)
    report.error("unknown-name", message, node.span, near, notes)


_PHASES = {"generate": "generated", "generation": "generated", "prompts": "prompt"}


def _advice(first: str, second: str, right: ast.Expression) -> str | None:
    if first == "speaker" and second == "role":
        shown = format_expression(right)
        return f"`{shown}` is what a token is for its tokenizer: `token == {shown}`"
    if first in ("phase", "speaker"):
        known = names.PHASES if first == "phase" else names.SPEAKERS
        return f"it is compared with a text, as {' or '.join(f'`{word}`' for word in known[:2])}"
    if "role" in (first, second):
        return "roles are compared with `token`, `prev` and `next`"
    if "last" in (first, second):
        return "`last` is compared with `position` or `content_position`"
    if "id" in (first, second):
        return "a token is compared with a text, an id, a role, `none` or another token"
    return None


def _may_be_id(node: ast.Expression) -> bool:
    """A number written out, what `argmax` finds, or the site's values: the model's input is ids."""
    match node:
        case ast.Number() | ast.Unary():
            return literal(node) is not None
        case ast.Call(function, _):
            return function == "argmax"
        case ast.Subscript(value, _):
            return _may_be_id(value)
        case ast.Name(word):
            return word in names.VALUES
    return False


def _words(node: ast.Expression) -> set[str]:
    match node:
        case ast.Name(word):
            return {word}
        case ast.Unary(_, operand):
            return _words(operand)
        case ast.Binary(_, left, right):
            return _words(left) | _words(right)
    return set()


def _places(node: ast.Expression) -> set[str]:
    return {word for word in _words(node) if names.COLUMNS.get(word) == "place"}
