"""`explain`: what it says is what a run does, and it runs no data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

import hookql
from tests.tiny import character_tokenizer, tiny

QUERY = """
capture mean, std from transformer.h[0:3] where position >= 1
capture mean, max from transformer.h[1] where not special as b into "b.nc"
"""


def facts(query: str, model: nn.Module) -> dict[str, Any]:
    """The plan as plain data."""
    text = hookql.explain(query, model=model, tokenizer=character_tokenizer(), format="json")
    found: dict[str, Any] = json.loads(text)
    return found


def test_no_data_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the engine nor a data set is opened, and nothing is written."""
    monkeypatch.chdir(tmp_path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("explain ran data")

    for name in (
        "hookql.execute.run_local",
        "hookql.execute.open_source",
        "hookql.planning.open_source",
        "hookql.source.open_data",
    ):
        monkeypatch.setattr(name, never)
    model, tokenizer, _ = tiny("gpt2")
    for format in ("text", "json", "mermaid"):
        assert hookql.explain(QUERY, model=model, tokenizer=tokenizer, format=format)
    assert [] == list(tmp_path.iterdir())


def test_what_is_shared_stands_once() -> None:
    """Three blocks, two masks; block 1 is read once for two captures."""
    model, _, _ = tiny("gpt2")
    found = facts(QUERY, model)
    assert [f"transformer.h.{i}" for i in range(3)] == [p["module"] for p in found["hook_points"]]
    assert [["h"], ["h", "b"], ["h"]] == [p["captures"] for p in found["hook_points"]]
    assert {"1": ["moments"], "2": ["max", "moments"]} == found["hook_points"][1]["accumulators"]
    wheres = [(m["where"], m["captures"]) for m in found["masks"]]
    assert [("position >= 1", ["h"]), ("not special", ["b"])] == wheres


def test_the_stop_and_the_share_are_what_a_run_does() -> None:
    """The share that the result records is the one that was announced; deeper sites run more."""
    model, tokenizer, _ = tiny("gpt2")
    shares = []
    for site, stop in [("h[0]", "transformer.h.0"), ("h[3]", "transformer.h.3"), ("lm_head",) * 2]:
        query = f"capture mean from {site}"
        found = facts(query, model)["stop"]
        assert (stop, "output") == (found["module"], found["side"])
        run = hookql.run(query, model=model, tokenizer=tokenizer, texts=["abc"])
        assert found["share"] == round(run.attrs["forward_share"], 4)
        shares.append(found["share"])
    assert sorted(set(shares)) == shares
    assert 1 == shares[-1]
    assert 0 == facts("capture count from input", model)["stop"]["share"]


def test_the_share_counts_weights() -> None:
    """Two of four equal layers: half of the matrix work."""
    model = nn.Sequential(nn.Embedding(128, 8), *[nn.Linear(8, 8, bias=False) for _ in range(4)])
    assert 0.5 == facts("capture mean from modules_", _named(model))["stop"]["share"]


def _named(model: nn.Sequential) -> nn.Module:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.first, self.modules_ = model[0], model[1], model[2]
            self.third, self.fourth = model[3], model[4]

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            x = self.modules_(self.first(self.embed(input_ids)))
            out: torch.Tensor = self.fourth(self.third(x))
            return out

    return Named()


def test_bytes_are_about_what_is_written(tmp_path: Path) -> None:
    """The numbers alone: statistics times layers times features times eight bytes."""
    model, tokenizer, _ = tiny("gpt2")
    query = "capture mean, std, max from h[*]"
    found = facts(query, model)["bytes"]
    result = hookql.run(query, model=model, tokenizer=tokenizer, texts=["abc"])
    assert sum(result[name].nbytes for name in ("mean", "std", "max")) == found["written"]
    assert 0 < found["memory"] < 10 * found["written"]
    pooled = facts("capture mean, std, max from h[*] pool feature, layer", model)["bytes"]
    assert 3 * 8 == pooled["written"]


@pytest.mark.parametrize("name", ["albert", "mixtral", "t5", "falcon"])
def test_explained_families(name: str, golden: Any) -> None:
    """Calls, flattened rows, encoders, views: as text."""
    model, tokenizer, _ = tiny(name)
    site = {
        "albert": "encoder.albert_layer_groups[0].albert_layers[0], embeddings",
        "mixtral": "model.layers[*].mlp.gate, model.layers[0]:input",
        "t5": "encoder.block[*], encoder.final_layer_norm",
        "falcon": "h[*].self_attention.query_key_value, ** isa linear",
    }[name]
    text = hookql.explain(
        f"capture mean, max from {site} where not special pool feature",
        model=model,
        tokenizer=tokenizer,
    )
    golden(f"explain/{name}.txt", text)


def test_equal_lengths_are_announced() -> None:
    """A model whose padding leaks says how it will be batched."""
    torch.manual_seed(0)
    config = hf.FNetConfig(vocab_size=128, hidden_size=32, num_hidden_layers=1,
                           intermediate_size=32, max_position_embeddings=64)  # fmt: skip
    query = "capture mean from encoder.layer[0]"
    leaking = hf.FNetModel(config).eval()
    assert "equal lengths only" in facts(query, leaking)["batches"]
    assert "equal lengths" not in facts("capture mean from h[0]", tiny("gpt2")[0])["batches"]


def test_mermaid_is_well_formed() -> None:
    """Quotes in a mask are escaped, and every arrow ends at a node that is declared."""
    model, _, _ = tiny("gpt2")
    query = 'capture mean from h[0] where token == "a" capture max from h[1]:input'
    text = hookql.explain(query, model=model, tokenizer=character_tokenizer(), format="mermaid")
    lines = text.splitlines()
    assert "flowchart LR" == lines[0]
    assert '  data --> m1{{"token == #quot;a#quot;"}}' in lines
    arrows = [line.split() for line in lines if " --> " in line]
    declared = " ".join(lines)
    for source, _, target, *_ in arrows:
        for node in (source.partition("[")[0], target.partition("[")[0].partition("{")[0]):
            assert any(f"{node}{mark}" in declared for mark in ("[", "{", "(")), node


def test_explain_can_be_called_again() -> None:
    """`hookql.explain` stays the function: no module of the package takes its name."""
    model, _, _ = tiny("gpt2")
    first = facts("capture mean from h[0]", model)
    assert first == facts("capture mean from h[0]", model)
    assert callable(hookql.explain)


def test_an_unknown_format_is_refused() -> None:
    """The formats that there are are named."""
    with pytest.raises(hookql.UsageError) as caught:
        hookql.explain("capture mean from h[0]", format="xml")
    assert ("unknown-format", ("formats: text, json, mermaid",)) == (
        caught.value.code, caught.value.notes
    )  # fmt: skip
