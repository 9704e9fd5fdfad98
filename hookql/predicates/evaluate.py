"""Compiling a predicate into a vectorised function of batches, with three-valued logic."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from hookql.data.batches import Batch
from hookql.errors import QueryError, Source
from hookql.language import ast
from hookql.predicates.comparisons import Comparisons
from hookql.predicates.rows import Place
from hookql.predicates.values import Values
from hookql.predicates.vocabulary import Vocabulary

Read: TypeAlias = Callable[[Batch], Values]


@frozen(eq=False)
class Predicate:
    """A compiled predicate; predicates of equal ``key`` keep the same tokens.

    ``signals`` must be in `Batch.signals`, ``values`` in `Batch.values` when it is called; ``text``
    says that it looks into the samples' text, and needs `Context.spans`.
    """

    key: ast.Expression
    _read: Read = field(repr=False)
    signals: frozenset[str] = frozenset()
    values: tuple[ast.Expression, ...] = ()
    text: bool = False

    def __call__(self, batch: Batch) -> tuple[npt.NDArray[np.bool_], int]:
        """Which tokens are kept, bool (B, S), and at how many it was undefined.

        Never True in padding; tokens at which the predicate is undefined are not kept.

        Raises:
            DataError: where a value of the data is of a type that cannot be compared so.
            QueryError: where a pattern over the data takes too long, or there is no text.
        """
        values = self._read(batch)
        defined = batch.rows & values.defined
        kept = defined & values.value
        return kept, int(np.count_nonzero(batch.rows) - np.count_nonzero(defined))


@frozen(eq=False)
class Column:
    """A compiled column: what an expression that mentions no module is at each token.

    ``kind`` is ``number``, ``truth``, ``id`` or ``word``, a text. A bare ``row.NAME`` is a number
    when it is called, and has a ``place``: as a key of a group it is whatever the data say.
    ``signals``, ``values`` and ``text`` as of a `Predicate`.
    """

    key: ast.Expression
    kind: str
    _read: Read = field(repr=False)
    place: Place | None = None
    signals: frozenset[str] = frozenset()
    values: tuple[ast.Expression, ...] = ()
    text: bool = False

    def __call__(self, batch: Batch) -> Values:
        """The values, (B, S): int64 or float64, bool for ``truth``, `ROLE` for ``word``.

        What padding has is no matter.

        Raises:
            DataError: where a value of the data is no number.
            QueryError: as a predicate.
        """
        values, shape = self._read(batch), batch.ids.shape
        return Values(np.broadcast_to(values.value, shape), np.broadcast_to(values.defined, shape))


def compile_predicate(
    expression: ast.Expression,
    vocabulary: Vocabulary | None,
    source: Source,
    columns: Collection[str] | None = None,
) -> Predicate:
    """Compile a resolved predicate.

    Args:
        expression: names of `let` are expanded; what mentions a module's values (``norm(x)``) is
            read from the batch.
        vocabulary: what text literals and patterns mean; None where there is no tokenizer.
        source: the text that the expression's spans point into.
        columns: the names that ``row.NAME`` may use; None where the data does not say.

    Raises:
        QueryError: with everything that is wrong with it for this vocabulary and these columns.
    """
    compiler = Comparisons(vocabulary or Vocabulary(None), source, columns)
    read = compiler.predicate(expression)
    return Predicate(expression, read, *_needs(compiler))


def compile_column(
    expression: ast.Expression,
    vocabulary: Vocabulary | None,
    source: Source,
    columns: Collection[str] | None = None,
) -> Column:
    """Compile a token leaf of a value expression, or the key of a group.

    Arguments and errors as of `compile_predicate`.
    """
    compiler = Comparisons(vocabulary or Vocabulary(None), source, columns)
    kind = compiler.kind(expression)
    kind = {"bool": "truth", "row": "number"}.get(kind, kind)
    place: Place | None = None
    read: Read
    if isinstance(expression, ast.Row):
        place = Place(expression.column, source, expression.span)
        read = compiler.amount(expression)
    elif kind == "truth":
        read = compiler.predicate(expression)
    elif kind == "word":
        read = compiler.word(expression)
    else:
        read = compiler.numeric(expression)
    signals, values, text = _needs(compiler)
    return Column(expression, kind, read, place, signals, values, text)


def _needs(
    compiler: Comparisons,
) -> tuple[frozenset[str], tuple[ast.Expression, ...], bool]:
    """What a compiled expression needs of a batch; raises what is wrong with it."""
    if compiler.diagnostics:
        # Each once: an operand in the middle of a chain is compiled twice.
        raise QueryError(list(dict.fromkeys(compiler.diagnostics)))
    return frozenset(compiler.signals), tuple(compiler.values), compiler.text
