"""Terms made of terms, number by number: broadcast by the names of axes, and what must fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from attrs import frozen
from torch import Tensor

from hookql.errors import Diagnostic, QueryError, Source
from hookql.expressions.axes import Axes, clash, meet, spread
from hookql.expressions.operators import Value
from hookql.expressions.rows import Rows, Term
from hookql.language import ast
from hookql.language.formatter import format_expression

Read: TypeAlias = Callable[[Rows, Term], Tensor]


@frozen
class Ground:
    """What all terms of one expression stand on: its text, and the order of a site's axes."""

    source: Source
    order: tuple[str, ...]

    def wrong(
        self,
        code: str,
        message: str,
        node: ast.Node,
        help: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> QueryError:
        """An error about a part of the expression."""
        return QueryError(Diagnostic(code, message, node.span, self.source, help, notes))

    def meet(self, node: ast.Expression, parts: Sequence[Term]) -> Axes:
        """The axes of several terms together; those of one name must be equally long."""
        for at, part in enumerate(parts):
            for other in parts[:at]:
                name = clash(other.axes, part.axes)
                if name is not None:
                    first, second = _long(other.axes.size(name)), _long(part.axes.size(name))
                    message = f"the axis `{name}` is {first} on one side, {second} on the other"
                    raise self.wrong("bad-axes", message, node)
        return meet([part.axes for part in parts], self.order)

    def each(
        self,
        node: ast.Expression,
        parts: Sequence[Term],
        kind: str,
        read: Read,
        compute: Callable[..., Tensor],
    ) -> Term:
        """A term computed number by number of its parts, whose literals stay plain numbers."""
        axes = self.meet(node, parts)
        known = _of_numbers(compute, [part.constant for part in parts])
        if known is not None:
            return constant(node, known, kind)

        def value(rows: Rows, part: Term) -> Value:
            if part.constant is not None:
                return part.constant
            return spread(read(rows, part), part.axes, axes.names)

        def run(rows: Rows) -> Tensor:
            return compute(*(value(rows, part) for part in parts))

        hidden = _of_numbers(compute, [part.hidden for part in parts])
        return Term(node, axes, kind, run, tuple(parts), hidden=hidden)


def constant(node: ast.Expression, value: float, kind: str) -> Term:
    """A literal, which counts as a number of each row."""

    def compute(rows: Rows) -> Tensor:
        values = torch.full((rows.count,), value, dtype=torch.float64, device=rows.device)
        return values != 0 if kind == "truth" else values

    return Term(node, Axes(), kind, compute, constant=value, hidden=value)


def shown(node: ast.Expression) -> str:
    """A part of the query in words: its text, if short."""
    text = format_expression(node)
    return f"`{text}`" if len(text) <= 40 else "this"


def _long(size: int | None) -> str:
    return "of no fixed length" if size is None else f"{size} long"


def _of_numbers(compute: Callable[..., Tensor], numbers: list[float | None]) -> float | None:
    """What is computed of plain numbers, where all are known."""
    known = [torch.tensor(n, dtype=torch.float64) for n in numbers if n is not None]
    return float(compute(*known)) if len(known) == len(numbers) else None
