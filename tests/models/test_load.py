"""Loading: what is loaded is what was saved, and all else is refused in one clear sentence."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.utils import logging

from hookql.errors import HookQLError, ModelError, UsageError
from hookql.models import hub
from hookql.models.identity import weights_identity
from hookql.models.load import load_model, wrap_model
from tests.tiny import CONTEXT, character_tokenizer, tiny
from tests.weights import smollm2_gguf


def save(module: Any, folder: Path, tokenizer: Any = None) -> Path:
    """A checkpoint's folder, without chatter."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    module.save_pretrained(folder)
    logging.set_verbosity(level)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 as `save_pretrained` leaves it. Not to be changed: `copy` it."""
    module, tokenizer, _ = tiny("gpt2")
    return save(module, tmp_path_factory.mktemp("gpt2"), tokenizer)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of that folder, for spoiling."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def code(name: str | Path, **options: Any) -> str:
    """The code of the error that loading ends in."""
    with pytest.raises(HookQLError) as caught:
        load_model(str(name), device="cpu", **options)
    assert len(caught.value.diagnostics) == 1
    return caught.value.code


def edit(folder: Path, **values: Any) -> None:
    """Change config.json; None takes a key away."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "bert", "roberta", "t5", "mamba", "vit", "mixtral"]
)
def test_a_saved_model_comes_back(name: str, tmp_path: Path) -> None:
    """The class of the checkpoint, its weights, eval mode, its tokenizer or none."""
    module, tokenizer, _ = tiny(name)
    model = load_model(str(save(module, tmp_path, tokenizer)), device="cpu")
    assert type(module) is type(model.module)
    assert type(module).__name__ == model.class_name
    assert weights_identity(module) == weights_identity(model.module)
    assert not model.module.training
    assert (tokenizer is None) == (model.tokenizer is None)
    assert (name == "t5") == model.is_encoder_decoder
    assert ("float32", torch.device("cpu"), None) == (model.dtype, model.device, model.revision)
    assert (None if name == "vit" else CONTEXT) == model.context


def test_no_tokenizer_is_made_up(tmp_path: Path) -> None:
    """Without a tokenizer's files there is none; transformers would build an empty one."""
    assert load_model(str(save(tiny("gpt2")[0], tmp_path)), device="cpu").tokenizer is None


def test_a_given_tokenizer_is_used(folder: Path) -> None:
    """`tokenizer=` replaces the checkpoint's own."""
    given = character_tokenizer()
    assert given is load_model(str(folder), device="cpu", tokenizer=given).tokenizer


def test_options_reach_the_model(folder: Path) -> None:
    """The dtype and the attention implementation are what was asked for, and are recorded."""
    model = load_model(str(folder), device="cpu", dtype="bfloat16", attn="eager")
    assert ("bfloat16", "eager") == (model.dtype, model.attn)
    assert torch.bfloat16 == next(model.module.parameters()).dtype


def test_roberta_counts_positions_from_its_padding(tmp_path: Path) -> None:
    """The first positions of RoBERTa's table are padding's: that many fewer tokens fit."""
    module, _, _ = tiny("roberta")
    assert CONTEXT + 1 == module.config.max_position_embeddings
    assert CONTEXT == wrap_model(module).context


def test_transformers_is_left_as_it_was(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Verbosity and bars are restored, also after an error, and nothing is printed."""
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    load_model(str(folder), device="cpu")
    code(folder, attn="flash_attention_2")
    assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled())
    assert ("", "") == capfd.readouterr()


def test_config_without_architectures(copy: Path) -> None:
    """The causal language model is taken where transformers knows one for the config."""
    edit(copy, architectures=None)
    assert "GPT2LMHeadModel" == load_model(str(copy), device="cpu").class_name


def test_a_missing_pooler_is_left_out(tmp_path: Path) -> None:
    """Encoders are saved without pooler: none is made up, and nothing else needs it."""
    config = tiny("bert")[0].config
    bare = transformers.BertModel(config, add_pooling_layer=False)
    model = load_model(str(save(bare, tmp_path)), device="cpu")
    assert "pooler" not in dict(model.module.named_children()) or model.module.pooler is None


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    """A head that the checkpoint lacks would be random, and so would be its statistics."""
    config = tiny("bert")[0].config
    save(transformers.BertModel(config), tmp_path)
    edit(tmp_path, architectures=["BertForSequenceClassification"])
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path), device="cpu")
    assert "missing-weights" == caught.value.code
    assert "missing: classifier.bias, classifier.weight" == caught.value.notes[0]


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    """A config that says another width than the weights have."""
    edit(copy, n_embd=64)
    assert "mismatched-weights" == code(copy)


def test_pickles_are_refused(copy: Path) -> None:
    """Weights that are only there as a pickle are not read."""
    (copy / "model.safetensors").unlink()
    assert "no-weights" == code(copy)
    torch.save(tiny("gpt2")[0].state_dict(), copy / "pytorch_model.bin")
    assert "pickled-weights" == code(copy)


def test_broken_weights_are_refused(copy: Path) -> None:
    """A file that is no safetensors, as a pointer left by git-lfs."""
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "load-failed" == code(copy)


def test_broken_tokenizer_is_refused(copy: Path) -> None:
    """A tokenizer that is there but cannot be read is not silently left out."""
    (copy / "tokenizer.json").write_text("{")
    assert "load-failed" == code(copy)


def test_folders_that_are_no_models(tmp_path: Path, copy: Path) -> None:
    """No config, a config that is no JSON, a kind of model that nobody knows."""
    (tmp_path / "empty").mkdir()
    assert "no-config" == code(tmp_path / "empty")
    (copy / "config.json").write_text("{nope")
    assert "load-failed" == code(copy)
    (copy / "config.json").write_text('{"model_type": "neverheard"}')
    assert "unknown-architecture" == code(copy)


def test_remote_code_is_not_run_unasked(copy: Path) -> None:
    """Neither for a config of its own nor for a model class of its own."""
    (copy / "evil.py").write_text("raise SystemExit('remote code ran')")
    edit(copy, auto_map={"AutoModelForCausalLM": "evil.M"}, architectures=["M"])
    assert "remote-code" == code(copy)
    edit(copy, model_type="evil", auto_map={"AutoConfig": "evil.C"})
    assert "remote-code" == code(copy)


def test_names_that_lead_nowhere(tmp_path: Path, folder: Path) -> None:
    """Paths that do not exist, files of another kind, names that no hub has."""
    assert "no-such-path" == code("./missing")
    assert "no-such-path" == code(tmp_path / "missing")
    assert "no-such-path" == code("missing.gguf")
    assert "not-a-model" == code(folder / "config.json")
    assert "bad-model-name" == code("what is this?")
    (tmp_path / "fake.gguf").write_bytes(b"nothing of the kind")
    assert "not-gguf" == code(tmp_path / "fake.gguf")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    assert "load-failed" == code(tmp_path / "cut.gguf")


def test_gguf_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them the error names the extra that brings them."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path / "a.gguf"), device="cpu")
    assert "run `pip install 'hookql[gguf]'`" == caught.value.help


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dtype": "float23"}, "unknown-dtype"),
        ({"attn": "egaer"}, "unknown-attention"),
        ({"attn": "someone/kernel"}, "unknown-attention"),
        ({"attn": "flash_attention_2"}, "attention-unavailable"),
        ({"revision": "main"}, "no-revisions"),
        ({"device_map": "auto"}, "conflicting-options"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], expected: str) -> None:
    """Options are checked, and nothing else is taken in their place."""
    assert expected == code(folder, **options)


@pytest.mark.parametrize(
    ("device", "expected"),
    [("gpu", "unknown-device"), ("mps", "unknown-device"), ("cuda:99", "no-such-device")],
)
def test_wrong_devices(folder: Path, device: str, expected: str) -> None:
    """A device that is unknown or not here is refused before anything is loaded."""
    with pytest.raises(UsageError) as caught:
        load_model(str(folder), device=device)
    assert expected == caught.value.code


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoes that tests run offline, and any proxy; the hub is still to be set."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.usefixtures("online")
def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message that says what to do instead, and the hub's client is not even asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(ModelError) as caught:
        load_model("nobody/never-cached", device="cpu")
    assert ("hub-unreachable", 1) == (caught.value.code, caught.value.exit_code)
    assert ("no answer from 127.0.0.1",) == caught.value.notes
    assert "local folder" in str(caught.value.help)


@contextlib.contextmanager
def hub_that_says(
    status: int, answer: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The hub is a server that gives everyone that status and error code; its cache is empty."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", answer)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", address)
        files = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
        yield
        server.shutdown()


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (401, "RepoNotFound", "unknown-model"),
        (404, "RepoNotFound", "unknown-model"),
        (403, "GatedRepo", "gated-model"),
        (404, "RevisionNotFound", "unknown-revision"),
        (404, "EntryNotFound", "no-config"),
    ],
)
def test_refusals_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, answer: str, expected: str
) -> None:
    """What the hub answers is told apart: no such model, no such revision, no access."""
    with hub_that_says(status, answer, tmp_path, monkeypatch):
        assert expected == code("somebody/model", revision="v9")


def test_offline_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """With HF_HUB_OFFLINE no connection is tried."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "can_connect", lambda: pytest.fail("tried"))
    assert "hub-unreachable" == code("nobody/never-cached")


def test_cached_model_needs_no_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model in the local cache loads with its commit, which identifies untouched weights."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--somebody--gpt"
    shutil.copytree(folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for where in (
        "huggingface_hub.constants.HF_HUB_CACHE",
        "transformers.utils.hub.constants.HF_HUB_CACHE",
    ):
        monkeypatch.setattr(where, str(tmp_path))
    monkeypatch.setattr(hub, "can_connect", lambda: False)
    model = load_model("somebody/gpt", device="cpu")
    assert (commit, "somebody/gpt") == (model.revision, model.name)
    assert model.tokenizer is not None
    assert f"hub:somebody/gpt@{commit}" == model.identity()
    with torch.no_grad():
        model.module.lm_head.weight[3, 5] += 1
    assert weights_identity(model.module) == model.identity()


def test_half_a_cached_model_is_not_called_a_pickle(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cache has a config and no weights, it is the hub that is missing."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--somebody--gpt" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    shutil.copy(folder / "config.json", snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "hub-unreachable" == code("somebody/gpt", revision=commit)


# --- modules from Python --------------------------------------------------------------------------


def test_any_module_can_be_wrapped() -> None:
    """A plain module has neither a config nor a tokenizer, and is left in its mode."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).double()
    model = wrap_model(module)
    assert ("Sequential", "float64", None) == (model.name, model.dtype, model.context)
    assert model.module is module
    assert module.training


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript itself
def test_modules_that_cannot_be_observed_are_refused() -> None:
    """Compiled, scripted and data parallel modules run past hooks."""
    plain = nn.Sequential(nn.Linear(2, 2))
    inside = nn.Sequential(nn.Linear(2, 2))
    inside[0].compile()
    expected = {
        "compiled-model": [torch.compile(plain), inside, torch.jit.trace(plain, torch.ones(1, 2))],
        "parallel-model": [nn.DataParallel(plain)],
        "not-a-model": [lambda x: x],
    }
    for wanted, modules in expected.items():
        for module in modules:
            with pytest.raises(ModelError) as caught:
                wrap_model(module)
            assert wanted == caught.value.code


# --- identity -------------------------------------------------------------------------------------


def test_identity_is_that_of_the_weights() -> None:
    """Equal weights have one identity; one edited number, another dtype or name, another."""
    one, two = tiny("llama")[0], tiny("llama")[0]
    first = weights_identity(one)
    assert first == weights_identity(two)
    assert first == weights_identity(one)
    with torch.no_grad():
        two.model.layers[1].mlp.down_proj.weight[0, 0] += 1e-6
    assert first != weights_identity(two)
    assert first != weights_identity(one.to(torch.bfloat16))


def test_identity_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call reads no weight."""
    module = nn.Linear(3, 3)
    first = weights_identity(module)
    monkeypatch.setattr("hashlib.sha256", lambda: pytest.fail("hashed again"))
    assert first == weights_identity(module)


def test_identity_covers_persistent_buffers_of_any_kind() -> None:
    """Running means count; buffers that are not saved do not; scalars and empty ones work."""
    norm = nn.BatchNorm1d(2)
    first = weights_identity(norm)
    norm.register_buffer("cache", torch.zeros(3), persistent=False)
    assert first == weights_identity(norm)
    norm.register_buffer("none", torch.zeros(0, dtype=torch.int8))
    second = weights_identity(norm)
    assert first != second
    norm.num_batches_tracked += 1
    assert second != weights_identity(norm)


@pytest.mark.real_weights
def test_smollm2_from_gguf() -> None:
    """A GGUF file loads as the model it is, with its tokenizer."""
    model = load_model(str(smollm2_gguf()), device="cpu")
    assert ("LlamaForCausalLM", "float32", 8192) == (model.class_name, model.dtype, model.context)
    assert len(model.module.model.layers) == 30
    assert " world" == model.tokenizer.decode(model.tokenizer("Hello world")["input_ids"][1:])
