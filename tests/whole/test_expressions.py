"""Every operator and function of value expressions, on SmolLM2's tenth block and on its heads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import hookql
from tests.whole.alone import SAMPLES, Told
from tests.whole.margins import Case, Truth, check, data_of, mean_of, softmax, sum_of

pytestmark = [pytest.mark.real_weights, pytest.mark.xdist_group("smollm2")]
BLOCK = "model.layers.10"


def i(t: Told) -> Any:
    """The block's input."""
    return t.rows[f"{BLOCK}:input"]


def o(t: Told) -> Any:
    """The block's output, `x`."""
    return t.rows[f"{BLOCK}:output"]


def q(t: Told) -> Any:
    """Queries by head, (N, 9, 64)."""
    return t.rows[f"{BLOCK}.self_attn.q_proj:output"].reshape(-1, 9, 64)


def norm(x: Any) -> Any:
    """Euclidean norm of the last axis."""
    return np.sqrt((x**2).sum(-1))


def undefined(column: Any, values: Any) -> Any:
    """Values, NaN where the column is undefined."""
    return np.where(np.isnan(column), np.nan, values)


def over(values: Any, threshold: float, truth: Any) -> Truth:
    """Truth of a comparison with a threshold; values within rounding of it may be either."""
    return Truth(truth, np.abs(values - threshold), 1e-5 * np.abs(values).max(0))


def largest(t: Told) -> Any:
    """Of each feature 1e-5 of its largest number, on either side of the block."""
    return 1e-5 * np.maximum(np.abs(i(t)).max(0), np.abs(o(t)).max(0))


# value expression on @block[10] -> what it is of each row
VALUES: dict[str, tuple[str, Any]] = {
    "plain": ("x", o),
    "plus": ("input + output", lambda t: i(t) + o(t)),
    "minus": ("output - input", lambda t: o(t) - i(t)),
    "times": ("input * output", lambda t: i(t) * o(t)),
    "divided": ("x / 3", lambda t: o(t) / 3),
    "quotient": ("input / (1 + abs(output))", lambda t: i(t) / (1 + np.abs(o(t)))),
    "power": ("x ** 2", lambda t: o(t) ** 2),
    "cube": ("x ** 3", lambda t: o(t) ** 3),
    "negative": ("-x", lambda t: -o(t)),
    "minus_power": ("-x ** 2", lambda t: -(o(t) ** 2)),
    "power_tower": ("2 ** 3 ** 2 * x[0]", lambda t: 512 * o(t)[:, 0]),
    "left_minus": ("10 - x[0] - x[1]", lambda t: 10 - o(t)[:, 0] - o(t)[:, 1]),
    "greater": ("x > 0.5", lambda t: over(o(t), 0.5, o(t) > 0.5)),
    "at_least": ("x >= 0.5", lambda t: over(o(t), 0.5, o(t) >= 0.5)),
    "less": ("x < -0.25", lambda t: over(o(t), -0.25, o(t) < -0.25)),
    "at_most": ("x <= 0", lambda t: over(o(t), 0, o(t) <= 0)),
    "equal": ("x == x", lambda t: Truth(o(t) == o(t))),
    "unequal": ("input != output", lambda t: over(i(t) - o(t), 0, i(t) != o(t))),
    "chain": (
        "-1 < x < 1",
        lambda t: Truth((o(t) > -1) & (o(t) < 1), np.abs(np.abs(o(t)) - 1), largest(t)),
    ),
    "both": (
        "x > 0 and input > 0",
        lambda t: Truth(
            (o(t) > 0) & (i(t) > 0), np.minimum(np.abs(o(t)), np.abs(i(t))), largest(t)
        ),
    ),
    "either": (
        "x > 1 or not input > -1",
        lambda t: Truth(
            (o(t) > 1) | ~(i(t) > -1),
            np.minimum(np.abs(o(t) - 1), np.abs(i(t) + 1)),
            largest(t),
        ),
    ),
    "abs_": ("abs(x)", lambda t: np.abs(o(t))),
    "sqrt_": ("sqrt(abs(x) + 1)", lambda t: np.sqrt(np.abs(o(t)) + 1)),
    "square_": ("square(x)", lambda t: o(t) ** 2),
    "exp_": ("exp(clip(x, -2, 2))", lambda t: np.exp(np.clip(o(t), -2, 2))),
    "log_": ("log(abs(x) + 1)", lambda t: np.log(np.abs(o(t)) + 1)),
    "relu_": ("relu(x)", lambda t: np.maximum(o(t), 0)),
    "sign_": ("sign(x)", lambda t: Truth(np.sign(o(t)), np.abs(o(t)), largest(t), 1e-6)),
    "clip_": ("clip(x, -0.5, 1.5)", lambda t: np.clip(o(t), -0.5, 1.5)),
    "clip_named": ("clip(x, lo=-0.5, hi=1.5)", lambda t: np.clip(o(t), -0.5, 1.5)),
    "isfinite_": ("isfinite(x)", lambda t: Truth(np.ones(o(t).shape))),
    "isnan_": ("isnan(x)", lambda t: Truth(np.zeros(o(t).shape))),
    "root_of_negative": ("isnan(sqrt(x))", lambda t: over(o(t), 0, o(t) < 0)),
    "one": ("x[7]", lambda t: o(t)[:, 7]),
    "last": ("x[-1]", lambda t: o(t)[:, -1]),
    "range_": ("x[5:8]", lambda t: o(t)[:, 5:8]),
    "tail": ("x[-3:]", lambda t: o(t)[:, -3:]),
    "stepped": ("x[::100]", lambda t: o(t)[:, ::100]),
    "some": ("x[[5, 99]]", lambda t: o(t)[:, [5, 99]]),
    "by_name": ("x[feature=7]", lambda t: o(t)[:, 7]),
    "length_": ("norm(x)", lambda t: norm(o(t))),
    "norm_1": ("norm(x, 1)", lambda t: np.abs(o(t)).sum(-1)),
    "norm_3": ("norm(x, p=3)", lambda t: (np.abs(o(t)) ** 3).sum(-1) ** (1 / 3)),
    "difference": ("norm(output - input)", lambda t: norm(o(t) - i(t))),
    "dot_": ("dot(input, output)", lambda t: (i(t) * o(t)).sum(-1)),
    "cos_": (
        "cos(input, output)",
        lambda t: (i(t) * o(t)).sum(-1) / norm(i(t)) / norm(o(t)),
    ),
    # Feature 507 is the largest of nearly every row; among the first hundred it is another each.
    "argmax_": ("argmax(x[:100])", lambda t: Truth(o(t)[:, :100].argmax(-1))),
    "argmax_is": (
        "argmax(abs(x[:100])) == argmax(abs(input[:100]))",
        lambda t: Truth(np.abs(o(t)[:, :100]).argmax(-1) == np.abs(i(t)[:, :100]).argmax(-1)),
    ),
    "argmax_number": ("argmax(x[:20]) == 12", lambda t: Truth(o(t)[:, :20].argmax(-1) == 12)),
    "softmax_": ("softmax(x / 10)", lambda t: softmax(o(t) / 10)),
    "entropy_": (
        "entropy(softmax(x / 10))",
        lambda t: -(softmax(o(t) / 10) * np.log(softmax(o(t) / 10))).sum(-1),
    ),
    "kl_": (
        "kl(softmax(input / 10), softmax(output / 10))",
        lambda t: (
            softmax(i(t) / 10) * (np.log(softmax(i(t) / 10)) - np.log(softmax(o(t) / 10)))
        ).sum(-1),
    ),
    "broadcast": ("x[0:4] * norm(x)", lambda t: o(t)[:, :4] * norm(o(t))[:, None]),
    "unit": ("x / norm(x)", lambda t: o(t) / norm(o(t))[:, None]),
    "with_position": ("x[0] * position", lambda t: o(t)[:, 0] * t["position"]),
    "with_length": ("norm(x) / length", lambda t: norm(o(t)) / t["length"]),
    "with_number": ("x[0:3] * row.w", lambda t: o(t)[:, :3] * t["row.w"][:, None]),
    "with_truth": (
        "x > 0.5 and position > 3",
        lambda t: over(o(t), 0.5, (o(t) > 0.5) & (t["position"] > 3)[:, None]),
    ),
    "with_text": (
        'row.label == "place" and norm(x) > 0',
        lambda t: Truth(t["row.label"] == "place"),
    ),
    "with_set": (
        "token in {260, 28} and norm(x) > 0",
        lambda t: Truth(np.isin(t["token"], [260, 28])),
    ),
    "with_regex": (
        "x[3] > 0 or token ~ /^ ?[A-Z]/",
        lambda t: over(
            o(t)[:, 3],
            0,
            (o(t)[:, 3] > 0) | [bool(re.search("^ ?[A-Z]", s)) for s in t.text(t["token"] > -1)],
        ),
    ),
    "with_entropy": ("x[0] * entropy", lambda t: o(t)[:, 0] * t["entropy"]),
    "column_alone": ("entropy + 0 * x[0]", lambda t: t["entropy"]),
}
HEADS: dict[str, tuple[str, Any]] = {
    "head_plain": ("x", q),
    "head_one": ("x[head=3]", lambda t: q(t)[:, 3]),
    "head_last": ("x[head=-1]", lambda t: q(t)[:, -1]),
    "head_two": ("x[head=2:4]", lambda t: q(t)[:, 2:4]),
    "head_some": ("x[head=[0, 5]]", lambda t: q(t)[:, [0, 5]]),
    "head_feature": ("x[9]", lambda t: q(t)[:, :, 9]),
    "head_norm": ("norm(x)", lambda t: norm(q(t))),
    "head_broadcast": ("x * norm(x)", lambda t: q(t) * norm(q(t))[..., None]),
    "head_cos": (
        "cos(x[head=0], x[head=1])",
        lambda t: (q(t)[:, 0] * q(t)[:, 1]).sum(-1) / norm(q(t)[:, 0]) / norm(q(t)[:, 1]),
    ),
    "head_twice": ("x[head=3][9]", lambda t: q(t)[:, 3, 9]),
    "head_to_one": ("dot(x, x[head=0])", lambda t: (q(t) * q(t)[:, :1]).sum(-1)),
}
CASES = {
    **{
        n: Case(f"mean({v}) as v, sum({v}) as s from @block[10]", f) for n, (v, f) in VALUES.items()
    },
    **{n: Case(f"mean({v}) as v, sum({v}) as s from @q[10]", f) for n, (v, f) in HEADS.items()},
}
# Undefined at some tokens: those rows are dropped for this statistic alone.
PARTIAL: dict[str, tuple[str, Any]] = {
    "with_surprisal": ("x[0] * surprisal", lambda t: o(t)[:, 0] * t["surprisal"]),
    "with_loss": ("norm(x) * loss", lambda t: norm(o(t)) * t["loss"]),
    "with_prob": ("x[0:2] * prob", lambda t: o(t)[:, :2] * t["prob"][:, None]),
    "is_next": (
        "argmax(x) == next or x[0] > 0",
        lambda t: undefined(t["next"], (o(t).argmax(-1) == t["next"]) | (o(t)[:, 0] > 0)),
    ),
    "is_prev": (
        "token == prev and norm(x) > 0",
        lambda t: undefined(t["prev"], t["token"] == t["prev"]),
    ),
}
CASES |= {n: Case(f"mean({v}) as v from @block[10]", f) for n, (v, f) in PARTIAL.items()}


@pytest.fixture(scope="module")
def results(together: Any, smollm2: Any, told: Told) -> Any:
    """All expressions in one pass."""
    return together(smollm2, told, CASES)


@pytest.mark.parametrize("name", [*VALUES, *HEADS])
def test_an_expression_is_what_numpy_makes_of_it(name: str, results: Any, told: Told) -> None:
    """The mean and the sum of each expression over all tokens."""
    rows = CASES[name].expected(told)
    data = data_of(results[name]).isel(layer=0)
    assert len(told["token"]) == int(data["count"])
    expected, margin = mean_of(rows)
    check(expected, data["v"], margin, name)
    expected, margin = sum_of(rows)
    check(expected, data["s"], margin, name)


@pytest.mark.parametrize("name", PARTIAL)
def test_where_a_column_is_undefined_a_statistic_drops_the_row(
    name: str, results: Any, told: Told
) -> None:
    """`surprisal`, `next` and the like are undefined at one token a text: fewer rows, and said."""
    rows = np.asarray(CASES[name].expected(told))
    whole = ~np.isnan(rows.reshape(len(rows), -1)).any(-1)
    expected, margin = mean_of(rows[whole])
    data = data_of(results[name]).isel(layer=0)
    assert len(told["token"]) == int(data["count"])
    assert whole.sum() == int(data["v_count"])
    check(expected, data["v"], margin, name)


def test_a_truth_column_stands_beside_values(told: Told, smollm2: Any) -> None:
    """`row.flag` is true or false by itself, as in `where`."""
    query = "capture sum(x > 0 and row.flag) as number from @resid_post[3]"
    rows = told.rows["model.layers.3:output"]
    near = (np.abs(rows) < 1e-5 * np.abs(rows).max(0)).sum(0)
    result = hookql.run(query, model=smollm2, data=SAMPLES).dataset.isel(layer=0)
    check(((rows > 0) & told["row.flag"][:, None]).sum(0), result["number"], near, "number")
