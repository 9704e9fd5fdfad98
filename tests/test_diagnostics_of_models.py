"""What is said of models that cannot be loaded, or not be observed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import hookql
from hookql.models.identity import weights_identity
from hookql.models.load import wrap_model
from tests.models.test_load import edit, hub_that_says, save
from tests.tiny import tiny
from tests.told import told

Patch = pytest.MonkeyPatch
Golden = Callable[[str, str], None]


def load(name: str = "model", device: str = "cpu", **options: Any) -> object:
    """Load a model, by default the folder `model` of the case."""
    return hookql.load_model(name, device=device, **options)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with its tokenizer, to be copied."""
    module, tokenizer, _ = tiny("gpt2")
    return save(module, tmp_path_factory.mktemp("gpt2"), tokenizer)


def test_names_and_folders(golden: Golden, tmp_path: Path, saved: Path) -> None:
    """A name that is no model, and folders and files that are none or a part of one."""

    def spoilt(how: Callable[[Path], object]) -> Callable[[Patch], object]:
        def case(_: Patch) -> object:
            how(Path(shutil.copytree(saved, "model")))
            return load()

        return case

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")

    def headless(_: Patch) -> object:
        save(transformers.BertModel(tiny("bert")[0].config), Path("model"))
        edit(Path("model"), architectures=["BertForSequenceClassification"])
        return load()

    def gguf(*contents: bytes) -> None:
        Path("model.gguf").write_bytes(*contents)

    def lost(patch: Patch) -> None:
        patch.setattr("importlib.util.find_spec", lambda name: None)

    cases = {
        "no name": lambda _: load("what is this?"),
        "a file that is no model": lambda _: [Path("a.txt").touch(), load("a.txt")],
        "an empty folder": lambda _: [Path("model").mkdir(), load()],
        "a folder of notes": lambda _: [
            Path("model").mkdir(), Path("model/notes.txt").touch(), load(),
        ],
        "a folder of a GGUF file": lambda _: [
            Path("model").mkdir(), Path("model/small.gguf").touch(), load(),
        ],
        "a folder without weights": spoilt(lambda f: (f / "model.safetensors").unlink()),
        "pickles": spoilt(pickled),
        "no GGUF file": lambda _: [gguf(b"nothing of the kind"), load("model.gguf")],
        "a GGUF file without its package": lambda patch: [
            gguf(b"GGUF"), lost(patch), load("model.gguf"),
        ],
        "weights of another shape": spoilt(lambda f: edit(f, n_embd=64)),
        "weights that are missing": headless,
        "an unknown kind": spoilt(
            lambda f: (f / "config.json").write_text('{"model_type": "neverheard"}')
        ),
        "a kind without a class": spoilt(
            lambda f: (f / "config.json").write_text('{"model_type": "speecht5_hifigan"}')
        ),
        "code of its own": spoilt(
            lambda f: edit(f, auto_map={"AutoModelForCausalLM": "own.M"}, architectures=["M"])
        ),
        "a broken config": spoilt(lambda f: (f / "config.json").write_text("{nope")),
        "broken weights": spoilt(lambda f: (f / "model.safetensors").write_text("version 1")),
        "a broken tokenizer": spoilt(lambda f: (f / "tokenizer.json").write_text("{")),
    }  # fmt: skip
    text = told(cases, tmp_path)
    # What another library says is its own affair, and changes with its version.
    golden(
        "diagnostics/models.txt",
        re.sub(r"(= note: )[A-Z]\w+: .*", r"\1(its words)", text),
    )


def test_options(golden: Golden, tmp_path: Path, saved: Path) -> None:
    """Options that clash, and what cannot be had on this machine."""

    def cuda(patch: Patch, devices: int) -> None:
        patch.setattr("torch.cuda.is_available", lambda: devices > 0)
        patch.setattr("torch.cuda.device_count", lambda: devices)

    def too_big(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def on_a_small_gpu(patch: Patch) -> object:
        shutil.copytree(saved, "model")
        cuda(patch, 1)
        patch.setattr("torch.nn.Module.to", too_big)
        return load(device="cuda")

    def without_accelerate(patch: Patch) -> object:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        return load(device="auto", device_map="auto")

    cases = {
        "two placements": lambda _: load(device_map="auto"),
        "a device map without its package": without_accelerate,
        "no GPU": lambda patch: [cuda(patch, 0), load(device="cuda")],
        "one GPU": lambda patch: [cuda(patch, 1), load(device="cuda:3")],
        "two GPUs": lambda patch: [cuda(patch, 2), load(device="cuda:3")],
        "a small GPU": on_a_small_gpu,
        "an attention that is not installed": lambda _: [
            shutil.copytree(saved, "model"), load(attn="flash_attention_2"),
        ],
    }  # fmt: skip
    text = told(cases, tmp_path)
    golden("diagnostics/model-options.txt", re.sub(r"(= note: )Flash.*", r"\1(its words)", text))


def test_answers_of_the_hub(golden: Golden, tmp_path: Path, monkeypatch: Patch) -> None:
    """What the hub refuses, of models and of data sets."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def asking(what: Callable[[], object], status: int, answer: str) -> Callable[[Patch], object]:
        def case(patch: Patch) -> object:
            with hub_that_says(status, answer, Path.cwd(), patch):
                return what()

        return case

    def model() -> object:
        return load("somebody/model", revision="v9")

    def data() -> object:
        return hookql.run("capture mean from h[0]", data="somebody/texts")

    cases = {
        "an unknown model": asking(model, 404, "RepoNotFound"),
        "a model behind a gate": asking(model, 403, "GatedRepo"),
        "an unknown revision": asking(model, 404, "RevisionNotFound"),
        "a repository without config": asking(model, 404, "EntryNotFound"),
        "an unknown data set": asking(data, 404, "RepoNotFound"),
        "a data set behind a gate": asking(data, 403, "GatedRepo"),
    }
    golden("diagnostics/hub.txt", told(cases, tmp_path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript itself
def test_modules(golden: Golden, tmp_path: Path) -> None:
    """Modules given from Python that cannot be observed, or not be told from others."""
    plain = nn.Sequential(nn.Linear(2, 2))
    inside = nn.Sequential(nn.Linear(2, 2))
    inside[0].compile()
    not_a_module: Any = lambda x: x  # noqa: E731
    wrong = {
        "a function": not_a_module,
        "compiled": torch.compile(plain),
        "a compiled part": inside,
        "a script": torch.jit.trace(plain, torch.ones(1, 2)),
        "data parallel": nn.DataParallel(plain),
    }
    cases: dict[str, Any] = {n: lambda _, m=m: wrap_model(m) for n, m in wrong.items()}
    cases["weights elsewhere"] = lambda _: weights_identity(nn.Linear(2, 2, device="meta"))
    cases["an option for a module"] = lambda _: hookql.run(
        "capture mean from h[0]", model=tiny("gpt2")[0], texts=["a"], dtype="float16"
    )
    golden("diagnostics/modules.txt", told(cases, tmp_path))
