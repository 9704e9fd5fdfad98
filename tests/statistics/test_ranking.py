"""Rankings of many blocks: what is screened out or waits must not show."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from hookql.statistics.places import Places
from hookql.statistics.ranking import Ranking

K, BLOCKS, ROWS, COLUMNS = 3, 14, 60, 40
KINDS = {
    "spread": lambda x: x,
    "mostly zero": lambda x: torch.relu(x - 1.5),
    "half dead": lambda x: torch.relu(x) * (torch.arange(x.shape[1]) % 2),
    "few values": lambda x: x.round(),
    "not finite": lambda x: x.masked_fill(x > 1.5, float("inf")).masked_fill(x < -1, float("nan")),
    "all unknown": lambda x: x * float("nan"),
}


def blocks(kind: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Blocks of one kind, their spread growing and falling so that bars are passed again."""
    generator = torch.Generator().manual_seed(3)
    scales = [1 + (number % 5) / 4 for number in range(BLOCKS)]
    drawn = (torch.randn(ROWS, COLUMNS, generator=generator, dtype=dtype) for _ in scales)
    return [KINDS[kind](x * scale) for x, scale in zip(drawn, scales, strict=True)]


def orders(shuffled: bool) -> np.ndarray[Any, Any]:
    """The orders of all rows, int64 (BLOCKS, ROWS)."""
    found = np.arange(BLOCKS * ROWS) * 7 + 5
    return (np.random.default_rng(5).permutation(found) if shuffled else found).reshape(BLOCKS, -1)


def best(x: np.ndarray[Any, Any], order: np.ndarray[Any, Any]) -> tuple[list[float], list[int]]:
    """The first K values and orders of one column, by a plain sort; NaN and -1 where none is."""
    rows = sorted((-v, o) for v, o in zip(x.tolist(), order.tolist(), strict=True) if v == v)[:K]
    rest = K - len(rows)
    return [-v for v, _ in rows] + [float("nan")] * rest, [o for _, o in rows] + [-1] * rest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("largest", [True, False])
def test_many_blocks(kind: str, shuffled: bool, dtype: torch.dtype, largest: bool) -> None:
    """Read off between blocks, pickled and merged on the way, it is what one sort gives."""
    order, parts = orders(shuffled), blocks(kind, dtype)
    one, other = Ranking(K, largest), Ranking(K, largest)
    for number, block in enumerate(parts):
        places = torch.from_numpy(order[number])
        given = block if largest else -block
        (other if 4 <= number < 7 else one).update(given, Places(places, places % 11))
        if number == 8:
            one.merge(other)
        if number == 10:
            one = pickle.loads(pickle.dumps(one))
    result = one.result()
    rows = torch.cat(parts).numpy()
    for column in range(COLUMNS):
        values, places_of = best(rows[:, column], order.reshape(-1))
        np.testing.assert_array_equal(values, (1 if largest else -1) * result[""][column].numpy())
        assert places_of == result["order"][column].tolist()
        tokens = [-1 if o < 0 else o % 11 for o in places_of]
        assert tokens == result["token"][column].tolist()


def test_rows_of_one_column_are_left_alone() -> None:
    """Looking for the block's own bar puts nothing in order in the rows that were given."""
    x = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    Ranking(2).update(x, Places(torch.arange(5000), torch.arange(5000)))
    assert torch.equal(before, x)
