"""Batches: every context once, bounds kept, a window that does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.data.batches import Batch, batches
from hookql.data.encode import Context
from hookql.data.samples import Sample


def _context(index: int, length: int) -> Context:
    return Context(
        np.arange(length) + 100 * index,
        np.arange(length) % 3 == 0,
        np.zeros(length, np.int64),
        (Sample(index, "", {}),),
    )


def _contexts(lengths: list[int]) -> list[Context]:
    return [_context(index, length) for index, length in enumerate(lengths)]


def _cells(batch: Batch) -> Iterator[tuple[int, int, int, bool]]:
    """Row, sample, id and special of every real token."""
    for row, column in np.argwhere(batch.mask).tolist():
        yield (
            column,
            int(batch.sample[row, column]),
            int(batch.ids[row, column]),
            bool(batch.special[row, column]),
        )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 12), max_size=40),
    st.integers(1, 40),
    st.none() | st.integers(1, 5),
    st.integers(1, 60),
    st.integers(1, 4),
)
def test_every_token_once_within_bounds(
    lengths: list[int], budget: int, rows: int | None, window: int, groups: int
) -> None:
    """All tokens arrive once; budget, rows and groups hold in every batch."""
    found = list(
        batches(
            _contexts(lengths),
            tokens_per_batch=budget,
            batch_size=rows,
            window_tokens=window,
            group=lambda length: length % groups,
            pad_id=7,
        )
    )
    expected = sorted(
        (position, index, position + 100 * index, position % 3 == 0)
        for index, length in enumerate(lengths)
        for position in range(length)
    )
    assert expected == sorted(cell for batch in found for cell in _cells(batch))
    for batch in found:
        assert batch.ids.size <= budget or 1 == len(batch.ids)
        assert rows is None or len(batch.ids) <= rows
        assert 1 == len({length % groups for length in batch.length.tolist()})
        assert batch.length.max() == batch.ids.shape[1]
        assert sorted(batch.length.tolist(), reverse=True) == batch.length.tolist()


def test_padding() -> None:
    """Padding is on the right: the pad id, unmasked, not special, of no sample."""
    (batch,) = batches(_contexts([1, 3]), tokens_per_batch=9, pad_id=7)
    assert [[100, 101, 102], [0, 7, 7]] == batch.ids.tolist()
    assert [[True, True, True], [True, False, False]] == batch.mask.tolist()
    assert [[True, False, False], [True, False, False]] == batch.special.tolist()
    assert [[1, 1, 1], [0, -1, -1]] == batch.sample.tolist()
    assert [3, 1] == batch.length.tolist()
    types = [a.dtype for a in (batch.ids, batch.mask, batch.special, batch.sample, batch.length)]
    assert [np.int64, np.bool_, np.bool_, np.int64, np.int64] == types


def test_packed_owner() -> None:
    """In a packed context each token names its own sample."""
    context = Context(
        np.array([5, 6, 7]),
        np.zeros(3, np.bool_),
        np.array([0, 1, 1]),
        (Sample(8, "", {}), Sample(3, "", {})),
    )
    (batch,) = batches([context], tokens_per_batch=8)
    assert [[8, 3, 3]] == batch.sample.tolist()


def test_equal_lengths_keep_their_order() -> None:
    """Sorting is stable, so that batches are the same each time."""
    (batch,) = batches(_contexts([2, 3, 2, 3]), tokens_per_batch=99)
    assert [1, 3, 0, 2] == batch.sample[:, 0].tolist()


@pytest.mark.parametrize(("length", "most"), [(10, 100), (1, 8192)])
def test_window_is_bounded(length: int, most: int) -> None:
    """No more contexts are held than the window's tokens, or its number of contexts, allow."""
    taken = 0

    def source() -> Iterator[Context]:
        nonlocal taken
        for index in range(20_000):
            taken += 1
            yield _context(index, length)

    window: Any = {"window_tokens": 1000} if length == 10 else {}
    given = 0
    for batch in batches(source(), tokens_per_batch=50, **window):
        # One more is looked at, to know which samples are complete.
        assert taken - given <= most + 1
        given += len(batch.contexts)
    assert 20_000 == given


def test_nothing() -> None:
    """No contexts make no batches."""
    assert [] == list(batches([], tokens_per_batch=8))
