"""The ready-made detectors against plain tensors."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import hookql
from hookql.attached import (
    BatchAccumulator,
    LayerActivationDetector,
    ModelInputDetector,
    ModelOutputDetector,
    StatisticsDetector,
    attach,
)
from hookql.models.load import load_model
from tests.attached.made import TEXTS, batch, by_hand, gpt2
from tests.tiny import tiny


def test_layers_are_copied_before_the_model_writes_into_them() -> None:
    """What comes later in place does not change what was kept."""
    parts = {"first": nn.Linear(4, 4), "second": nn.ReLU(inplace=True)}
    model = nn.Sequential(OrderedDict(parts))
    layer = LayerActivationDetector()
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    with attach(model, {"first": layer}):
        model(x)
    expected = parts["first"](x).detach()
    assert (expected < 0).any()
    assert torch.equal(expected, layer.get_captured()[0])


@pytest.mark.parametrize("dtype", ["float16", torch.float64])
def test_a_dtype_for_what_is_kept(dtype: Any) -> None:
    """As text or as torch's own; the model's dtype is not touched."""
    model, _ = gpt2()
    layer = LayerActivationDetector(dtype)
    with attach(model, {"h[0]": layer}):
        model(**batch())
    wanted = torch.float16 if dtype == "float16" else dtype
    assert wanted == layer.get_captured()[0].dtype
    assert torch.equal(by_hand(model, "transformer.h.0", batch()).to(wanted),
                       layer.get_captured()[0])  # fmt: skip


@pytest.mark.parametrize("by_name", [True, False])
def test_model_inputs_by_place_and_by_name(by_name: bool) -> None:
    """Ids, the mask, and the mask without special tokens."""
    model, tokenizer = gpt2()
    inputs = batch(["ab<eos>", "c"], side="left")
    inputs["input_ids"][0, -1] = tokenizer.eos_token_id
    fed = ModelInputDetector(tokenizer)
    with attach(model, {"input": fed}):
        if by_name:
            model(**inputs)
        else:
            model(inputs["input_ids"], None, inputs["attention_mask"])
    found = fed.get_captured()
    mask = inputs["attention_mask"].bool()
    special = torch.isin(inputs["input_ids"], torch.tensor(tokenizer.all_special_ids))
    assert torch.equal(inputs["input_ids"], found["input_ids"][0])
    assert torch.equal(mask, found["attention_mask"][0])
    assert torch.equal(mask & ~special, found["content_mask"][0])
    assert not torch.equal(mask, found["content_mask"][0])
    plain = ModelInputDetector()
    assert ["input_ids", "attention_mask"] == list(plain.get_captured())


def test_inputs_while_generating() -> None:
    """With a cache each pass feeds one token, and the mask is that token's."""
    model, _ = gpt2()
    fed = ModelInputDetector()
    inputs = batch(["abc", "a"], side="left")
    with attach(model, {"input": fed}):
        model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    found = fed.get_captured()
    assert [(2, 3), (2, 1), (2, 1)] == [tuple(t.shape) for t in found["input_ids"]]
    assert [[True], [True]] == found["attention_mask"][1].tolist()
    assert torch.equal(inputs["attention_mask"].bool(), found["attention_mask"][0])


@pytest.mark.parametrize("as_tuple", [False, True])
def test_model_outputs(as_tuple: bool) -> None:
    """Logits and the last hidden state, of a ModelOutput and of a tuple with a loss first."""
    model, _ = gpt2()
    kept = ModelOutputDetector()
    inputs = batch()
    with attach(model, {"output": kept}), torch.no_grad():
        output = model(**inputs, labels=inputs["input_ids"], output_hidden_states=True,
                       return_dict=not as_tuple)  # fmt: skip
    logits, states = (output[1], output[-1]) if as_tuple else (output.logits, output.hidden_states)
    found = kept.get_captured()
    assert torch.equal(logits, found["logits"][0])
    assert torch.equal(states[-1], found["hidden_state"][0])


def test_outputs_of_a_headless_model_and_a_plain_one() -> None:
    """A model without a head returns a hidden state; of a plain module its tensor is taken."""
    model, _ = gpt2()
    kept = ModelOutputDetector()
    with attach(model.transformer, {"output": kept}):
        model.transformer(**batch())
    assert ["hidden_state"] == list(kept.get_captured())
    plain, other = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9)), ModelOutputDetector()
    with attach(plain, {"output": other}):
        expected = plain(torch.arange(6).reshape(2, 3))
    assert torch.equal(expected.detach(), other.get_captured()["logits"][0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_statistics_leave_padding_out(side: str) -> None:
    """Over several batches, padded on either side, as if all rows had come at once."""
    model, _ = gpt2()
    statistics = StatisticsDetector("mean", "std", "max", "quantile(0.5)", "count")
    parts = [batch(TEXTS, side), batch(["longer than all of them", "x"], side)]
    with attach(model, {"h[1].mlp": statistics}), torch.no_grad():
        for inputs in parts:
            model(**inputs)
    rows = torch.cat(
        [by_hand(model, "transformer.h.1.mlp", p)[p["attention_mask"].bool()] for p in parts]
    ).double()
    found = statistics.get_captured()
    torch.testing.assert_close(found["mean"], rows.mean(0))
    torch.testing.assert_close(found["std"], rows.std(0, correction=0))
    assert torch.equal(rows.max(0).values, found["max"])
    assert len(rows) == int(found["count"]) == statistics.metadata["rows"]
    assert set(found) == set(statistics.tensor_metadata)
    statistics.clear_captured()
    assert {} == statistics.get_captured()


def test_statistics_are_those_of_the_query() -> None:
    """A detector and a query of the same site and texts agree."""
    model = load_model("demo")
    texts = ["The lighthouse keeper", "Rain"]
    result = hookql.run("capture mean, std from h[2]", model=model, texts=texts)
    statistics = StatisticsDetector()
    with attach(model, {"h[2]": statistics}), torch.no_grad():
        for text in texts:
            model.module(**model.tokenizer(text, return_tensors="pt"))
    for name, value in statistics.get_captured().items():
        np.testing.assert_allclose(
            value, np.squeeze(np.asarray(result[name])), rtol=1e-4, atol=1e-6
        )


def test_an_encoders_padding_is_not_the_decoders() -> None:
    """In an encoder-decoder model the mask is the encoder's, and the decoder's is not guessed."""
    model, _, _ = tiny("t5")
    ids = torch.tensor([[8, 9, 10], [8, 9, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    encoder = StatisticsDetector("count")
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids}
    with attach(model, {"encoder.block[0]": encoder}):
        model(**given)
    assert 5 == int(encoder.get_captured()["count"])
    other = {"decoder.block[0]": StatisticsDetector("count")}
    with attach(model, other), pytest.raises(hookql.ModelError) as caught:
        model(**given)
    assert "decoder" in caught.value.notes[0]


def test_rows_are_accumulated_and_saved(tmp_path: Path) -> None:
    """Rows without padding, the first so many, in files that other tools read."""
    model, _ = gpt2()
    inputs = batch()
    all_rows, some = BatchAccumulator(), BatchAccumulator(max_rows=20, dtype="bfloat16")
    with attach(model, {"h[0]": [all_rows, some]}), torch.no_grad():
        model(**inputs)
        model(**inputs)
    expected = by_hand(model, "transformer.h.0", inputs)[inputs["attention_mask"].bool()]
    expected = torch.cat([expected, expected])
    assert torch.equal(expected, all_rows.get_captured())
    assert torch.equal(expected, all_rows.get_captured()), "and once more"
    assert torch.equal(expected[:20].bfloat16(), some.get_captured())
    assert {"rows": 20, "seen": len(expected)} == some.metadata
    saved = [some.save(tmp_path / f"rows{end}") for end in (".safetensors", ".npz", ".npy")]
    assert torch.equal(some.get_captured(), load_file(saved[0])["rows"])
    assert np.array_equal(some.get_captured().float().numpy(), np.load(saved[1])["rows"])
    assert np.array_equal(some.get_captured().float().numpy(), np.load(saved[2]))
    assert 3 == len(list(tmp_path.iterdir()))
    all_rows.clear_captured()
    assert 0 == len(all_rows.get_captured())
