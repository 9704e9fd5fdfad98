"""Every statistic on rows that are hard: constants of float64, no groups, odd layouts, huge."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from hookql.statistics import STATISTICS, Groups, accumulators
from hookql.statistics.products import SCRATCH, grouped_products
from tests.statistics.test_every_statistic import (
    NAMES,
    check,
    check_groups,
    fresh,
    give,
    grouped_pair,
    nothing,
    numbers,
    order_of,
    parameters_of,
    seen,
)

# None of these is a sum of few powers of two, so that every sum of many of them is rounded.
CONSTANTS = [*(0.1 * k for k in range(1, 8)), 1 / 3, -2 / 3, 1e30 / 3, 1e-30 / 3, 1e4 + 0.1]
SPREADS = ("var", "std", "cov")
UNKNOWN = ("skew", "kurtosis", "corr")


def read(name: str, state: Any) -> torch.Tensor:
    """What is read off, the diagonal of what has a column for each two."""
    result: torch.Tensor = STATISTICS[name].finish(state, **parameters_of(name))
    return result.diagonal(dim1=-2, dim2=-1) if name in ("cov", "corr") else result


def is_flat(name: str, state: Any) -> bool:
    """Whether the spread is exactly 0, or NaN where it is divided by."""
    result = read(name, state)
    return bool((result == 0).all() if name in SPREADS else result.isnan().all())


def shared(name: str, grouped: bool) -> Any:
    """An accumulator of a statistic, shared with kurtosis where it can be."""
    wanted = [(STATISTICS[n], parameters_of(n)) for n in (name, "kurtosis")]
    return next(iter(accumulators(wanted, grouped).values()))


@pytest.mark.parametrize("name", [*SPREADS, *UNKNOWN])
@pytest.mark.parametrize("with_kurtosis", [True, False])
@pytest.mark.parametrize("sizes", [[7], [1, 1, 1], [1000, 3, 777], [20_011, 5000]])
def test_constants_have_no_spread(name: str, with_kurtosis: bool, sizes: list[int]) -> None:
    """Columns of one float64 number spread by exactly 0, over batches, merges and pools."""
    make = shared if with_kurtosis else fresh
    row = torch.tensor([CONSTANTS, CONSTANTS], dtype=torch.float64).T.reshape(-1, 2)
    rows = row if name in ("cov", "corr") else row.T  # (feature, the same twice) or pooled below
    state, other = make(name, False), make(name, False)
    for size in sizes:
        state.update(rows.expand(size, *rows.shape))
        other.update(rows.expand(size + 2, *rows.shape))
    other.merge(state)
    assert is_flat(name, state)
    assert is_flat(name, other)
    if STATISTICS[name].poolable:
        assert is_flat(name, other.pool(0))


@pytest.mark.parametrize("name", [*SPREADS, *UNKNOWN])
@pytest.mark.parametrize("with_kurtosis", [True, False])
def test_constant_groups_have_no_spread(name: str, with_kurtosis: bool) -> None:
    """Nor do groups each of which has a number of its own, whatever the others do."""
    make = shared if with_kurtosis else fresh
    values = torch.tensor(CONSTANTS, dtype=torch.float64)
    state, other = make(name, True), make(name, True)
    for seed, size in enumerate((5, 900, 1, 2500)):
        index = np.random.default_rng(seed).integers(0, len(values), size)
        rows = values[torch.from_numpy(index)].reshape(-1, 1, 1).expand(size, 4, 3)
        for each in (state, other):
            each.update(rows, Groups(index, len(values)))
    other.merge(state)
    assert is_flat(name, state)
    assert is_flat(name, other)
    if name not in ("cov", "corr"):
        assert is_flat(name, other.pool(0))
    assert is_flat(name, other.pool(0 if name in ("cov", "corr") else 1))


def test_a_spread_of_few_units_in_the_last_place_is_none_or_right() -> None:
    """Kurtosis is never below -2, which no numbers have, however little they spread."""
    generator = np.random.default_rng(1)
    steps = generator.integers(0, [2, 3, 9, 30, 100], (4000, 5))
    rows = torch.from_numpy(1 / 3 + steps * 2.0**-54)
    state = seen("kurtosis", list(torch.split(rows, 37)))
    right = ((steps - steps.mean(0)) / steps.std(0)) ** 4
    actual = STATISTICS["kurtosis"].finish(state).numpy()
    assert np.isnan(actual[0])
    assert np.all(np.isnan(actual) | (np.abs(actual - right.mean(0) + 3) < 0.2))
    assert not np.isnan(actual[-1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("own", [True, False])
def test_no_groups_at_all(name: str, own: bool) -> None:
    """Merged, pooled, chosen, grown and read off before any group is known, with axes or not."""
    statistic, make = grouped_pair(name, own)
    nobody = torch.zeros(0, dtype=torch.int64)
    no_rows = torch.zeros(0, 2, 3), order_of(0), Groups(np.zeros(0, np.int64), 0)
    rows = numbers(1, (6, 2, 3))
    for given in (False, True):
        state, other = make(), make()
        if given:
            give(state, *no_rows)
            give(other, *no_rows)
        state.merge(other)
        state.merge(make())
        chosen, pooled = state.select(nobody), None
        if given and statistic.poolable and name != "count":
            pooled = state.pool(0)
        for each in (state, other, chosen, pooled):
            if each is None:
                continue
            axes = () if not given else (3,) if each is pooled else (2, 3)
            nothing_of(statistic, each, 0, axes)
            each.merge(each.select(nobody))
            each.grow(2)
            nothing_of(statistic, each, 2, axes)
        give(state, rows, order_of(6), Groups(np.array([0, 1, 0, 1, 0, 1]), 2))
        check_groups(statistic, state, rows.numpy(), np.array([0, 1, 0, 1, 0, 1]), range(2))


def nothing_of(statistic: Any, state: Any, number: int, axes: tuple[int, ...]) -> None:
    """Check what is read off groups that have had no rows."""
    result = statistic.finish(state, **parameters_of(statistic.name))
    main = result[""] if isinstance(result, dict) else result
    assert number == len(main)
    if number:
        nothing(statistic.name, result, () if statistic.name == "count" else (number, *axes))


def layouts(rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rows (n, a, b) as models may hand them over."""
    n, a, b = rows.shape
    return {
        "transposed": rows.transpose(1, 2).contiguous().transpose(1, 2),
        "rows last": rows.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "strided": torch.stack([rows, rows + 9], -1)[..., 0],
        "every other": rows.repeat_interleave(2, 0)[::2],
        "same rows": rows[:1].expand(n, a, b),
        "same columns": rows[:, :, :1].expand(n, a, b),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", sorted(layouts(torch.zeros(1, 1, 1))))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts(name: str, kind: str, dtype: torch.dtype) -> None:
    """Transposed, strided and expanded rows are as good as contiguous ones, in groups too."""
    rows = layouts(numbers(10, (40, 3, 5)).to(dtype))[kind]
    check(name, seen(name, [rows[:33], rows[33:]]), rows.numpy())
    flat = rows[:, 0]
    check(name, seen(name, [flat[:33], flat[33:]]), flat.numpy())
    index = np.arange(40) % 3
    statistic, make = grouped_pair(name, True)
    state = make()
    give(state, rows, order_of(40), Groups(index, 3))
    check_groups(statistic, state, rows.numpy(), index, range(3))


@pytest.mark.parametrize("grouped", [True, False])
def test_one_huge_number_does_not_widen_the_table(grouped: bool) -> None:
    """Beyond float32 all is infinite to a quantile, but for the extremes: 20,225 bins at most."""
    hard = [-1e300, -1e40, -3, 3, 3e38, 1e39, 1e300]
    rows = torch.tensor(hard, dtype=torch.float64).reshape(-1, 1)
    state = fresh("quantile", grouped)
    groups = [Groups(np.zeros(7, np.int64), 1)] if grouped else []
    state.update(rows, *groups)
    inf = math.inf
    q = tuple((place + 0.5) / 7 for place in range(7))
    values = STATISTICS["quantile"].finish(state, q=q).reshape(-1)
    assert [-1e300, -inf, -3, 3, 3e38, inf, 1e300] == pytest.approx(values.tolist(), rel=1 / 64)
    bins = state.states["table"].shape[2]
    assert bins < 64 * (128 + 30) * 2 + 2


def test_many_groups_are_read_as_one_is() -> None:
    """Quantiles of more groups than are read at once are those of each group alone."""
    rows = numbers(3, (9000, 2), std=1e6)
    index = np.arange(9000) // 3
    state = fresh("quantile", True)
    state.update(rows, Groups(index, 3001))
    q = (0.0, 0.3, 0.5, 1.0)
    values = STATISTICS["quantile"].finish(state, q=q).numpy()
    ranked = np.sort(rows.numpy().reshape(3000, 3, 2).astype(np.float64), axis=1)
    right = np.stack([ranked[:, place] for place in (0, 0, 1, 2)], -1)
    assert np.all(np.abs(values[:3000] - right) <= np.abs(right) / 128)
    assert np.isnan(values[3000]).all()


@pytest.mark.parametrize("sizes", [[1, 1, 500, 2], [3, 9000], [1] * 40, [70_000, 1, 40]])
def test_products_of_uneven_groups(sizes: list[int]) -> None:
    """Groups large and small give what each gives alone, also where one exceeds the scratch."""
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 2, sizes))
    rows = numbers(2, (len(index), 2, 32)).double()
    assert (max(sizes) * 64 > SCRATCH) == (max(sizes) == 70_000)
    actual = grouped_products(rows, Groups(index, 2 * len(sizes)))
    for place in range(len(sizes)):
        mine = rows[torch.from_numpy(index == 2 * place)]
        right = torch.einsum("noi,noj->oij", mine, mine)
        assert torch.allclose(right, actual[place], rtol=1e-12, atol=1e-9)


def test_ranges_that_numbers_cannot_hold() -> None:
    """What is wrong with the edges of a histogram is said as it is."""
    wrong = STATISTICS["hist"].check
    wide = "the range from `lo` to `hi` of `hist` is too wide for 64-bit numbers"
    assert wide == wrong(bins=5, lo=-1e308, hi=1e308)
    assert wide == wrong(bins=5, lo=0, hi=1e308)
    narrow = "the range from `lo` to `hi` of `hist` is too narrow for 5 bins"
    assert narrow == wrong(bins=5, lo=1.0, hi=1.0 + 3 * 2.0**-52)
    assert narrow == wrong(bins=5, lo=0.0, hi=1e-310)
    assert None is wrong(bins=5, lo=-1e300, hi=1e300)
