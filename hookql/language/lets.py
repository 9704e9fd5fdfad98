"""The `let` statements of a query, and expressions with the names replaced by what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import attrs
from attrs import define, field, frozen

from hookql.errors import Span
from hookql.language import ast
from hookql.language.bare_words import with_texts
from hookql.language.names import DEFINED
from hookql.language.parser import DEEPEST
from hookql.language.report import Report
from hookql.language.walk import fields, parts

N = TypeVar("N", bound=ast.Node)

MOST_NODES = 200_000
"""Nodes that names may stand for in a query: `let b = a and a`, repeated, doubles each time."""


class _TooBig(Exception):
    """An expression that lets have blown up."""


@frozen
class _Meaning:
    """A let's value without names of lets in it, and what using it costs."""

    value: Any
    size: int
    depth: int


UNKNOWN = ast.Name("")
"""Stands for what could not be worked out; it fits anywhere, since its error is reported."""


@define
class Lets:
    """The names that a query defines."""

    report: Report
    lets: dict[str, ast.Let] = field(factory=dict)
    used: set[str] = field(factory=set)
    _meanings: dict[str, _Meaning | None] = field(factory=dict)
    _spent: int = 0
    _full: bool = False  # something was too big: reported once, nothing more is replaced

    def define(self, statements: Iterable[ast.Statement]) -> None:
        """Take in all lets; their order does not matter, each is checked, used or not."""
        for let in statements:
            if not isinstance(let, ast.Let):
                continue
            span = name_span(let)
            if let.name in DEFINED:
                self.report.error("reserved-name", f"`{let.name}` has a meaning already", span)
            elif let.name in self.lets:
                self.report.error("duplicate-let", f"`{let.name}` is defined already", span)
            else:
                self.lets[let.name] = let
        for name in self._inside_out():
            try:
                self._meanings[name] = _Meaning(*self._expand(self.lets[name].value, 0))
            except _TooBig:
                self._too_big(name_span(self.lets[name]))

    def expand(self, expression: N) -> N | None:
        """An expression with every name replaced, and bare words by the texts that they mean.

        None where it would be far too big.
        """
        try:
            expanded: N = with_texts(self._expand(expression, 0)[0])
        except _TooBig:
            self._too_big(expression.span)
            return None
        return expanded

    def values(self) -> Iterator[ast.Expression]:
        """What each let means, as far as that is known."""
        meanings = (meaning for meaning in self._meanings.values() if meaning is not None)
        return (with_texts(meaning.value) for meaning in meanings)

    def warn_unused(self) -> None:
        """A warning for each let that nothing uses."""
        for name, let in self.lets.items():
            if name not in self.used:
                message = f"`{name}` is never used"
                self.report.warning("unused-let", message, name_span(let))

    def _too_big(self, span: Span) -> None:
        self._full = True
        message = "this is far too big once the names in it are replaced"
        self.report.error("too-deep", message, span)

    def _inside_out(self) -> list[str]:
        """The names, each behind those it uses; cycles are reported. Not recursive: lets may be
        many."""
        ordered: list[str] = []
        done: set[str] = set()
        for start in self.lets:
            open_: dict[str, Iterator[str]] = {}
            following: str | None = start
            while following is not None or open_:
                if following is not None and following not in done:
                    done.add(following)
                    open_[following] = iter(self._names_in(self.lets[following].value))
                name = next(reversed(open_), None)
                if name is None:
                    break
                following = next(open_[name], None)
                if following is None:
                    del open_[name]
                    ordered.append(name)
                elif following in open_:
                    self._cycle(list(open_)[list(open_).index(following) :])
        return ordered

    def _cycle(self, names: list[str]) -> None:
        around = " → ".join(f"`{name}`" for name in [*names, names[0]])
        self.report.error(
            "let-cycle",
            f"`{names[0]}` is defined by itself",
            name_span(self.lets[names[0]]),
            notes=(around,) if len(names) < 8 else (),
        )

    def _names_in(self, expression: ast.Expression) -> list[str]:
        """The lets that an expression uses."""
        found, waiting = [], [expression]
        while waiting:
            node: Any = waiting.pop()
            if isinstance(node, ast.Name) and node.id in self.lets:
                found.append(node.id)
            waiting += parts(node)
        return found

    def _expand(self, node: Any, depth: int) -> tuple[Any, int, int]:
        """The node with names replaced, how many nodes it then has, and how deep it is."""
        if isinstance(node, ast.Name):
            return self._use(node, depth) if node.id in self.lets else (node, 1, 1)
        changes: dict[str, Any] = {}
        size, deepest = 1, 0
        for name, value in fields(node).items():
            new: list[Any] = []
            for part in value if isinstance(value, tuple) else (value,):
                expanded, its_size, its_depth = self._expand(part, depth + 1)
                size, deepest = size + its_size, max(deepest, its_depth)
                # `and` within `and` is the same as one.
                flat = isinstance(node, ast.And | ast.Or) and isinstance(expanded, type(node))
                new += expanded.operands if flat else (expanded,)
            changes[name] = tuple(new) if isinstance(value, tuple) else new[0]
        return (attrs.evolve(node, **changes) if changes else node), size, deepest + 1

    def _use(self, node: ast.Name, depth: int) -> tuple[Any, int, int]:
        self.used.add(node.id)
        meaning = self._meanings.get(node.id)
        if meaning is None or self._full:
            return UNKNOWN, 1, 1
        self._spent += meaning.size
        if depth + meaning.depth > DEEPEST + 4 or self._spent > MOST_NODES:
            raise _TooBig
        return meaning.value, meaning.size, meaning.depth


def name_span(let: ast.Let) -> Span:
    """About where a let names itself: the statement up to its value, or all of it."""
    start, end = let.span.start, let.value.span.start
    return Span(start, start + len(f"let {let.name}")) if end > start else let.span
