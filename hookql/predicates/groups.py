"""Groups: which of the rows that are kept belong together, numbered as they first appear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hookql.data.batches import Batch
from hookql.predicates import rows
from hookql.predicates.evaluate import Column
from hookql.predicates.values import Array

Ints = npt.NDArray[np.int64]


class GroupTable:
    """Numbers the groups of some columns together; ``number`` is how many there are so far.

    A group is a combination of values that occurs. Groups are numbered from 0 in order of their
    first row.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._numbers: dict[tuple[Any, ...], int] = {}
        # The type of each column's keys, known from the first: of texts and the data by name.
        self._types = _at_first(self._columns)

    @property
    def number(self) -> int:
        """How many groups there are."""
        return len(self._numbers)

    def index(self, batch: Batch, kept: npt.NDArray[np.bool_]) -> Ints:
        """The group of each kept token, int64 (count,), in the order of ``kept.nonzero()``.

        ``kept`` bool (B, S) must leave out tokens at which a key is undefined.

        Raises:
            DataError: naming a sample whose key is of another type than those before, or of none.
        """
        if not kept.any():
            return np.zeros(0, np.int64)
        codes, keys = [], []
        for place, column in enumerate(self._columns):
            code, distinct = (
                self._token_codes(place, column, batch, kept)
                if column.place is None
                else self._row_codes(place, column.place, batch, kept)
            )
            codes.append(code)
            keys.append(distinct)
        together = codes[0]
        for code, distinct in zip(codes[1:], keys[1:], strict=True):
            # Numbered anew each time, so that no product of sizes grows too large.
            together = np.unique(together, return_inverse=True)[1] * len(distinct) + code
        _, first, inverse = np.unique(together, return_index=True, return_inverse=True)
        numbers = np.empty(len(first), np.int64)
        # Python sees each combination of the batch once, in order of first appearance.
        order = np.argsort(first)
        parts = [
            [distinct[c] for c in code[first[order]].tolist()]
            for code, distinct in zip(codes, keys, strict=True)
        ]
        known = self._numbers
        numbers[order] = [known.setdefault(key, len(known)) for key in zip(*parts, strict=True)]
        return numbers[inverse]

    def keys(self, groups: Ints | None = None) -> list[Array]:
        """The keys of each column at each group, or at these, arrays of shape (number,).

        int64, float64 or bool; texts as objects. A column of the data with whole and other numbers
        is float64; one without a key so far is int64.
        """
        found, types = list(self._numbers), self._types
        if groups is not None:
            found = [found[number] for number in groups.tolist()]
        # Of no group nothing is known: what other groups have shows nowhere.
        columns = zip(*found, strict=True) if found else [()] * len(types)
        types = types if found else _at_first(self._columns)
        return [_array(list(values), known) for values, known in zip(columns, types, strict=True)]

    def select(self, index: Ints) -> None:
        """Keep only the groups of these numbers, which are renumbered in that order."""
        groups = list(self._numbers)
        self._numbers = {groups[i]: new for new, i in enumerate(index.tolist())}

    def _token_codes(
        self, place: int, column: Column, batch: Batch, kept: npt.NDArray[np.bool_]
    ) -> tuple[Ints, list[Any]]:
        """The key of each kept token as a number into the distinct ones of the batch."""
        values = column(batch)
        assert values.defined[kept].all()
        distinct, codes = np.unique(values.value[kept], return_inverse=True)
        if column.kind != "word":
            self._types[place] = distinct.dtype
        return codes, distinct.tolist()

    def _row_codes(
        self, number: int, place: rows.Place, batch: Batch, kept: npt.NDArray[np.bool_]
    ) -> tuple[Ints, list[Any]]:
        """The same of a column of the data, which is read once a sample."""
        samples = {s.index: s for context in batch.contexts for s in context.samples}
        indexes, inverse = np.unique(batch.sample[kept], return_inverse=True)
        known: dict[Any, int] = {}
        codes = np.empty(len(indexes), np.int64)
        for at, index in enumerate(indexes.tolist()):
            key, kind = rows.key(samples[index], place)
            if self._types[number] not in (None, kind):
                raise rows.other_type(samples[index], place, self._types[number])
            self._types[number] = kind
            codes[at] = known.setdefault(key, len(known))
        return codes[inverse], list(known)


def _at_first(columns: Sequence[Column]) -> list[Any]:
    """What is known of the keys' types before the first."""
    return ["text" if column.kind == "word" else None for column in columns]


def _array(values: list[Any], known: Any) -> Array:
    """Keys as an array of the type that they have in common."""
    if isinstance(known, np.dtype):
        return np.array(values, dtype=known)
    if known == "text":
        texts = np.empty(len(values), dtype=object)
        texts[:] = values
        return texts
    if known == "a boolean":
        return np.array(values, dtype=np.bool_)
    whole = all(isinstance(value, int) for value in values)
    return np.array(values, dtype=np.int64 if whole else np.float64)
