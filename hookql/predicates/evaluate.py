"""Compiling a predicate into a vectorised function of batches, with three-valued logic."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from hookql.data.batches import Batch
from hookql.errors import Diagnostic, QueryError, Source
from hookql.language import ast
from hookql.predicates.comparisons import Comparisons
from hookql.predicates.values import Values
from hookql.predicates.vocabulary import Vocabulary

Read: TypeAlias = Callable[[Batch], Values]


@frozen(eq=False)
class Predicate:
    """A compiled predicate; predicates of equal ``key`` keep the same tokens."""

    key: ast.Expression
    _read: Read = field(repr=False)

    def __call__(self, batch: Batch) -> tuple[npt.NDArray[np.bool_], int]:
        """Which tokens are kept, bool (B, S), and at how many it was undefined.

        Never True in padding; tokens at which the predicate is undefined are not kept.

        Raises:
            DataError: where a value of the data is of a type that cannot be compared so.
            QueryError: where a pattern over the data takes too long.
        """
        values = self._read(batch)
        defined = batch.mask & values.defined
        kept = defined & values.value
        return kept, int(np.count_nonzero(batch.mask) - np.count_nonzero(defined))


def compile_predicate(
    expression: ast.Expression,
    vocabulary: Vocabulary | None,
    source: Source,
    columns: Collection[str] | None = None,
) -> Predicate:
    """Compile a resolved predicate.

    Args:
        expression: over columns, roles, literals and logic only: names of `let` are expanded.
        vocabulary: what text literals and patterns mean; None where there is no tokenizer.
        source: the text that the expression's spans point into.
        columns: the names that ``row.NAME`` may use; None where the data does not say.

    Raises:
        QueryError: with everything that is wrong with it for this vocabulary and these columns.
    """
    compiler = Comparisons(vocabulary or Vocabulary(None), source, columns)
    read = compiler.predicate(expression)
    if compiler.diagnostics:
        raise QueryError(_once(compiler.diagnostics))
    return Predicate(expression, read)


def _once(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """Each diagnostic once: an operand in the middle of a chain is compiled twice."""
    return list(dict.fromkeys(diagnostics))
