"""Every group key, alone and in pairs, held to NumPy's own grouping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hookql
from tests.whole.alone import SAMPLES, Told, tell
from tests.whole.margins import check, data_of

FIRST, SITE = "encoder.layer.0:output", "encoder.layer.3:output"
pytestmark = [pytest.mark.real_weights, pytest.mark.xdist_group("minilm")]
# name -> keys as columns of what was told
KEYS: dict[str, tuple[str, ...]] = {
    "position": ("position",),
    "content_position": ("content_position",),
    "sample": ("sample",),
    "token": ("token",),
    "prev": ("prev",),
    "next": ("next",),
    "chunk": ("chunk",),
    "label": ("row.label",),
    "number": ("row.w",),
    "flag": ("row.flag",),
    "two": ("row.label", "position"),
    "two_ids": ("prev", "next"),
    "two_rows": ("row.flag", "row.w"),
    "sample_chunk": ("sample", "chunk"),
    "three": ("row.label", "row.flag", "chunk"),
}
STATISTICS = (
    "count, sum, mean, std, min, max, rms, median(x[0:3]) as middle,"
    " mean(norm(x)) as length, gram(x[0:3]) as gram, hist(x[0:3], 2, -0.5, 0.5) as bins,"
    " quantile(x[0:3], 0.9) as high, cov(x[0:3]) as cov, sum(x > 0) as positive"
)
POOLED = "count, sum, mean, std, var(ddof=1) as var_1, min, max, rms, median"
# Means and spreads come of another accumulator where these stand beside them.
SHAPES = "skew, kurtosis"
SHAPED = ("label", "two", "sample", "chunk")
RANKED = ("position", "two", "sample_chunk", "flag")  # these with their largest too
NAN_OF_NONE = (
    *("sum", "mean", "std", "min", "max", "rms"),
    *("middle", "length", "gram", "high", "cov", "positive"),
)


@pytest.fixture(scope="module")
def split(minilm: Any) -> Told:
    """MiniLM over texts split into contexts of ten tokens."""
    return tell(minilm.module, minilm.tokenizer, [FIRST, SITE], max_length=10)


@pytest.fixture(scope="module")
def results(minilm: Any) -> Any:
    """All keys in one pass."""
    query = "\n".join(
        f"capture {STATISTICS}{', top(x[0:3], k=2) as largest' if name in RANKED else ''}"
        f"{f', {SHAPES}' if name in SHAPED else ''}"
        f" from @block[3] by {', '.join(keys)} as {name}_groups"
        for name, keys in KEYS.items()
    )
    query += f"\ncapture {POOLED} from @block[3] by row.label, chunk pool feature as pooled"
    query += f"\ncapture {POOLED} from @block[0, 3] by row.label, chunk pool layer as layers"
    for pool in ("feature", "layer"):
        query += f"\ncapture {POOLED}, {SHAPES} from @block[0, 3] where position >= 0"
        query += f" by row.label, chunk pool {pool} as {pool}_shapes"
    return hookql.run(query, model=minilm, data=SAMPLES, max_length=10, overflow="split")


def groups_of(t: Told, keys: tuple[str, ...]) -> tuple[list[Any], Any]:
    """The sorted values that occur of each key, and a mask of the tokens that have all keys."""
    defined = np.ones(len(t["token"]), bool)
    for key in keys:
        if t[key].dtype.kind == "f":
            defined &= ~np.isnan(t[key])
    return [sorted(set(t[key][defined].tolist())) for key in keys], defined


@pytest.mark.parametrize("name", KEYS)
def test_groups_are_numpys(name: str, results: Any, split: Told) -> None:
    """Coordinates, counts and statistics of each group; count 0 and NaN where nothing fell."""
    keys = KEYS[name]
    data = data_of(results[f"{name}_groups"]).isel(layer=0)
    values, defined = groups_of(split, keys)
    dims = [key.removeprefix("row.") for key in keys]
    assert dims == [d for d in data["mean"].dims if d != "feature"]
    for dim, occurring in zip(dims, values, strict=True):
        assert occurring == data[dim].values.tolist(), dim
    data = data.transpose(*dims, ...)
    counts = np.zeros([len(v) for v in values], int)
    codes = [np.searchsorted(v, split[key][defined]) for key, v in zip(keys, values, strict=True)]
    np.add.at(counts, tuple(codes), 1)
    assert counts.tolist() == data["count"].values.tolist()
    for statistic in NAN_OF_NONE:
        assert np.isnan(data[statistic].values[counts == 0]).all(), statistic
    assert 0 == data["bins"].values[counts == 0].sum()
    x = split.rows[SITE]
    for place in map(tuple, np.argwhere(counts)):
        kept = defined.copy()
        for key, which, occurring in zip(keys, place, values, strict=True):
            kept &= split[key] == occurring[which]
        one = data.isel(dict(zip(dims, map(int, place), strict=True)))
        compare(one, x[kept], {c: split[c][kept] for c in ("sample", "position", "token")})


def compare(one: Any, rows: Any, places: Any) -> None:
    """A group's statistics against those of its rows (n, F)."""
    n = len(rows)
    # A group is small: rows themselves are the same to 1e-5 of the largest |x|.
    margin = np.maximum(1e-5 * rows.std(0), 1e-6 * np.abs(rows).max())
    check(rows.sum(0), one["sum"], n * margin, "sum")
    check(rows.mean(0), one["mean"], margin, "mean")
    check(rows.std(0), one["std"], margin, "std")
    check(rows.min(0), one["min"], margin, "min")
    check(rows.max(0), one["max"], margin, "max")
    check(np.sqrt((rows**2).mean(0)), one["rms"], margin, "rms")
    near = (np.abs(rows) < 1e-6 * np.abs(rows).max()).sum(0)
    check((rows > 0).sum(0), one["positive"], near, "positive")
    length = np.sqrt((rows**2).sum(-1))
    check(length.mean(), one["length"], 1e-5 * length.max(), "length")
    for name, q in (("middle", 0.5), ("high", 0.9)):
        exact = np.quantile(rows[:, :3], q, axis=0, method="inverted_cdf")
        actual = one[name].values.reshape(exact.shape)
        check(exact, actual, np.abs(exact) / 128 + 2e-6 * np.abs(rows).max(), name)
    check(rows[:, :3].T @ rows[:, :3], one["gram"], 1e-5 * (rows**2).sum(), "gram")
    centred = rows[:, :3] - rows[:, :3].mean(0)
    check(centred.T @ centred / n, one["cov"], 1e-5 * (rows**2).mean(0).max(), "cov")
    near = (np.abs(np.abs(rows[:, :3]) - 0.5) < 1e-5).sum() + (np.abs(rows[:, :3]) < 1e-5).sum()
    where = np.searchsorted([-0.5, 0.0, 0.5], rows[:, :3], side="right")
    bins = np.stack([(where == b).sum(0) for b in range(4)], -1)
    check(bins, one["bins"], near, "bins")
    if "largest" in one:
        ranked(one, rows, places)
    if n > 5 and "skew" in one:
        z = (rows - rows.mean(0)) / rows.std(0)
        slack = 50 * margin / rows.std(0)
        check((z**3).mean(0), one["skew"], slack, "skew")
        check((z**4).mean(0) - 3, one["kurtosis"], 2 * slack * (1 + np.abs(z).max(0)), "kurtosis")


def ranked(one: Any, rows: Any, places: Any) -> None:
    """The two largest of the first three features, and where they stand."""
    n = len(rows)
    order = np.argsort(-rows[:, :3], axis=0, kind="stable")[:2]
    best = np.take_along_axis(rows[:, :3], order, 0)
    got = one["largest"].values.T
    check(best, got[: len(best)], 1e-5 * np.abs(rows).max(), "largest")
    assert np.isnan(got[len(best) :]).all()
    if n > 2 and np.diff(np.sort(rows[:, :3], axis=0), axis=0).min() > 1e-5:
        for column in ("sample", "token", "position"):
            expected = places[column][order].T.tolist()
            assert expected == one[f"largest_{column}"].values.tolist(), column


@pytest.mark.parametrize("name", ["pooled", "layers", "feature_shapes", "layer_shapes"])
def test_groups_with_features_or_layers_pooled(name: str, results: Any, split: Told) -> None:
    """All features of a row, or the rows of both layers, as rows of their group; tokens once."""
    data = data_of(results[name])
    data = data.sel(layer=3) if "layer" in data.dims else data
    for label in ("place", "other", "fact"):
        for chunk in (0, 1):
            kept = (split["row.label"] == label) & (split["chunk"] == chunk)
            x = split.rows[SITE][kept]
            both = np.concatenate([split.rows[FIRST][kept], x])
            x = x.reshape(-1) if name in ("pooled", "feature_shapes") else both
            one = data.sel(label=label, chunk=chunk)
            assert kept.sum() == int(one["count"])
            pooled(one, x)


def pooled(one: Any, x: Any) -> None:
    """A group's statistics against those of x (n, ...)."""
    n = len(x)
    if not n:
        assert np.isnan(one["mean"].values).all()
        return
    margin = np.maximum(1e-5 * x.std(0), 1e-6 * np.abs(x).max())
    check(x.sum(0), one["sum"], n * margin, "sum")
    check(x.mean(0), one["mean"], margin, "mean")
    check(x.std(0), one["std"], margin, "std")
    check(x.var(0, ddof=1), one["var_1"], 4 * x.std(0) * margin, "var_1")
    check(np.sqrt((x**2).mean(0)), one["rms"], margin, "rms")
    check(x.min(0), one["min"], margin, "min")
    check(x.max(0), one["max"], margin, "max")
    exact = np.quantile(x, 0.5, axis=0, method="inverted_cdf")
    check(exact, one["median"], np.abs(exact) / 128 + 2e-6 * np.abs(x).max(), "median")
    if "skew" in one:
        z = (x - x.mean(0)) / x.std(0)
        slack = 10 * margin / x.std(0)
        check((z**3).mean(0), one["skew"], slack * (1 + (np.abs(z) ** 3).mean(0)), "skew")
        check((z**4).mean(0) - 3, one["kurtosis"], slack * (1 + (z**4).mean(0)), "kurtosis")
