"""Every statistic on SmolLM2's massive activations, held to NumPy over all rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hookql
from tests.whole.alone import TEXTS, Told
from tests.whole.margins import Case, check, data_of

pytestmark = [pytest.mark.real_weights, pytest.mark.xdist_group("smollm2")]
SITE = "model.layers.11:output"  # where the outliers are the largest
QS = (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0)
CASES = {
    "moments": Case(
        "count, sum, mean, var, std, rms, min, max, skew, kurtosis, var(ddof=1) as var_1,"
        " std(x, 1) as std_1 from @resid_post[11]",
        None,
    ),
    "sketches": Case(
        f"quantile(x, {', '.join(map(str, QS))}) as quantiles, median,"
        " quantile(abs(x), 0.99) as high, median(norm(x)) as middle from @resid_post[11]",
        None,
    ),
    "bins": Case(
        "hist(x, 8, -2, 2) as hist, hist(norm(x), bins=4, lo=0, hi=1000) as norms"
        " from @resid_post[11]",
        None,
    ),
    "places": Case("top(x, k=4) as largest, bottom(x, k=3) as smallest from @resid_post[11]", None),
    "truths": Case("sum(x > 0) as number from @resid_post[11]", None),
    "few": Case("top(norm(x), k=500) as largest from @resid_post[11]", None),
    "ties": Case(
        "top(sign(x), 6) as largest, bottom(x > 0, 6) as smallest from @resid_post[11]", None
    ),
    "products": Case(
        "cov(x[0:20]) as cov, cov(x[0:20], ddof=1) as cov_1, corr(x[0:20]) as corr,"
        " gram(x[0:20]) as gram from @resid_post[11]",
        None,
    ),
    "heads": Case("gram(x) as gram, corr(x) as corr, skew, median from @k[10]", None),
    "pooled": Case(
        "mean, std, min, max, sum, skew, median from @resid_post[11] pool feature", None
    ),
    "per_head": Case("mean, std, kurtosis, max from @q[10] pool head", None),
    "layers": Case("mean, std, rms, max from @resid_post[0, 3, 11] pool layer", None),
    "all_pooled": Case("mean, std, max from @resid_post[0, 3, 11] pool layer, feature", None),
    "none_kept": Case(
        "count, mean, sum, min, median, skew, top(x, k=2) as largest, hist(x, 2, -1, 1) as hist,"
        " gram(x[0:2]) as gram from @resid_post[11] where position > 900",
        None,
    ),
    "one_row": Case(
        "count, mean, std, var(ddof=1) as var_1, median, skew, min, top(x, k=2) as largest,"
        " corr(x[0:2]) as corr from @resid_post[11] where sample == 6 and position == 3",
        None,
    ),
}


@pytest.fixture(scope="module")
def results(together: Any, smollm2: Any, told: Told) -> Any:
    """All statistics in one pass."""
    return together(smollm2, told, CASES)


def one(results: Any, name: str) -> Any:
    """A capture's dataset, without its one layer."""
    data = data_of(results[name])
    return data.isel(layer=0) if "layer" in data.dims else data


def margins_of(x: Any) -> tuple[Any, Any, Any]:
    """Of each feature the standard deviation, the margin of moments, and the largest |x|."""
    std, largest = x.std(0), np.abs(x).max(0)
    return std, np.maximum(1e-5 * std, 4e-7 * largest), largest


def moments(x: Any) -> dict[str, tuple[Any, Any]]:
    """Each moment of rows (n, ...) and its margin."""
    n = len(x)
    std, margin, largest = margins_of(x)
    squares = 2 * std * margin + margin**2
    deviation = np.where(std > 0, x - x.mean(0), np.nan)
    share = margin / std
    return {
        "sum": (x.sum(0), n * margin),
        "mean": (x.mean(0), margin),
        "var": (x.var(0), squares),
        "std": (std, margin),
        "rms": (np.sqrt((x**2).mean(0)), margin),
        "min": (x.min(0), 1e-5 * largest),
        "max": (x.max(0), 1e-5 * largest),
        "skew": (
            (deviation**3).mean(0) / std**3,
            10 * share * (np.abs(deviation / std) ** 3).mean(0),
        ),
        "kurtosis": (
            (deviation**4).mean(0) / std**4 - 3,
            10 * share * ((deviation / std) ** 4).mean(0),
        ),
        "var_1": (x.var(0, ddof=1), 2 * squares),
        "std_1": (x.std(0, ddof=1), 2 * margin),
    }


@pytest.mark.parametrize("name", moments(np.eye(3)))
def test_moments(name: str, results: Any, told: Told) -> None:
    """Sums, means, spreads, extremes and standardised moments of each feature."""
    x = told.rows[SITE]
    data = one(results, "moments")
    assert len(x) == int(data["count"])
    check(*insert(moments(x)[name], data[name]), name)


def insert(expected: tuple[Any, Any], actual: Any) -> tuple[Any, Any, Any]:
    """Expected, actual and margin in the order of `check`."""
    return expected[0], actual, expected[1]


def within_bound(x: Any, q: float, actual: Any, data: Any) -> None:
    """A quantile is within the stated error of the exact value of rank ceil(q n)."""
    exact = np.quantile(x, q, axis=0, method="inverted_cdf")
    error = float(data.attrs["relative_error"]) * np.abs(exact) + data.attrs["absolute_error"]
    if q in (0.0, 1.0):
        error = np.zeros(exact.shape)
    check(exact, actual, error + 1e-5 * np.abs(x).max(0), f"quantile {q}")


@pytest.mark.parametrize("q", QS)
def test_quantiles_are_within_the_stated_error(q: float, results: Any, told: Told) -> None:
    """Each feature's quantiles beside the exact ones, on a heavy tail."""
    x = told.rows[SITE]
    assert np.abs(x).max() > 10_000 * np.median(np.abs(x))
    data = one(results, "sketches")
    within_bound(x, q, data["quantiles"].sel(quantile=q), data["quantiles"])


def test_medians_and_quantiles_of_expressions(results: Any, told: Told) -> None:
    """`median` is the quantile at a half; a quantile of one number a row has no feature axis."""
    x = told.rows[SITE]
    data = one(results, "sketches")
    within_bound(x, 0.5, data["median"], data["median"])
    within_bound(np.abs(x), 0.99, data["high"].isel({data["high"].dims[-1]: 0}), data["high"])
    length = np.sqrt((x**2).sum(-1))
    within_bound(length, 0.5, data["middle"], data["middle"])


def counts_between(x: Any, edges: Any) -> tuple[Any, Any]:
    """How many values each bin has, underflow and overflow too, and how many lie on an edge."""
    where = np.searchsorted(edges, x, side="right")
    counts = np.stack([(where == bin_).sum(0) for bin_ in range(len(edges) + 1)], -1)
    near = (np.abs(x[..., None] - edges) < 1e-5 * np.abs(x).max(0)[..., None]).any(-1).sum(0)
    return counts, near


def test_histograms_have_bins_for_what_is_outside(results: Any, told: Told) -> None:
    """Counts of eight bins, one below and one above."""
    x = told.rows[SITE]
    edges = np.linspace(-2, 2, 9)
    data = one(results, "bins")
    expected, near = counts_between(x, edges)
    hist = data["hist"]
    assert np.int64 == hist.dtype
    assert (len(x) * np.ones(x.shape[1])).tolist() == hist.sum(hist.dims[-1]).values.tolist()
    check(expected, hist, near[:, None], "hist")
    length = np.sqrt((x**2).sum(-1))
    expected, near = counts_between(length, np.linspace(0, 1000, 5))
    check(expected, data["norms"], near, "norms")


def ranked(x: Any, k: int, largest: bool) -> tuple[Any, Any]:
    """Rows' indices (k, ...) in order of rank, earlier rows first among equals; their values."""
    order = np.argsort(-x if largest else x, axis=0, kind="stable")[:k]
    return order, np.take_along_axis(x, order, 0)


@pytest.mark.parametrize("name", ["largest", "smallest"])
def test_top_and_bottom_say_where_they_stand(name: str, results: Any, told: Told) -> None:
    """Values, sample, position, token id and text of the largest and the smallest."""
    x = told.rows[SITE]
    data = one(results, "places")
    k = {"largest": 4, "smallest": 3}[name]
    order, values = ranked(x, k + 1, name == "largest")
    check(values[:k].T, data[name], 1e-5 * np.abs(x).max(0)[:, None], name)
    # A place is sure where the next value on either side is farther than rounding.
    steps = np.abs(np.diff(values, axis=0)) > 2e-5 * np.abs(x).max(0)
    sure = steps & np.concatenate([np.ones((1, x.shape[1]), bool), steps[:-1]])
    assert sure.mean() > 0.9
    for column in ("sample", "position", "token"):
        expected = told[column][order[:k]].T
        actual = data[f"{name}_{column}"].values
        assert expected[sure.T].tolist() == actual[sure.T].tolist(), column
    for feature in range(0, x.shape[1], 97):
        for rank in np.flatnonzero(sure[:, feature]):
            (text,) = told.text(np.arange(len(x)) == order[rank, feature])
            assert text == str(data[f"{name}_text"].values[feature, rank])


def test_top_of_more_than_there_are_is_filled_up(results: Any, told: Told) -> None:
    """Past the last row the value is NaN and the place -1, the text empty."""
    length = np.sqrt((told.rows[SITE] ** 2).sum(-1))
    data = one(results, "few")
    n = len(length)
    check(np.sort(length)[::-1], data["largest"][:n], 1e-5 * length.max())
    assert np.isnan(data["largest"].values[n:]).all()
    for column in ("sample", "position", "token"):
        assert {-1} == set(data[f"largest_{column}"].values[n:].tolist())
    assert {""} == set(data["largest_text"].values[n:].tolist())


def test_ties_go_to_the_lower_sample_and_position(results: Any, told: Told) -> None:
    """Signs and truth values are almost all ties."""
    x = told.rows[SITE]
    sure = (np.abs(x) > 1e-5 * np.abs(x).max(0)).all(0)
    assert sure.mean() > 0.9
    data = one(results, "ties")
    for name, values, largest in (
        ("largest", np.sign(x), True),
        ("smallest", (x > 0) * 1.0, False),
    ):
        order, best = ranked(values, 6, largest)
        assert best.T[sure].tolist() == data[name].values[sure].tolist()
        for column in ("sample", "position", "token"):
            expected = told[column][order].T[sure].tolist()
            assert expected == data[f"{name}_{column}"].values[sure].tolist(), (name, column)


def products(x: Any) -> dict[str, tuple[Any, Any]]:
    """Covariances, correlations and Gram matrices of rows (n, F), and their margins."""
    n = len(x)
    std, margin, _ = margins_of(x)
    both = std[:, None] * margin + margin[:, None] * std
    share = margin / std
    rms = np.sqrt((x**2).mean(0))
    return {
        "cov": (np.cov(x.T, ddof=0), both),
        "cov_1": (np.cov(x.T, ddof=1), 2 * both),
        "corr": (np.corrcoef(x.T), 2 * (share[:, None] + share)),
        "gram": (x.T @ x, n * (rms[:, None] * margin + margin[:, None] * rms)),
    }


@pytest.mark.parametrize("name", ["cov", "cov_1", "corr", "gram"])
def test_products_of_features(name: str, results: Any, told: Told) -> None:
    """Covariance, correlation and Gram matrix of twenty features."""
    x = told.rows[SITE][:, :20]
    check(*insert(products(x)[name], one(results, "products")[name]), name)


@pytest.mark.parametrize("name", ["gram", "corr", "skew", "median"])
def test_statistics_of_heads_stand_apart(name: str, results: Any, told: Told) -> None:
    """Each of the three key heads has a matrix of its own."""
    keys = told.rows["model.layers.10.self_attn.k_proj:output"].reshape(-1, 3, 64)
    data = one(results, "heads")
    assert "head" == data[name].dims[0]
    for head in range(3):
        actual = data[name].isel(head=head)
        if name == "median":
            within_bound(keys[:, head], 0.5, actual, data["median"])
        else:
            expected = {**moments(keys[:, head]), **products(keys[:, head])}[name]
            check(*insert(expected, actual), name)


def test_pooling_features_heads_and_layers(results: Any, told: Told) -> None:
    """Pooled numbers are those of all values as one row after the other."""
    x = told.rows[SITE]
    data = one(results, "pooled")
    for name in ("mean", "std", "min", "max", "sum", "skew"):
        check(*insert(moments(x.reshape(-1))[name], data[name]), name)
    within_bound(x.reshape(-1), 0.5, data["median"], data["median"])
    queries = told.rows["model.layers.10.self_attn.q_proj:output"].reshape(-1, 64)
    data = one(results, "per_head")
    for name in ("mean", "std", "kurtosis", "max"):
        check(*insert(moments(queries)[name], data[name]), name)
    three = np.concatenate([told.rows[f"model.layers.{i}:output"] for i in (0, 3, 11)])
    data = one(results, "layers")
    for name in ("mean", "std", "rms", "max"):
        check(*insert(moments(three)[name], data[name]), name)
    data = one(results, "all_pooled")
    for name in ("mean", "std", "max"):
        check(*insert(moments(three.reshape(-1))[name], data[name]), name)


def test_layers_are_pooled_where_one_of_them_has_a_higher_moment_too() -> None:
    """The skewness that another capture asks of one layer does not matter to pooling."""
    pooled = "capture mean, std, max from @resid_post[*] pool layer as pooled"
    alone = hookql.run(pooled, texts=TEXTS).dataset
    beside = hookql.run(f"{pooled}\ncapture skew from @resid_post[1] as other", texts=TEXTS)
    for name in ("mean", "std", "max"):
        check(alone[name], data_of(beside["pooled"])[name], 1e-6 * alone["std"], name)


def test_a_sum_of_truth_values_counts_exactly(results: Any, told: Told) -> None:
    """`sum(x > 0)` counts: whole numbers, as promise 2 has counts exactly."""
    x = told.rows[SITE]
    expected, near = (x > 0).sum(0), (np.abs(x) < 1e-5 * np.abs(x).max(0)).sum(0)
    assert (near == 0).mean() > 0.9
    numbers = one(results, "truths")["number"].values
    assert np.round(numbers).tolist() == numbers.tolist()
    check(expected, numbers, near, "number")


def test_an_empty_selection_is_nan(results: Any) -> None:
    """Nothing kept: count 0, NaN, places -1, bins 0."""
    data = one(results, "none_kept")
    assert 0 == int(data["count"])
    for name in ("mean", "sum", "min", "median", "skew", "largest", "gram"):
        assert np.isnan(data[name].values).all(), name
    assert {-1} == set(data["largest_token"].values.ravel().tolist())
    assert {0} == set(data["hist"].values.ravel().tolist())


def test_one_row(results: Any, told: Told) -> None:
    """Of one row the spread is 0, and what divides by it NaN."""
    (x,) = told.rows[SITE][(told["sample"] == 6) & (told["position"] == 3)]
    data = one(results, "one_row")
    margin = 1e-5 * np.abs(told.rows[SITE]).max(0)
    assert 1 == int(data["count"])
    for name in ("mean", "min", "median"):
        check(x, data[name], margin, name)
    check(np.zeros(len(x)), data["std"], 0, "std")
    check(x, data["largest"][:, 0], margin, "top")
    for name in ("var_1", "skew", "corr"):
        assert np.isnan(data[name].values).all(), name
    assert np.isnan(data["largest"].values[:, 1]).all()
    assert TEXTS[6].startswith("She said that the")
    assert {" the"} == set(data["largest_text"].values[:, 0].tolist())
