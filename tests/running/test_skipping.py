"""`on_error="skip"`: what cannot be run is listed, and counts nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hookql
from hookql.results.table import render, summary
from tests.tiny import tiny
from tests.values.reading import by_sample

TEXTS = ["one two", "bad sample", "three", "four five six", "another bad one", "seven"]
QUERY = """
capture mean, count from h[*] as moments
capture values from h[1] into "acts.nc" as acts
"""


def run(model: Any, tokenizer: Any, texts: list[str], query: str = QUERY, **options: Any) -> Any:
    """The run of these tests; warnings about what was skipped are expected."""
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts, **options)


@pytest.fixture
def failing() -> Any:
    """A model that raises in its third block where a token of `b` comes before one of `a`."""
    model, tokenizer, _ = tiny("gpt2")
    bad = tokenizer("ba")["input_ids"]
    current: list[Any] = []

    def remember(_: Any, __: Any, given: dict[str, Any]) -> None:
        current[:] = given["input_ids"].tolist()

    def refuse(*_: Any) -> None:
        for ids in current:
            if any(ids[i : i + 2] == bad for i in range(len(ids))):
                raise ValueError("this model cannot bear it")

    handles = [model.register_forward_pre_hook(remember, with_kwargs=True)]
    handles.append(model.transformer.h[2].register_forward_hook(refuse))
    yield model, tokenizer
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_the_model_fails_on(failing: Any, checkpoint: bool, tmp_path: Path) -> None:
    """Statistics and rows are those of the other samples; the result lists what is missing."""
    options = {"checkpoint": tmp_path / "kept", "checkpoint_every": 1e-9} if checkpoint else {}
    with pytest.warns(hookql.HookQLWarning, match="samples-skipped"):
        result = run(
            *failing, TEXTS, output=tmp_path / "out.nc", on_error="skip", batch_size=4, **options
        )
    assert [1, 4] == sorted(result["skipped_sample"].values.tolist())
    assert all("cannot bear it" in str(reason) for reason in result["skipped_reason"].values)
    (tmp_path / "other").mkdir()
    expected = run(
        *failing, [t for t in TEXTS if "bad" not in t], output=tmp_path / "other" / "out.nc"
    )
    moments, acts = "moments/transformer.h", "acts/transformer.h"
    assert np.array_equal(expected[moments]["count"], result[moments]["count"])
    assert np.allclose(expected[moments]["mean"], result[moments]["mean"], atol=1e-6)
    rows = [r for r in by_sample(result[acts]) if r.shape[1]]
    assert [0, 0] == result[acts]["row_size"].values[[1, 4]].tolist()
    assert len(TEXTS) == result[acts].sizes["sample"]
    for one, other in zip(by_sample(expected[acts]), rows, strict=True):
        assert np.allclose(one, other, atol=1e-6)
    for name in ("out.nc", "acts.nc"):
        saved = hookql.load(tmp_path / name)
        assert [1, 4] == sorted(saved["skipped_sample"].values.tolist())
        assert [] == hookql.verify(tmp_path / name)
        assert "skipped" not in render(saved)
        assert "skipped sample 1: ValueError: this model cannot bear it" in " ".join(
            summary(saved).split()
        ), summary(saved)


def test_what_the_tokenizer_refuses(tmp_path: Path) -> None:
    """A text that no tokenizer takes is left out, and the sample keeps its number."""
    model, tokenizer, _ = tiny("gpt2")
    texts = ["one", "half a pair \ud800", "two three"]
    with pytest.raises(hookql.DataError, match="cannot-tokenise"):
        run(model, tokenizer, texts, "capture values from h[1]")
    with pytest.warns(hookql.HookQLWarning, match="samples-refused"):
        result = run(model, tokenizer, texts, "capture values from h[1]", on_error="skip")
    assert [1] == result["skipped_sample"].values.tolist()
    assert [-1] == result["skipped_chunk"].values.tolist()
    assert [3, 0, 9] == result["row_size"].values.tolist()


def test_stopping_is_the_default(failing: Any) -> None:
    """Without it the run ends, naming the samples of the batch."""
    with pytest.raises(hookql.ModelError, match="cannot bear it"):
        run(*failing, TEXTS, "capture mean from h[*]")
