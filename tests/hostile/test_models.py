"""Model folders from somebody else: their own safetensors are read, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hookql.errors import ModelError
from hookql.models.load import load_model
from tests.tiny import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A GPT-2 as `save_pretrained` leaves it."""
    tiny("gpt2")[0].save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **changes: Any) -> None:
    """Change what config.json says."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def code(folder: Path, **options: Any) -> str:
    """The code of the error that loading ends in."""
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), device="cpu", **options)
    return caught.value.code


UNSAFE: dict[str, dict[str, Any]] = {
    "kernel": {"attn_implementation": "evil/kernel"},
    "inner kernel": {"text_config": {"_attn_implementation": "evil/kernel:run"}},
    "backbone": {"use_pretrained_backbone": True, "backbone": "evil/backbone"},
    "weights": {"transformers_weights": "adapter_model.bin"},
    "layers": {"n_layer": 10**9},
}


@pytest.mark.parametrize("what", UNSAFE)
def test_configs_that_ask_for_more_than_the_folder(
    folder: Path, what: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and weights of other repositories, and layers without end."""
    edit(folder, **UNSAFE[what])
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelError) as caught:
        load_model("./model", device="cpu")
    golden(f"hostile/unsafe-{what.replace(' ', '-')}.txt", f"{caught.value}\n")


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.bin", ".."])
def test_an_index_names_safetensors_of_its_folder(folder: Path, name: str) -> None:
    """transformers would read whatever stands there, pickles included."""
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "unsafe-model" == code(folder)


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 10**10}, {"n_embd": 2**20}, {"n_positions": 10**10}]
)
def test_a_config_with_far_more_numbers_than_the_weights(
    folder: Path, changes: dict[str, int]
) -> None:
    """Found out while the model is built, before memory is taken for it."""
    edit(folder, **changes)
    assert "load-failed" == code(folder)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickles_only_when_they_are_allowed(folder: Path, tmp_path: Path) -> None:
    """With the flag tensors are read, and still nothing that runs code."""
    (folder / "model.safetensors").unlink()
    weights = tiny("gpt2")[0].state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "pickled-weights" == code(folder)
    loaded = load_model(str(folder), device="cpu", allow_pickle=True).module.state_dict()
    name = "transformer.wte.weight"
    assert torch.equal(weights[name], loaded[name])
    torch.save({name: Evil(tmp_path / "evil")}, folder / "pytorch_model.bin")
    assert "load-failed" == code(folder, allow_pickle=True)
    assert not (tmp_path / "evil").exists()


def test_an_adapter_is_no_pickle_either(folder: Path) -> None:
    """An adapter in the folder would be read without asking for safetensors."""
    (folder / "adapter_model.bin").write_bytes(b"")
    assert "unsafe-model" == code(folder)


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    """An `auto_map` beside a model type that transformers knows."""
    edit(folder, auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    (folder / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'evil')!r})\n")
    load_model(str(folder), device="cpu")
    assert not (tmp_path / "evil").exists()
