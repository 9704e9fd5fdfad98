"""The rows of one batch at one site, and what has been computed from them so far.

`evaluate` runs expressions over them. Parts that have the vocabulary as an axis, as `lens(x)`, are
too large to have whole: they are run in pieces of rows until what is around them has reduced it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from hookql.expressions.axes import VOCABULARY, Axes
from hookql.language import ast

PIECE = 64 * 2**20 // 8
"""Numbers of one piece's logits: 64 MB of them in float64."""

_NONE: Mapping[ast.Expression, Tensor] = {}


@frozen(eq=False)
class Term:
    """A part of an expression, compiled.

    ``key`` names what is computed: terms of one site with equal keys are equal. ``compute`` takes
    Rows and gives (n, \\*axes): bool for a truth, else float32 or float64. ``constant`` is the
    number of a literal. ``hidden`` is what stands at the keys that a query cannot see, where that
    is one known number: 0 for attention weights, 1 for ``x + 1``, None for ``x * norm(x)``.
    ``labels`` are the site's own indices along axes of which only a part is left.
    """

    key: ast.Expression
    axes: Axes
    kind: str
    compute: Callable[[Rows], Tensor]
    parts: tuple[Term, ...] = ()
    constant: float | None = None
    hidden: float | None = None
    key_read: int | None = None  # the one key of a ragged axis that an index takes
    labels: Mapping[str, tuple[int, ...]] = field()
    wide: bool = field(init=False)  # whether a part has the vocabulary as an axis

    @labels.default
    def _labels(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for name in self.axes.names:
            of_parts = {part.labels.get(name) for part in self.parts if name in part.axes.names}
            if len(of_parts) == 1 and (labels := of_parts.pop()) is not None:
                found[name] = labels
        return found

    @wide.default
    def _wide(self) -> bool:
        return VOCABULARY in self.axes.names or any(part.wide for part in self.parts)


class Rows:
    """One batch's rows: the site's tensors, and the token leaves' values.

    ``operands`` are ``x``, ``input``, ``output``, each (n, \\*axes) of any dtype; ``leaves`` are
    (n,). A part of an expression is computed once, however many expressions have it: ``memo``
    holds what has been, by the part's node, a truth as bool or as 0 and 1.
    """

    def __init__(
        self,
        operands: Mapping[str, Tensor],
        leaves: Mapping[ast.Expression, Tensor] = _NONE,
        cut: tuple[Rows, slice] | None = None,
    ) -> None:
        self.operands = operands
        self.leaves = leaves
        self._cut = cut
        self.memo: dict[Any, Tensor] = {}

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._any())

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._any().device

    def of(self, term: Term) -> Tensor:
        """The values of a term, (n, \\*axes)."""
        if self._cut is not None and (not term.wide or term.key in self._cut[0].memo):
            whole, piece = self._cut
            return whole.of(term)[piece]
        if term.key not in self.memo:
            self.memo[term.key] = term.compute(self)
        return self.memo[term.key]

    def numbers(self, term: Term) -> Tensor:
        """The values of a term as float32 or float64, unrounded; a truth is 0 or 1."""
        values = self.of(term)
        return values.float() if values.dtype == torch.bool else values

    def doubles(self, term: Term) -> Tensor:
        """The values of a term as float64."""
        if self._cut is not None and not term.wide:
            whole, piece = self._cut
            return whole.doubles(term)[piece]
        values = self.of(term)
        if values.dtype == torch.float64:
            return values
        key = (torch.float64, term.key)
        if key not in self.memo:
            self.memo[key] = values.double()
        return self.memo[key]

    def run_wide(self, terms: Sequence[Term]) -> None:
        """Compute terms with wide parts, all in one walk over pieces of the rows."""
        waiting = {term.key: term for term in terms if term.key not in self.memo}
        if not waiting:
            return
        found: dict[Any, Tensor] = {}
        step = max(1, PIECE // max(map(_width, waiting.values())))
        for start in range(0, max(1, self.count), step):
            rows = slice(start, start + step)
            piece = Rows(
                {name: values[rows] for name, values in self.operands.items()},
                {node: values[rows] for node, values in self.leaves.items()},
                (self, rows),
            )
            for key, term in waiting.items():
                values = piece.of(term)
                if start == 0:
                    found[key] = values.new_empty((self.count, *values.shape[1:]))
                found[key][rows] = values  # copied: a view would keep the piece alive
        self.memo.update(found)  # whole at last: until then a piece must not look here

    def _any(self) -> Tensor:
        return next(iter((*self.operands.values(), *self.leaves.values())))


def evaluate(terms: Sequence[Term], rows: Rows) -> list[Tensor]:
    """The values of several terms, (n, \\*axes) each, float32 or float64; a truth is 0 or 1."""
    rows.run_wide([wide for term in terms for wide in _borders(term, rows)])
    return [rows.numbers(term) for term in terms]


def _borders(term: Term, rows: Rows) -> Iterator[Term]:
    """The largest parts that are best run in pieces: all above them is small."""
    if not term.wide or term.key in rows.memo:
        return
    if VOCABULARY in term.axes.names or any(VOCABULARY in part.axes.names for part in term.parts):
        yield term
    else:
        for part in term.parts:
            yield from _borders(part, rows)


def _width(term: Term) -> int:
    """The numbers that the widest part of a term has for each row."""
    own = 1
    for size in term.axes.sizes if VOCABULARY in term.axes.names else ():
        own *= size or 1
    return max([own, *map(_width, term.parts)])


def widened(values: Tensor) -> Tensor:
    """Float32 or float64 without rounding: half precision to float32, whole numbers to float64."""
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.float() if values.is_floating_point() else values.double()
