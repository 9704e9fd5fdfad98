"""Every registered statistic against float64 NumPy; a new one fails here until it has an oracle."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.statistics import STATISTICS, Accumulator, accumulators

Array = np.ndarray[Any, Any]


def _spread(x: Array, ddof: float) -> Array:
    if len(x) <= ddof:
        return np.full(x.shape[1:], np.nan)
    return np.asarray(((x - x.mean(0)) ** 2).sum(0) / (len(x) - ddof))


# What each statistic is of rows (n, *axes), n >= 1, in float64; shares no code with HookQL.
ORACLES: dict[str, Callable[..., Array]] = {
    "count": lambda x: np.asarray(len(x)),
    "sum": lambda x: x.sum(0),
    "mean": lambda x: x.mean(0),
    "var": lambda x, ddof=0: _spread(x, ddof),
    "std": lambda x, ddof=0: np.sqrt(_spread(x, ddof)),
    "min": lambda x: x.min(0),
    "max": lambda x: x.max(0),
    "rms": lambda x: np.sqrt((x * x).mean(0)),
}
# The values of each parameter that are tried.
VALUES: dict[str, list[dict[str, float]]] = {
    "var": [{}, {"ddof": 1}, {"ddof": 2.5}],
    "std": [{}, {"ddof": 1}, {"ddof": 2.5}],
}
NAMES = sorted(set(STATISTICS) | set(ORACLES))


def fresh(name: str) -> Accumulator:
    """An accumulator for one statistic."""
    return next(iter(accumulators([STATISTICS[name]]).values()))


def seen(name: str, blocks: Sequence[torch.Tensor]) -> Accumulator:
    """An accumulator that has seen some blocks."""
    accumulator = fresh(name)
    for block in blocks:
        accumulator.update(block)
    return accumulator


def check(name: str, accumulator: Accumulator, rows: Array) -> None:
    """Compare with the oracle on rows, in the margins of the language's second promise."""
    x = rows.astype(np.float64)
    for parameters in VALUES.get(name, [{}]):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            expected = ORACLES[name](x, **parameters)
            actual = STATISTICS[name].finish(accumulator, **parameters)
            assert (torch.int64 if name == "count" else torch.float64) == actual.dtype
            assert expected.shape == tuple(actual.shape)
            same = (expected == actual.numpy()) | (np.isnan(expected) & np.isnan(actual.numpy()))
            near = np.abs(expected - actual.numpy()) <= margin(name, x, expected)
        assert np.all(same | near), (name, parameters, expected, actual)


def margin(name: str, x: Array, expected: Array) -> Array:
    """How far off a statistic of x may be; the 1e-14 is float64's own rounding."""
    if name in ("count", "min", "max"):
        return np.zeros_like(expected)
    std = np.nan_to_num(np.sqrt(_spread(x, 0)))
    off = 1e-5 * std + 1e-14 * np.abs(x).max(0)
    if name == "var":
        return np.asarray(2e-5 * expected + (1e-14 * np.abs(x).max(0)) ** 2)
    if name == "std":  # of ddof, larger by a known factor
        return np.asarray(off + 1e-5 * expected)
    return np.asarray(off * len(x) if name == "sum" else off)


def numbers(seed: int, shape: tuple[int, ...], mean: float = 0, std: float = 1) -> torch.Tensor:
    """Normal float32 numbers."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy((mean + std * generator.standard_normal(shape)).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_has_an_oracle_and_documentation(name: str) -> None:
    """Each statistic is registered, tested here, and says what it is."""
    assert name in ORACLES
    statistic = STATISTICS[name]
    assert name == statistic.name
    assert len(statistic.doc) > 10
    assert statistic.cell_method
    for parameter in statistic.parameters:
        assert None is parameter.check(parameter.default)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axes", [(), (1,), (7,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_numpy(name: str, axes: tuple[int, ...], dtype: torch.dtype) -> None:
    """One block and several equal NumPy on all rows, whatever axes a row has."""
    rows = numbers(1, (41, *axes), mean=3).to(dtype)
    check(name, seen(name, [rows]), rows.numpy())
    check(name, seen(name, [rows[:1], rows[1:30], rows[:0], rows[30:]]), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_long_block(name: str) -> None:
    """65,536 rows at once lose nothing, one huge first row included."""
    rows = numbers(2, (65_536, 24), mean=1)
    rows[0] += 3_000
    check(name, seen(name, [rows]), rows.numpy())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    mean=st.sampled_from([0.0, 1.0, -300.0, 1e4, 1e6]),
    std=st.sampled_from([1e-25, 1e-3, 1.0, 50.0, 1e25]),
    poison=st.lists(
        st.tuples(
            st.integers(0, 200), st.integers(0, 4), st.sampled_from([np.inf, -np.inf, np.nan])
        ),
        max_size=5,
    ),
)
def test_any_split_and_merge_order(
    seed: int,
    sizes: list[int],
    order: Any,
    mean: float,
    std: float,
    poison: list[tuple[int, int, float]],
) -> None:
    """However rows are split over accumulators, merged and pickled, the whole comes out.

    Non-finite numbers spoil their own feature as NumPy has it, and no other.
    """
    rows = numbers(seed, (sum(sizes), 5), mean, std)
    for row, feature, value in poison:
        if len(rows):
            rows[row % len(rows), feature] = value
    blocks = list(torch.split(rows, sizes))
    for name in NAMES:
        parts = [seen(name, [block]) for block in blocks]
        parts.append(fresh(name))  # one that was never given anything
        while len(parts) > 1:
            left = parts.pop(order.randrange(len(parts)))
            right = parts.pop(order.randrange(len(parts)))
            left.merge(pickle.loads(pickle.dumps(right)))
            parts.append(left)
        if len(rows):
            check(name, parts[0], rows.numpy())
            check(name, seen(name, blocks), rows.numpy())
        else:
            check_empty(name, parts[0], (5,))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    axis=st.integers(0, 1),
    shift=st.sampled_from([0.0, 1e5]),
    poison=st.lists(
        st.tuples(
            st.integers(0, 8),
            st.integers(0, 2),
            st.integers(0, 3),
            st.sampled_from([np.inf, -np.inf, np.nan]),
        ),
        max_size=3,
    ),
)
def test_pool_equals_pooled_numbers(
    seed: int, axis: int, shift: float, poison: list[tuple[int, int, int, float]]
) -> None:
    """An axis pooled away, and then the other one too, is as if its numbers had been rows."""
    rows = numbers(seed, (9, 3, 4))
    rows[:, 1] += shift
    for row, head, feature, value in poison:
        rows[row, head, feature] = value
    pooled = np.moveaxis(rows.numpy(), axis + 1, 1).reshape(-1, rows.shape[2 - axis])
    for name in NAMES:
        accumulator = seen(name, [rows[:4], rows[4:]])
        once = accumulator.pool(axis)
        if name == "count":  # rows are tokens: pooling features makes no more of them
            assert int(STATISTICS[name].finish(once.pool(0))) == 9
            continue
        check(name, once, pooled)
        check(name, once.pool(0), pooled.reshape(-1))
        check(name, accumulator, rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_pool_then_merge(name: str) -> None:
    """Pooled accumulators of several layers merge as their numbers would."""
    layers = [numbers(seed, (9, 4), mean=seed) for seed in range(3)]
    whole = seen(name, [layers[0]]).pool(0)
    for layer in layers[1:]:
        whole.merge(seen(name, [layer]).pool(0))
    everything = np.concatenate([layer.numpy().reshape(-1) for layer in layers])
    if name == "count":
        assert int(STATISTICS[name].finish(whole)) == 27
    else:
        check(name, whole, everything)


def check_empty(name: str, accumulator: Accumulator, axes: tuple[int, ...]) -> None:
    """Nothing seen: count 0, anything else NaN."""
    result = STATISTICS[name].finish(accumulator)
    if name == "count":
        assert int(result) == 0
    else:
        assert axes == tuple(result.shape)
        assert bool(result.isnan().all())


@pytest.mark.parametrize("name", NAMES)
def test_empty(name: str) -> None:
    """No rows, or no update at all, is count 0 and NaN, also after pool and merge."""
    check_empty(name, fresh(name), ())
    check_empty(name, fresh(name).pool(0), ())
    empty = seen(name, [torch.zeros(0, 3, 4)])
    check_empty(name, empty, (3, 4))
    check_empty(name, empty.pool(1), (3,))
    empty.merge(seen(name, [torch.zeros(0, 3, 4)]))
    check_empty(name, empty, (3, 4))
    rows = numbers(1, (2, 3, 4))
    empty.merge(seen(name, [rows]))
    check(name, empty, rows.numpy())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 0.1, -7.25, 3e38, np.inf, -np.inf, np.nan])
def test_one_row_and_constants(name: str, value: float) -> None:
    """One row has no spread, and constant features none either, huge ones included."""
    row = torch.full((1, 3), value)
    check(name, seen(name, [row]), row.numpy())
    rows = row.expand(50, 3)
    check(name, seen(name, [rows, rows]), np.concatenate([rows.numpy()] * 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_low_precision(name: str, dtype: torch.dtype) -> None:
    """Upcast half-precision rows, which repeat a lot, are taken at their own value."""
    rows = numbers(3, (500, 16), mean=100).to(dtype).float()
    check(name, seen(name, [rows[:7], rows[7:]]), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("mean", "std"),
    [(1e4, 1e-2), (1e4, 1e-3), (1e6, 1.0), (1e6, 0.1), (-1e5, 3e-2), (1e-3, 1e-9), (0, 3e-23)],
)
def test_large_mean_tiny_spread(name: str, mean: float, std: float) -> None:
    """A spread near float32's resolution at that mean survives."""
    rows = numbers(4, (3_000, 8), mean, std)
    check(name, seen(name, [rows]), rows.numpy())
    check(name, seen(name, list(torch.split(rows, 700))), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_constant_columns(name: str) -> None:
    """Columns whose mean float32 cannot sum exactly are constant all the same."""
    rows = numbers(4, (1, 300), mean=1e4, std=1e3).expand(777, 300)
    check(name, seen(name, [rows]), rows.numpy())
    check(name, seen(name, [rows[:5], rows[5:]]), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_faint_rows_one_by_one(name: str) -> None:
    """Numbers whose squares float32 cannot hold, one row an update: a spread, and not NaN."""
    rows = numbers(4, (5, 8), std=1e-25)
    check(name, seen(name, list(torch.split(rows, 1))), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_jump_between_blocks(name: str) -> None:
    """Blocks far from all that came before do no harm, nor does a non-finite past."""
    rows = torch.cat([numbers(5, (64, 6), 1e6), numbers(6, (64, 6)), numbers(7, (900, 6), -50)])
    rows[3, 0] = torch.inf
    rows[70, 1] = torch.nan
    check(name, seen(name, list(torch.split(rows, [64, 64, 900]))), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_neither_kept_nor_changed(name: str) -> None:
    """The model may overwrite its activations afterwards; ours are not overwritten by us."""
    for size in (1, 5):
        rows = numbers(8, (size, 6), mean=2)
        before = rows.clone()
        accumulator = fresh(name)
        accumulator.update(rows)
        assert torch.equal(before, rows)
        rows.fill_(1e9)
        check(name, accumulator, before.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_merge_and_pool_leave_the_other_alone(name: str) -> None:
    """Merging into an empty one makes a copy, and pooling too."""
    rows = numbers(9, (5, 6))
    source = seen(name, [rows])
    target = fresh(name)
    target.merge(source)
    pooled = source.pool(0)
    target.update(rows)
    pooled.update(torch.ones(1))
    check(name, source, rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_layout_does_not_matter(name: str) -> None:
    """Strided rows are as good as contiguous ones."""
    rows = numbers(10, (6, 3, 20)).permute(2, 1, 0)
    check(name, seen(name, [rows[::2], rows[1::2]]), np.concatenate([rows[::2], rows[1::2]]))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "count"])
def test_other_axes_are_refused(name: str) -> None:
    """States of other axes never broadcast into each other."""
    accumulator = seen(name, [torch.ones(2, 3)])
    with pytest.raises(ValueError, match="axes"):
        accumulator.update(torch.ones(2, 1))
    with pytest.raises(ValueError, match="axes"):
        accumulator.merge(seen(name, [torch.ones(2, 1)]))


def test_all_statistics_share_few_accumulators() -> None:
    """Statistics of one key share an accumulator that is good for each of them."""
    rows = numbers(11, (30, 4), mean=5)
    shared = accumulators(STATISTICS.values())
    assert {"moments", "squares", "min", "max", "count"} == set(shared)
    for accumulator in shared.values():
        accumulator.update(rows)
    for name, statistic in STATISTICS.items():
        check(name, shared[statistic.key], rows.numpy())
    assert shared["moments"].order == 2  # type: ignore[attr-defined]
    assert None is accumulators([STATISTICS["mean"], STATISTICS["sum"]])["moments"].m2  # type: ignore[attr-defined]


def test_bad_parameters_are_named() -> None:
    """What ddof must be is said."""
    (ddof,) = STATISTICS["var"].parameters
    assert ddof.check(-1) == "0 or more"
    assert ddof.check(math.nan) == "0 or more"
    assert None is ddof.check(1)


def test_torch_is_not_imported() -> None:
    """Names and parameters are known without torch, so that `hookql check` starts in a blink."""
    code = (
        "import sys; from hookql.statistics import STATISTICS;"
        "assert 'std' in STATISTICS and 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
