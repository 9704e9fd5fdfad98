"""What must not matter: batch size, padding side, order; and bfloat16 beside its own numbers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import hookql
from tests.weights import smollm2_folder
from tests.whole.alone import SAMPLES, Told, tell
from tests.whole.margins import check, data_of, mean_of

pytestmark = [pytest.mark.real_weights, pytest.mark.xdist_group("smollm2")]
SITE = "model.layers.3:output"
QUERY = "\n".join(
    [
        "capture count, mean, std, max from @resid_post[3] where surprisal > 3 as surprising",
        "capture mean(norm(x)) as v, top(norm(x), k=3) as largest from @resid_post[3] as lengths",
        "capture mean(x[0:5]) as v from @resid_post[3] by row.label, position as groups",
    ]
)


def agrees(results: Any, t: Told, resolution: float) -> None:
    """All of the query against one text at a time; ``resolution`` is the dtype's."""
    x = t.rows[SITE]
    length = np.sqrt((x**2).sum(-1))
    with np.errstate(invalid="ignore"):
        kept = t["surprisal"] > 3
    data = data_of(results["surprising"]).isel(layer=0)
    assert kept.sum() == int(data["count"])
    expected, margin = mean_of(x[kept], resolution)
    check(expected, data["mean"], margin, "mean")
    check(x[kept].std(0), data["std"], margin, "std")
    largest = np.abs(x).max()
    check(x[kept].max(0), data["max"], max(1e-5, resolution) * largest, "max")
    data = data_of(results["lengths"]).isel(layer=0)
    check(length.mean(), data["v"], max(1e-5, resolution) * length.max(), "length")
    order = np.argsort(-length, kind="stable")[:3]
    check(length[order], data["largest"], max(1e-5, resolution) * length.max(), "largest")
    if np.abs(np.diff(np.sort(length)[-4:])).min() > 2 * max(1e-5, resolution) * length.max():
        assert t["sample"][order].tolist() == data["largest_sample"].values.tolist()
        assert t["token"][order].tolist() == data["largest_token"].values.tolist()
    data = data_of(results["groups"]).isel(layer=0)
    for label in data["label"].values.tolist():
        for position in data["position"].values.tolist():
            rows = x[(t["row.label"] == label) & (t["position"] == position), :5]
            one = data.sel(label=label, position=position)
            assert len(rows) == int(one["count"])
            if len(rows):
                check(
                    rows.mean(0), one["v"], max(1e-6, resolution) * largest, f"{label} {position}"
                )


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_does_not_matter(batch_size: int, smollm2: Any, told: Told) -> None:
    """One text a batch and seven; the other tests take as many as HookQL likes."""
    agrees(hookql.run(QUERY, model=smollm2, data=SAMPLES, batch_size=batch_size), told, 1e-6)


def test_a_tokenizer_that_pads_on_the_left(smollm2: Any, told: Told) -> None:
    """The tokenizer's own padding side changes nothing, and stays what it was."""
    tokenizer = copy.deepcopy(smollm2.tokenizer)
    tokenizer.padding_side = "left"
    results = hookql.run(
        QUERY, model=smollm2.module, tokenizer=tokenizer, data=SAMPLES, batch_size=4
    )
    agrees(results, told, 1e-6)
    assert "left" == tokenizer.padding_side


@pytest.fixture(scope="module")
def half() -> tuple[Any, Any]:
    """SmolLM2's first four blocks in bfloat16, and their rows of each text alone."""
    model = hookql.load_model(smollm2_folder(), dtype="bfloat16")
    model.module.model.layers = model.module.model.layers[:4]
    return model, tell(model.module.model, model.tokenizer, ["layers.3:output"])


IN_HALF = (
    "capture count, mean, std, max, mean(norm(x)) as length, median(norm(x)) as middle"
    " from @resid_post[3]"
)


def test_bfloat16_beside_its_own_numbers(half: Any) -> None:
    """Held to the bfloat16 model itself, in what bfloat16 resolves: 2 ** -8 of a number."""
    model, t = half
    data = hookql.run(IN_HALF, model=model, data=SAMPLES).dataset.isel(layer=0)
    x = t.rows["layers.3:output"]
    assert len(x) == int(data["count"])
    # One text in a batch rounds otherwise than alone: each row is off by a few of its own units.
    unit = 2.0**-8 * np.abs(x).max(0)
    check(x.mean(0), data["mean"], unit + 2.0**-8, "mean")
    check(x.std(0), data["std"], unit + 2.0**-8, "std")
    check(x.max(0), data["max"], 8 * unit, "max")
    length = np.sqrt((x**2).sum(-1))
    check(length.mean(), data["length"], 2.0**-8 * length.mean(), "length")
    middle = np.quantile(length, 0.5, method="inverted_cdf")
    check(middle, data["middle"], (1 / 128 + 2.0**-7) * middle, "middle")


def test_one_text_a_batch_in_bfloat16_is_exact(half: Any) -> None:
    """With a batch of one the same rows come out: margins of float64, not of bfloat16."""
    model, t = half
    data = hookql.run(IN_HALF, model=model, data=SAMPLES, batch_size=1).dataset.isel(layer=0)
    x = t.rows["layers.3:output"]
    expected, margin = mean_of(x)
    check(expected, data["mean"], margin, "mean")
    check(x.std(0), data["std"], margin, "std")
    check(x.max(0), data["max"], 0, "max")
    length = np.sqrt((x**2).sum(-1))
    check(length.mean(), data["length"], 1e-9 * length.max(), "length")
    middle = np.quantile(length, 0.5, method="inverted_cdf")
    check(middle, data["middle"], float(data["middle"].attrs["relative_error"]) * middle, "middle")
