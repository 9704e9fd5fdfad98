"""Attention weights with the eager attention: causal ones of SmolLM2, an encoder's of MiniLM."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hookql
from tests.whole.alone import SAMPLES, Told, tell
from tests.whole.margins import check, data_of

pytestmark = [pytest.mark.real_weights, pytest.mark.xdist_group("smollm2")]
LAYERS = (0, 5)
QUERY = "\n".join(
    [
        "capture mean, max, sum as total from @pattern[0, 5] as keys",
        "capture mean(x[key=0]) as sink, max(x[key=2]) as third from @pattern[0, 5] as named",
        "capture mean(entropy(x)) as spread, mean(argmax(x)) as peak, mean(norm(x, 1)) as mass"
        " from @pattern[0, 5] as whole",
        "capture mean(x[key=0]) as sink, mean(entropy(x)) as spread from @pattern[0, 5]"
        " by position as places",
        "capture mean from @pattern[0, 5] by position as squares",
        "capture mean(x[head=1]) as one from @pattern[0, 5] where position >= 2 as later",
        "capture mean(x[key=0]) as sink from @pattern[0, 5] pool head as pooled",
        'capture mean(x[key=0] > 0.5) as share from @pattern[0, 5] where token != "the" as truth',
    ]
)


@pytest.fixture(scope="module", params=["smollm2", "minilm"])
def case(request: Any) -> tuple[Told, Any, bool]:
    """What the model told, the results, and whether it is causal."""
    model = request.getfixturevalue(f"eager_{request.param}")
    told = tell(model.module, model.tokenizer, [], patterns=LAYERS)
    return told, hookql.run(QUERY, model=model, data=SAMPLES), request.param == "smollm2"


def weights(told: Told, layer: int) -> list[Any]:
    """For each text (H, S, S)."""
    return [pattern[str(layer)] for pattern in told.patterns]


def by_query(told: Told, layer: int, of: Any) -> Any:
    """A number for each head of every query, (N, H): ``of`` (H, S, S) gives (H, S)."""
    return np.concatenate([of(w).T for w in weights(told, layer)])


def key_of(number: int) -> Any:
    """The weight of one key, NaN where the text or a causal query does not reach it."""

    def of(w: Any, causal: bool) -> Any:
        if w.shape[-1] <= number:
            return np.full(w.shape[:2], np.nan)
        found = w[:, :, number].copy()
        if causal:
            found[:, :number] = np.nan
        return found

    return of


def entropy(w: Any) -> Any:
    """Entropy of each query's weights, (H, S)."""
    return -(w * np.log(np.where(w > 0, w, 1))).sum(-1)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_named_key(layer: int, case: Any) -> None:
    """`x[key=0]` of every query; `x[key=2]` of the queries that see it."""
    told, results, causal = case
    data = data_of(results["named"]).sel(layer=layer)
    sink = by_query(told, layer, lambda w: key_of(0)(w, causal))
    check(sink.mean(0), data["sink"], 1e-5, "sink")
    third = by_query(told, layer, lambda w: key_of(2)(w, causal))
    seen = ~np.isnan(third[:, 0])
    check(third[seen].max(0), data["third"], 1e-5, "third")


@pytest.mark.parametrize("layer", LAYERS)
def test_reductions_over_keys(layer: int, case: Any) -> None:
    """Entropy, argmax and mass of each query's weights."""
    told, results, _ = case
    data = data_of(results["whole"]).sel(layer=layer)
    check(by_query(told, layer, entropy).mean(0), data["spread"], 1e-5, "spread")
    check(by_query(told, layer, lambda w: w.argmax(-1)).mean(0), data["peak"], 1e-9, "peak")
    check(np.ones(weights(told, layer)[0].shape[0]), data["mass"], 1e-5, "mass")


def visible(told: Told, layer: int, causal: bool, keep: Any = None) -> dict[int, Any]:
    """The weights of each key, (n, H), of the queries that see it and are kept."""
    found: dict[int, list[Any]] = {}
    for w in weights(told, layer):
        for key in range(w.shape[-1]):
            for query in range(key if causal else 0, w.shape[-1]):
                if keep is None or keep(query):
                    found.setdefault(key, []).append(w[:, query, key])
    return {key: np.array(rows) for key, rows in found.items()}


@pytest.mark.parametrize("layer", LAYERS)
def test_each_key_pools_the_queries_that_see_it(layer: int, case: Any) -> None:
    """Mean, maximum and sum by key."""
    told, results, causal = case
    data = data_of(results["keys"]).sel(layer=layer)
    assert ("head", "key") == data["mean"].dims
    found = visible(told, layer, causal)
    assert list(found) == list(range(data.sizes["key"]))
    for key, rows in found.items():
        actual = data.isel(key=key)
        check(rows.mean(0), actual["mean"], 1e-5, f"key {key}")
        check(rows.max(0), actual["max"], 1e-5, f"key {key}")
        check(rows.sum(0), actual["total"], 1e-5 * len(rows), f"key {key}")
    later = visible(told, layer, causal, lambda query: query >= 2)
    one = data_of(results["later"]).sel(layer=layer)["one"]
    expected = [rows[:, 1].mean() for rows in later.values()]
    check(expected, one, 1e-5, "one head")


@pytest.mark.parametrize("layer", LAYERS)
def test_patterns_by_position(layer: int, case: Any) -> None:
    """A query position and a key make a square; causal ones have nothing above the diagonal."""
    told, results, causal = case
    places = data_of(results["places"]).sel(layer=layer)
    square = data_of(results["squares"]).sel(layer=layer)["mean"]
    assert ("position", "head", "key") == square.dims
    for position in places["position"].values.tolist():
        rows = [w[:, position] for w in weights(told, layer) if w.shape[-1] > position]
        sink = np.array([row[:, 0] for row in rows])
        check(sink.mean(0), places["sink"].sel(position=position), 1e-5, "sink")
        spread = np.array([entropy(row[:, None])[:, 0] for row in rows])
        check(spread.mean(0), places["spread"].sel(position=position), 1e-5, "spread")
        expected = np.full((rows[0].shape[0], square.sizes["key"]), np.nan)
        for key in range(position + 1 if causal else square.sizes["key"]):
            seen = [row[:, key] for row in rows if row.shape[-1] > key]
            if seen:
                expected[:, key] = np.mean(seen, 0)
        check(expected, square.sel(position=position), 1e-5, f"position {position}")


@pytest.mark.parametrize("layer", LAYERS)
def test_heads_pooled_and_truth_of_a_key(layer: int, case: Any) -> None:
    """Pooling heads, and a share of queries, with a predicate on tokens."""
    told, results, causal = case
    sink = by_query(told, layer, lambda w: key_of(0)(w, causal))
    check(sink.mean(), data_of(results["pooled"]).sel(layer=layer)["sink"], 1e-5)
    texts = [text.strip() for text in told.text(told["token"] > -1)]
    kept = np.array([text != "the" for text in texts])
    near = (np.abs(sink[kept] - 0.5) < 1e-5).mean(0)
    data = data_of(results["truth"]).sel(layer=layer)
    assert kept.sum() == int(data["count"])
    check((sink[kept] > 0.5).mean(0), data["share"], near + 1e-6)
