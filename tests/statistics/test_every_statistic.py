"""Every registered statistic against float64 NumPy; a new one fails here until it has an oracle."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.statistics import STATISTICS, Groups, Places, accumulators, core

Array = np.ndarray[Any, Any]
Result = dict[str, Array]  # what is read off, by suffix; most have but one


def _spread(x: Array, ddof: float) -> Array:
    if len(x) <= ddof:
        return np.full(x.shape[1:], np.nan)
    return np.asarray(((x - x.mean(0)) ** 2).sum(0) / (len(x) - ddof))


def _standardised(x: Array, order: int) -> Array:
    flat = np.asarray((x.min(0) == x.max(0)) | ~np.isfinite(x).all(0))
    std = np.where(flat, np.nan, np.sqrt(_spread(x, 0)))
    return np.asarray((((x - x.mean(0)) / std) ** order).mean(0))


def _products(x: Array) -> Array:
    return np.asarray(np.einsum("n...i,n...j->...ij", x, x))


def _cov(x: Array, ddof: float) -> Array:
    if len(x) <= ddof:
        return np.full((*x.shape[1:], x.shape[-1]), np.nan)
    return np.asarray(_products(x - x.mean(0)) / (len(x) - ddof))


def _corr(x: Array) -> Array:
    flat = x.min(0) == x.max(0)
    std = np.where(flat, np.nan, np.sqrt(_spread(x, 0)))
    return np.asarray(_cov(x, 0) / std[..., None] / std[..., None, :])


def _quantile(x: Array, q: Sequence[float]) -> Array:
    ranked = np.sort(x, axis=0)
    picked = [ranked[max(math.ceil(each * len(x)) - 1, 0)] for each in q]
    unknown = np.asarray(np.isnan(x).any(0))
    return np.where(unknown[..., None], np.nan, np.stack(picked, -1))


def _hist(x: Array, bins: int, lo: float, hi: float) -> Array:
    flat = x.reshape(len(x), -1)
    table = np.zeros((flat.shape[1], bins + 2), np.int64)
    for column in range(flat.shape[1]):
        values = np.asarray(flat[:, column])
        seen = values[~np.asarray(np.isnan(values))]
        inside = seen[(seen >= lo) & (seen <= hi)]
        table[column, 1:-1] = np.histogram(inside, bins, (lo, hi))[0]
        table[column, [0, -1]] = (seen < lo).sum(), (seen > hi).sum()
    return table.reshape(*x.shape[1:], bins + 2)


def _top(x: Array, order: Array, k: int, sign: int) -> Result:
    flat = x.reshape(len(x), -1)
    shape = (flat.shape[1], k)
    result = {"": np.full(shape, np.nan), "order": np.full(shape, -1), "token": np.full(shape, -1)}
    for column in range(flat.shape[1]):
        rows = [row for row in range(len(x)) if not np.isnan(flat[row, column])]
        rows.sort(key=lambda row: (-sign * flat[row, column], order[row]))
        for place, row in enumerate(rows[:k]):
            result[""][column, place] = flat[row, column]
            result["order"][column, place] = order[row]
            result["token"][column, place] = order[row] % 50
    return {name: array.reshape(*x.shape[1:], k) for name, array in result.items()}


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
    "skew": lambda x: _standardised(x, 3),
    "kurtosis": lambda x: _standardised(x, 4) - 3,
    "median": lambda x: _quantile(x, [0.5])[..., 0],
    "quantile": _quantile,
    "hist": _hist,
    "cov": lambda x, ddof=0: _cov(x, ddof),
    "corr": _corr,
    "gram": _products,
}
# Those that depend on where rows stand: of rows and their order.
PLACED: dict[str, Callable[..., Result]] = {
    "top": lambda x, order, k: _top(x, order, k, 1),
    "bottom": lambda x, order, k: _top(x, order, k, -1),
}
# The parameters that are tried, which must share an accumulator.
VALUES: dict[str, list[dict[str, Any]]] = {
    "var": [{}, {"ddof": 1}, {"ddof": 2.5}],
    "std": [{}, {"ddof": 1}, {"ddof": 2.5}],
    "cov": [{}, {"ddof": 1}, {"ddof": 2.5}],
    "quantile": [{"q": (0.5,)}, {"q": (0.0, 0.01, 0.3, 0.9, 1.0)}],
    "hist": [{"bins": 7, "lo": -2.0, "hi": 5.0}],
    "top": [{"k": 4}],
    "bottom": [{"k": 4}],
}
COUNTS = ("count", "hist")
EXACT = (*COUNTS, "min", "max", "top", "bottom")
RAW = {name for name, statistic in STATISTICS.items() if statistic.raw}  # rows, and no state
NAMES = sorted((set(STATISTICS) - RAW) | set(ORACLES) | set(PLACED))
POOLED = [name for name in NAMES if STATISTICS[name].poolable]


def parameters_of(name: str) -> dict[str, Any]:
    """A full set of a statistic's parameters."""
    defaults = {parameter.name: parameter.default for parameter in STATISTICS[name].parameters}
    return defaults | VALUES.get(name, [{}])[0]


def fresh(name: str, grouped: bool = False) -> Any:
    """An accumulator for one statistic."""
    return next(iter(accumulators([(STATISTICS[name], parameters_of(name))], grouped).values()))


def order_of(n: int, start: int = 0) -> Array:
    """The order of the rows from a place on: all different, and in no order."""
    return np.asarray((np.arange(start, start + n) * 7919 + 13) % 1_000_003)


def give(accumulator: Any, rows: torch.Tensor, order: Array, *groups: Groups) -> None:
    """Update an accumulator, with places if it wants them."""
    if getattr(accumulator, "places", False):
        places = torch.from_numpy(order)
        accumulator.update(rows, *groups, Places(places, places % 50))
    else:
        accumulator.update(rows, *groups)


def seen(name: str, blocks: Sequence[torch.Tensor], start: int = 0) -> Any:
    """An accumulator that has seen some blocks, the first row of which stands at ``start``."""
    accumulator = fresh(name)
    for block in blocks:
        give(accumulator, block, order_of(len(block), start))
        start += len(block)
    return accumulator


def fits(name: str, rows: Any) -> bool:
    """Whether a statistic is of such rows."""
    return STATISTICS[name].needs is None or rows.ndim > 1


def check(name: str, accumulator: Any, rows: Array, order: Array | None = None) -> None:
    """Compare with the oracle on rows, in the margins of the language's second promise."""
    if not fits(name, rows):
        return
    for parameters in VALUES.get(name, [{}]):
        actual = STATISTICS[name].finish(accumulator, **parameters)
        compare(name, actual, rows, order_of(len(rows)) if order is None else order, parameters)


def compare(name: str, actual: Any, rows: Array, order: Array, parameters: dict[str, Any]) -> None:
    """Compare what was read off with the oracle."""
    x = rows.astype(np.float64)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if name in PLACED:
            expected = PLACED[name](x, order, **parameters)
        else:
            expected, actual = {"": ORACLES[name](x, **parameters)}, {"": actual}
        assert list(expected) == list(actual)
        for suffix, right in expected.items():
            whole = suffix or name in COUNTS
            assert (torch.int64 if whole else torch.float64) == actual[suffix].dtype
            assert right.shape == tuple(actual[suffix].shape)
            ours = actual[suffix].numpy()
            same = (right == ours) | (np.isnan(right) & np.isnan(ours))
            near = np.abs(right - ours) <= margin(name, x, right, parameters)
            assert np.all(same | near), (name, suffix, parameters, right, ours)


def margin(name: str, x: Array, expected: Array, parameters: dict[str, Any]) -> Array:
    """How far off a statistic of x may be; the 1e-14 is float64's own rounding."""
    if name in EXACT:
        return np.zeros(expected.shape)
    if name in ("median", "quantile"):
        return np.asarray(np.abs(expected) / 128 + 2.0**-30)
    std = np.nan_to_num(np.sqrt(_spread(x, 0)))
    rounding = 1e-14 * np.abs(x).max(0)
    if name in ("skew", "kurtosis"):
        return np.asarray(1e-5 * (1 + np.abs(expected)) + 100 * rounding / std)
    if name == "gram":
        size = np.sqrt((x * x).sum(0))
        return np.asarray(1e-5 * size[..., None] * size[..., None, :])
    if name in ("cov", "corr"):
        off = 1e-5 * std + rounding
        both = off[..., None] * std[..., None, :] + std[..., None] * off[..., None, :]
        both = both + rounding[..., None] * rounding[..., None, :]
        if name == "corr":
            return np.asarray(both / std[..., None] / std[..., None, :])
        times = len(x) / max(len(x) - parameters.get("ddof", 0), 0.1)
        return np.asarray((both + 1e-5 * np.abs(expected)) * times)
    off = 1e-5 * std + rounding
    if name == "var":
        return np.asarray(2e-5 * expected + rounding**2)
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
    assert (name in ORACLES) != (name in PLACED)
    statistic = STATISTICS[name]
    assert name == statistic.name
    assert len(statistic.doc) > 10
    assert statistic.cell_method
    for parameter in statistic.parameters:
        for value in np.ravel(parameters_of(name)[parameter.name]):
            assert None is parameter.check(value)
    assert None is statistic.check(**parameters_of(name))
    for dimension, values in statistic.coordinates(**parameters_of(name)).values():
        assert dimension in statistic.dims
        assert all(isinstance(value, int | float) for value in values)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axes", [(), (1,), (7,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_numpy(name: str, axes: tuple[int, ...], dtype: torch.dtype) -> None:
    """One block and several equal NumPy on all rows, whatever axes a row has."""
    rows = numbers(1, (41, *axes), mean=3).to(dtype)
    if not fits(name, rows):
        return
    check(name, seen(name, [rows]), rows.numpy())
    check(name, seen(name, [rows[:1], rows[1:30], rows[:0], rows[30:]]), rows.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_a_long_block(name: str) -> None:
    """65,536 rows at once lose nothing, one huge first row included."""
    rows = numbers(2, (5_000 if name in PLACED else 65_536, 24), mean=1)
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
        starts = np.cumsum([0, *sizes])
        parts = [
            seen(name, [block], int(start)) for block, start in zip(blocks, starts, strict=False)
        ]
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
    order = order_of(9).repeat(rows.shape[axis + 1])
    for name in NAMES:
        if not STATISTICS[name].poolable:
            with pytest.raises(ValueError, match="features"):
                seen(name, [rows]).pool(1)
            once = seen(name, [rows[:4], rows[4:]]).pool(0)
            check(name, once, np.moveaxis(rows.numpy(), 1, 1).reshape(-1, 4))
            continue
        accumulator = seen(name, [rows[:4], rows[4:]])
        once = accumulator.pool(axis)
        if name == "count":  # rows are tokens: pooling features makes no more of them
            assert int(STATISTICS[name].finish(once.pool(0))) == 9
            continue
        check(name, once, pooled, order)
        check(name, once.pool(0), pooled.reshape(-1), order.repeat(rows.shape[2 - axis]))
        check(name, accumulator, rows.numpy())


@pytest.mark.parametrize("name", POOLED)
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
        check(name, whole, everything, np.tile(order_of(9).repeat(4), 3))


def check_empty(name: str, accumulator: Any, axes: tuple[int, ...]) -> None:
    """Nothing seen: counts 0, places -1, anything else NaN."""
    parameters = parameters_of(name)
    nothing(name, STATISTICS[name].finish(accumulator, **parameters), axes)


def nothing(name: str, result: Any, axes: tuple[int, ...]) -> None:
    """Compare what was read off with what is due where nothing was seen."""
    for suffix, actual in (result if isinstance(result, dict) else {"": result}).items():
        if name != "count":
            assert axes == tuple(actual.shape[: len(axes)])
        if name in COUNTS:
            assert not actual.any()
        elif suffix:
            assert bool((actual == -1).all())
        else:
            assert bool(actual.isnan().all())


@pytest.mark.parametrize("name", NAMES)
def test_empty(name: str) -> None:
    """No rows, or no update at all, is count 0 and NaN, also after pool and merge."""
    check_empty(name, fresh(name), ())
    check_empty(name, fresh(name).pool(0), ())
    empty = seen(name, [torch.zeros(0, 3, 4)])
    check_empty(name, empty, (3, 4))
    check_empty(name, empty.pool(0), (4,))
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
        accumulator = seen(name, [rows])
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
    give(target, rows, order_of(5))
    if STATISTICS[name].poolable:
        give(source.pool(0), torch.ones(1), order_of(1))
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
        give(accumulator, torch.ones(2, 1), order_of(2))
    with pytest.raises(ValueError, match="axes"):
        accumulator.merge(seen(name, [torch.ones(2, 1)]))


def test_all_statistics_share_few_accumulators() -> None:
    """Statistics of one key share an accumulator that is good for each of them."""
    rows = numbers(11, (30, 4), mean=5)
    for grouped in (False, True):
        shared = accumulators([(STATISTICS[n], parameters_of(n)) for n in NAMES], grouped)
        keys = {"moments", "squares", "min", "max", "count", "sketch", "comoments", "gram"}
        keys |= {("histogram", 7, -2.0, 5.0), ("top", 4), ("bottom", 4)}  # type: ignore[arg-type]
        assert keys == set(shared)
        groups = [Groups(np.zeros(30, np.int64), 1)] if grouped else []
        for accumulator in shared.values():
            give(accumulator, rows, order_of(30), *groups)
        for name in NAMES:
            parameters = parameters_of(name)
            key = core.state_key(STATISTICS[name], parameters)
            result = STATISTICS[name].finish(shared[key], **parameters)
            compare(
                name, first(result) if grouped else result, rows.numpy(), order_of(30), parameters
            )
        assert shared["moments"].order == 4
    assert None is accumulators([STATISTICS["mean"], STATISTICS["sum"]])["moments"].m2


def first(result: Any, group: int = 0) -> Any:
    """What belongs to one group."""
    if isinstance(result, dict):
        return {name: tensor[group] for name, tensor in result.items()}
    return result[group]


def grouped_pair(name: str, own: bool) -> tuple[core.Statistic, Any]:
    """A statistic and a maker of grouped accumulators: its own, or one accumulator a group."""
    statistic = STATISTICS[name]
    if not own:
        finish = partial(core.read_off, statistic.finish)
        statistic = evolve(statistic, grouped=None, finish=finish)
    wanted = [(statistic, parameters_of(name))]
    return statistic, lambda: next(iter(accumulators(wanted, grouped=True).values()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("own", [True, False])
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    axes=st.sampled_from([(4,), (2, 3), ()]),
    mean=st.sampled_from([0.0, 1e4, -3.0]),
    bad=st.sampled_from([0.0, np.nan, np.inf, -np.inf]),
)
def test_groups(
    name: str, own: bool, seed: int, axes: tuple[int, ...], mean: float, bad: float
) -> None:
    """Each group is as if alone: over batches, merged, grown, pooled, chosen and pickled."""
    rows = numbers(seed, (60, *axes), mean)
    if not fits(name, rows):
        return
    rows[17] = bad
    groups = np.random.default_rng(seed).choice([0, 1, 2, 3, 5], 60)
    statistic, make = grouped_pair(name, own)
    numbers_so_far = {20: int(groups[:20].max()) + 1, 40: 6, 41: 6, 60: 7}
    parts, start = [make()], 0
    for end, number in numbers_so_far.items():
        if end == 40:
            parts.append(make())
        index = Groups(groups[start:end], number)
        give(parts[-1], rows[start:end], order_of(end - start, start), index)
        start = end
    for mine, other in (parts, parts[::-1]):
        joined = pickle.loads(pickle.dumps(mine))
        joined.merge(other)
        joined.grow(9)
        check_groups(statistic, joined, rows.numpy(), groups, range(9))
        assert joined.nbytes > 0
        chosen = joined.select(torch.tensor([5, 4, 0]))
        check_groups(statistic, chosen, rows.numpy(), groups, [5, 4, 0])
        if axes and (statistic.poolable or len(axes) > 1) and name != "count":
            pooled = rows.numpy().reshape(-1, *axes[1:])
            check_groups(statistic, chosen.pool(0), pooled, groups, [5, 4, 0])


def check_groups(
    statistic: core.Statistic, state: Any, rows: Array, groups: Array, numbers: Sequence[int]
) -> None:
    """Compare each group with the oracle on its rows alone; pooled rows come several to a token."""
    times = len(rows) // len(groups)
    groups, order = groups.repeat(times), order_of(len(groups)).repeat(times)
    for parameters in VALUES.get(statistic.name, [{}]):
        result = statistic.finish(state, **parameters)
        for place, group in enumerate(numbers):
            mask = groups == group
            mine = first(result, place)
            if mask.any():
                compare(statistic.name, mine, rows[mask], order[mask], parameters)
            else:
                nothing(statistic.name, mine, rows.shape[1:])


def test_bad_parameters_are_named() -> None:
    """What ddof must be is said."""
    (ddof,) = STATISTICS["var"].parameters
    assert ddof.check(-1) == "0 or more"
    assert ddof.check(math.nan) == "0 or more"
    assert None is ddof.check(1)
    (q,) = STATISTICS["quantile"].parameters
    assert q.check(1.5) == q.check(math.nan) == "between 0 and 1"
    bins, lo, _ = STATISTICS["hist"].parameters
    assert bins.check(0) == "between 1 and 100000"
    assert lo.check(math.inf) == "finite"
    assert STATISTICS["hist"].check(bins=3, lo=1, hi=1) == "`lo` of `hist` must be less than `hi`"
    (k,) = STATISTICS["top"].parameters
    assert k.check(0) == "between 1 and 10000"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_of_heavy_tails(dtype: torch.dtype) -> None:
    """Massive values, faint ones and infinities, in any order: the same table, in the bound."""
    rows = torch.from_numpy(np.random.default_rng(1).standard_cauchy((4_000, 3))).to(dtype)
    rows[:9] *= 1e30
    rows[9:2_000, 1] *= 1e-20
    rows[5:50, 2] = torch.inf
    check("quantile", seen("quantile", [rows]), rows.numpy())
    parts = [seen("quantile", [block]) for block in torch.split(rows, 900)]
    left, right = seen("quantile", []), seen("quantile", [])
    for part in parts:
        left.merge(part)
    for part in parts[::-1]:
        right.merge(part)
    assert left.first == right.first
    assert torch.equal(left.states["table"], right.states["table"])
    check("quantile", left, rows.numpy())
    bound = STATISTICS["quantile"].attributes(q=(0.5,))
    assert bound == {"relative_error": 1 / 128, "absolute_error": 2.0**-30}


def test_torch_is_not_imported() -> None:
    """Names and parameters are known without torch, so that `hookql check` starts in a blink."""
    code = (
        "import sys; from hookql.statistics import STATISTICS;"
        "assert 'std' in STATISTICS and 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(set(STATISTICS) - RAW))
def test_rows_are_left_as_they_are(name: str, dtype: torch.dtype) -> None:
    """The rows may be the model's own activations: no accumulator writes into them."""
    statistic = STATISTICS[name]
    parameters = {p.name: p.default for p in statistic.parameters if p.default is not None}
    if name == "quantile":
        parameters["q"] = (0.5,)
    if name == "hist":
        parameters |= {"bins": 4, "lo": -1.0, "hi": 1.0}
    rows = torch.linspace(-3, 3, 60, dtype=dtype).reshape(12, 5)
    before = rows.clone()
    for grouped in (False, True):
        for state in accumulators([(statistic, parameters)], grouped=grouped).values():
            given: list[Any] = [rows]
            if grouped:
                given.append(Groups(np.arange(12) % 3, 3))
            if getattr(state, "places", False):
                given.append(Places(torch.arange(12), torch.arange(12)))
            state.update(*given)
            state.update(*given)
        assert torch.equal(before, rows)
