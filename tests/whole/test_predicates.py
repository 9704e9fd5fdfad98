"""Every predicate column on SmolLM2 and MiniLM: which tokens are kept, by their places and sums."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import hookql
from tests.whole.alone import SAMPLES, TEXTS, Told, tell
from tests.whole.margins import check, data_of, gap, sum_of

SITE = "model.layers.3:output"
SMOLLM2 = [pytest.mark.real_weights, pytest.mark.xdist_group("smollm2")]
MINILM = [pytest.mark.real_weights, pytest.mark.xdist_group("minilm")]


def norm(x: Any) -> Any:
    """Euclidean norm of the last axis."""
    return np.sqrt((x**2).sum(-1))


def x(t: Told) -> Any:
    """The site's rows."""
    return t.rows[SITE]


def above(values: Any, share: float) -> Any:
    """Where values lie above the gap at that share; nothing undefined does."""
    with np.errstate(invalid="ignore"):
        return values > gap(values, share)


def inside(t: Told, pattern: str) -> Any:
    """Tokens whose characters overlap a match in their text."""
    found = np.zeros(len(t.spans), bool)
    for row, (sample, (start, stop)) in enumerate(zip(t["sample"], t.spans, strict=True)):
        for match in re.finditer(pattern, TEXTS[int(sample)]):
            found[row] |= start < match.end() and match.start() < stop and stop > start
    return found & ~t["special"]


def matches(t: Told, pattern: str) -> Any:
    """Tokens whose own text has a match."""
    return np.array([bool(re.search(pattern, s)) for s in t.text(t["token"] > -1)])


def ids(t: Told, text: str, exact: bool = False) -> list[int]:
    """The ids whose text is this one (space around it taken off unless exact)."""
    texts = [t.tokenizer.decode([i]) for i in range(len(t.tokenizer))]
    return [i for i, s in enumerate(texts) if (s if exact else s.strip()) == text]


# name -> (predicate, tokens kept); "{}" is a threshold in a gap of the values of the third
CAUSAL: dict[str, tuple[str, Any, Any]] = {
    "surprisal": ("surprisal > {}", lambda t, c: t["surprisal"] > c, lambda t: t["surprisal"]),
    "loss": ("loss <= {}", lambda t, c: t["loss"] <= c, lambda t: t["loss"]),
    "prob": ("prob >= {}", lambda t, c: t["prob"] >= c, lambda t: t["prob"]),
    "entropy": ("entropy > {}", lambda t, c: t["entropy"] > c, lambda t: t["entropy"]),
    "rank": ("rank < 10", lambda t, c: t["rank"] < 10, None),
    "first_guess": ("rank == 0", lambda t, c: t["guess"] == t["next"], None),
    "not_surprisal": (
        "not surprisal > {}",
        lambda t, c: t["surprisal"] <= c,
        lambda t: t["surprisal"],
    ),
    "undefined_or": (
        "surprisal > {} or position == 0",
        lambda t, c: (t["surprisal"] > c) | (t["position"] == 0),
        lambda t: t["surprisal"],
    ),
    "undefined_and": (
        "not (surprisal > {} and position > 2)",
        lambda t, c: ~((t["surprisal"] > c) & (t["position"] > 2)),
        lambda t: t["surprisal"],
    ),
    "undefined": ("surprisal == none", lambda t, c: t["position"] == 0, None),
    "defined": ("loss != none", lambda t, c: t["position"] < t["length"] - 1, None),
    "no_prev": ("prev == none", lambda t, c: t["position"] == 0, None),
    "signal_arithmetic": (
        "surprisal - entropy > {}",
        lambda t, c: t["surprisal"] - t["entropy"] > c,
        lambda t: t["surprisal"] - t["entropy"],
    ),
    "norm": ("norm(x) > {}", lambda t, c: norm(x(t)) > c, lambda t: norm(x(t))),
    "element": ("x[3] < {}", lambda t, c: x(t)[:, 3] < c, lambda t: x(t)[:, 3]),
    "extreme": ("argmax(x[:90]) < 45", lambda t, c: x(t)[:, :90].argmax(-1) < 45, None),
    "extreme_is": ("argmax(x[:9]) == 2", lambda t, c: x(t)[:, :9].argmax(-1) == 2, None),
    "values_between": (
        "20 < norm(x) + 0 * x[1] < {}",
        lambda t, c: (norm(x(t)) > 20) & (norm(x(t)) < c),
        lambda t: norm(x(t)),
    ),
    "value_and_signal": (
        'norm(x) > {} and surprisal > 3 and not within "York"',
        lambda t, c: (norm(x(t)) > c) & (t["surprisal"] > 3) & ~inside(t, "York"),
        lambda t: norm(x(t)),
    ),
    "value_or_undefined": (
        "norm(x) > {} or loss < 2",
        lambda t, c: (norm(x(t)) > c) | (t["loss"] < 2),
        lambda t: norm(x(t)),
    ),
    "within_text": ('within "New York"', lambda t, c: inside(t, "New York"), None),
    "within_part": ('within "ork is"', lambda t, c: inside(t, "ork is"), None),
    "within_regex": ("within /[0-9]{2}|th\\w+/", lambda t, c: inside(t, r"[0-9]{2}|th\w+"), None),
    "not_within": ('not within "the"', lambda t, c: ~inside(t, "the"), None),
    "token": ('token == "Paris"', lambda t, c: np.isin(t["token"], ids(t, "Paris")), None),
    "token_exact": (
        'token == " the"',
        lambda t, c: np.isin(t["token"], ids(t, " the", True)),
        None,
    ),
    "token_set": (
        'token in {"the", ",", 260}',
        lambda t, c: np.isin(t["token"], [*ids(t, "the"), *ids(t, ","), 260]),
        None,
    ),
    "token_not_in": (
        'token not in {"the"}',
        lambda t, c: ~np.isin(t["token"], ids(t, "the")),
        None,
    ),
    "token_regex": ("token ~ /^ ?[A-Z]/", lambda t, c: matches(t, "^ ?[A-Z]"), None),
    "prev": ('prev == "the"', lambda t, c: np.isin(t["prev"], ids(t, "the")), None),
    "next": (
        'next in {".", ","}',
        lambda t, c: np.isin(t["next"], ids(t, ".") + ids(t, ",")),
        None,
    ),
    "next_regex": (
        "next ~ /[.,?]/",
        lambda t, c: np.array(
            [
                not np.isnan(n) and bool(re.search("[.,?]", t.tokenizer.decode([int(n)])))
                for n in t["next"]
            ]
        ),
        None,
    ),
    "same": ("token == prev", lambda t, c: t["token"] == t["prev"], None),
    "different": (
        "next != token",
        lambda t, c: t["token"] < t["next"] + 1e9 * (t["next"] != t["token"]),
        None,
    ),
    "last": ("position == last", lambda t, c: t["position"] == t["length"] - 1, None),
    "from_end": ("position >= -3", lambda t, c: t["position"] >= t["length"] - 3, None),
    "length": ("length > 9", lambda t, c: t["length"] > 9, None),
    "sample": ("sample in {1, 3, 8}", lambda t, c: np.isin(t["sample"], [1, 3, 8]), None),
    "text_column": ('row.label != "place"', lambda t, c: t["row.label"] != "place", None),
    "text_regex": ("row.label ~ /^[po]/", lambda t, c: t["row.label"] != "fact", None),
    "number_column": ("row.w > 1", lambda t, c: t["row.w"] > 1, None),
    "truth_column": ("row.flag", lambda t, c: t["row.flag"], None),
    "not_truth_column": (
        "not row.flag and position > 0",
        lambda t, c: ~t["row.flag"] & (t["position"] > 0),
        None,
    ),
    "arithmetic": (
        "position * 2 < length - 1",
        lambda t, c: t["position"] * 2 < t["length"] - 1,
        None,
    ),
    "columns_and_values": (
        "norm(x) / length > {}",
        lambda t, c: norm(x(t)) / t["length"] > c,
        lambda t: norm(x(t)) / t["length"],
    ),
}
NAMES_CAUSAL = list(CAUSAL)


@pytest.fixture(scope="module")
def thresholds(told: Told) -> dict[str, float]:
    """A threshold in a gap for each predicate that takes one."""
    return {n: gap(v(told), 0.6) for n, (_, _, v) in CAUSAL.items() if v is not None}


@pytest.fixture(scope="module")
def results(smollm2: Any, thresholds: dict[str, float]) -> Any:
    """All predicates in one pass, two layers apart so that counts may differ."""
    filled = {n: p.replace("{}", str(thresholds.get(n))) for n, (p, _, _) in CAUSAL.items()}
    query = "\n".join(
        f"capture count, sum(x) as v from @resid_post[3] where {predicate} as {name}"
        for name, predicate in filled.items()
    )
    return hookql.run(query, model=smollm2, data=SAMPLES)


@pytest.mark.real_weights
@pytest.mark.xdist_group("smollm2")
@pytest.mark.parametrize("name", NAMES_CAUSAL)
def test_a_predicate_keeps_the_tokens_numpy_keeps(
    name: str, results: Any, told: Told, thresholds: dict[str, float]
) -> None:
    """The count and the sum of the rows that each predicate keeps."""
    with np.errstate(invalid="ignore"):
        kept = np.asarray(CAUSAL[name][1](told, thresholds.get(name, 0.0)), bool)
    assert 0 < kept.sum() < len(kept), "a test that cannot fail"
    data = data_of(results[name]).isel(layer=0)
    assert kept.sum() == int(data["count"])
    expected, margin = sum_of(x(told)[kept])
    check(expected, data["v"], np.maximum(margin, 4e-7 * np.abs(x(told)).max() * kept.sum()), name)


ENCODED: dict[str, tuple[str, Any]] = {
    "special": ("special", lambda t: t["special"]),
    "content": ("not special", lambda t: ~t["special"]),
    "content_position": ("content_position >= 2", lambda t: t["content_position"] >= 2),
    "content_last": (
        "content_position == -1",
        lambda t: t["content_position"] == t["content_length"] - 1,
    ),
    "content_undefined": ("content_position == none", lambda t: t["special"]),
    "cls": ("token == cls", lambda t: t["position"] == 0),
    "sep": ("token == sep", lambda t: t["position"] == t["length"] - 1),
    "not_sep": ("token != sep", lambda t: t["position"] < t["length"] - 1),
    "chunk": ("chunk == 1", lambda t: t["chunk"] == 1),
    "later_chunks": ("chunk > 0 and not special", lambda t: (t["chunk"] > 0) & ~t["special"]),
    "offset": ("offset >= 6", lambda t: t["offset"] >= 6),
    "place_in_document": (
        "offset + content_position == 7",
        lambda t: t["offset"] + t["content_position"] == 7,
    ),
    "later_offset": ("offset == 12", lambda t: t["offset"] == 12),
    "later_place": (
        "offset + content_position == 13",
        lambda t: t["offset"] + t["content_position"] == 13,
    ),
    "within_split": ('within "New York never"', lambda t: inside(t, "New York never")),
    "position": ("position < 3", lambda t: t["position"] < 3),
    "length": ("length < 8", lambda t: t["length"] < 8),
    "prev_in_context": ("prev == none", lambda t: t["position"] == 0),
    "word_piece": (
        'token == "iff"',
        lambda t: t["token"] == t.tokenizer.convert_tokens_to_ids("##iff"),
    ),
}


@pytest.fixture(scope="module")
def split(minilm: Any) -> tuple[Told, Any]:
    """MiniLM over texts split into contexts of eight tokens, and all predicates in one pass."""
    site = "encoder.layer.3:output"
    alone = tell(minilm.module, minilm.tokenizer, [site], max_length=8)
    query = "\n".join(
        f"capture count, sum(x) as v from @block[3] where {p} as {n}"
        for n, (p, _) in ENCODED.items()
    )
    return alone, hookql.run(query, model=minilm, data=SAMPLES, max_length=8, overflow="split")


@pytest.mark.real_weights
@pytest.mark.xdist_group("minilm")
@pytest.mark.parametrize("name", ENCODED)
def test_predicates_of_split_texts(name: str, split: Any) -> None:
    """Special tokens, chunks and offsets where long texts are split."""
    t, results = split
    assert t["chunk"].max() >= 2
    with np.errstate(invalid="ignore"):
        kept = np.asarray(ENCODED[name][1](t), bool)
    data = data_of(results[name]).isel(layer=0)
    assert kept.sum() == int(data["count"])
    assert 0 < kept.sum() < len(kept), "a test that cannot fail"
    rows = t.rows["encoder.layer.3:output"][kept]
    expected, margin = sum_of(rows)
    check(expected, data["v"], margin + 1e-5 * len(rows), name)


@pytest.mark.real_weights
@pytest.mark.xdist_group("smollm2")
def test_a_predicate_on_values_is_each_layers_own(smollm2: Any, told: Told) -> None:
    """`norm(x) > t` at two layers keeps different tokens: `count` and sums by layer."""
    rows = {i: told.rows[f"model.layers.{i}:output"] for i in (3, 10)}
    threshold = gap(np.concatenate([norm(r) for r in rows.values()]), 0.5)
    result = hookql.run(
        f"capture count, sum from @resid_post[3, 10] where norm(x) > {threshold}",
        model=smollm2,
        data=SAMPLES,
    )
    for layer, values in rows.items():
        kept = norm(values) > threshold
        data = result.dataset.sel(layer=layer)
        assert kept.sum() == int(data["count"])
        expected, margin = sum_of(values[kept])
        check(expected, data["sum"], margin + 4e-7 * np.abs(values).max() * kept.sum())
