"""What a model showed is remembered while nothing of it was touched, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import hookql
import hookql.known
from hookql.models.probe import probe
from tests.tiny import tiny

QUERY = "capture mean, std from transformer.h[*] where position > 0"
TEXTS = ["Where were you?", "the the", "In 1969, two"]


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each time that a model is tried out."""
    found: list[object] = []

    def counted(*given: Any) -> Any:
        found.append(given)
        return probe(*given)

    monkeypatch.setattr(hookql.known, "probe", counted)
    return found


def run(model: Any, tokenizer: Any, query: str = QUERY, **options: Any) -> xarray.DataTree:
    """The query over three texts."""
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=TEXTS, **options)


def fresh() -> tuple[Any, Any]:
    """A small GPT-2 of its own, that a test may change."""
    model, tokenizer, _ = tiny("gpt2")
    own = type(model)(model.config).eval()
    own.load_state_dict(model.state_dict())
    return own, tokenizer


def test_the_same_model_is_tried_out_once(probed: list[object]) -> None:
    """For the same hook points; the results are the same bits."""
    model, tokenizer = fresh()
    first, second = run(model, tokenizer), run(model, tokenizer)
    assert 1 == len(probed)
    for name in ("mean", "std", "count"):
        assert np.array_equal(first[name].values, second[name].values)
    assert first.attrs["tokens_run"] == second.attrs["tokens_run"]
    run(model, tokenizer, "capture mean from transformer.h[0].mlp")
    assert 2 == len(probed)


def write(model: Any) -> None:
    """A weight is written where torch does not count it."""
    model.transformer.h[1].mlp.c_fc.weight.data[0, 0] += 1


def write_by_numpy(model: Any) -> None:
    """A weight is written through its memory."""
    model.transformer.h[0].ln_1.weight.detach().numpy()[3] = 2.0


def replace(model: Any) -> None:
    """A module is exchanged."""
    model.transformer.h[1].mlp.act = torch.nn.ReLU()


def configure(model: Any) -> None:
    """Another attention implementation."""
    model.set_attn_implementation("eager")


def scale(model: Any) -> None:
    """A plain attribute of a module."""
    model.transformer.h[0].attn.scale_attn_weights = False


@pytest.mark.parametrize("change", [write, write_by_numpy, replace, configure, scale])
def test_a_touched_model_is_tried_out_again(
    change: Callable[[Any], None], probed: list[object]
) -> None:
    """Whatever was touched, by whichever way."""
    model, tokenizer = fresh()
    run(model, tokenizer)
    change(model)
    run(model, tokenizer)
    assert 2 == len(probed)


def test_a_model_with_hooks_is_tried_out_each_time(probed: list[object]) -> None:
    """A hook may do anything, and another thing tomorrow."""
    model, tokenizer = fresh()
    handle = model.transformer.h[0].register_forward_hook(lambda *_: None)
    run(model, tokenizer)
    run(model, tokenizer)
    handle.remove()
    assert 2 == len(probed)


def test_other_inputs_are_tried_out(probed: list[object]) -> None:
    """Another pad token, or another way to compute, is another question."""
    model, tokenizer = fresh()
    run(model, tokenizer)
    run(model, tokenizer, autocast="bfloat16")
    assert 2 == len(probed)
    other = tiny("gpt2")[1]
    before = other.pad_token
    other.pad_token = other.convert_ids_to_tokens(5)
    try:
        run(model, other)
    finally:
        other.pad_token = before
    assert 3 == len(probed)


def test_what_is_wrong_is_said_each_time(probed: list[object]) -> None:
    """A model that cannot be tried out is not remembered as one that can."""
    model, tokenizer = fresh()
    model.transformer.h[1].mlp.c_fc.weight.data = torch.zeros(3, 3)
    for _ in range(2):
        with pytest.raises(hookql.ModelError) as caught:
            run(model, tokenizer)
        assert "probe-failed" == caught.value.code
    assert 2 == len(probed)
