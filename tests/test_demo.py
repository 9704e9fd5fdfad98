"""The demo model: it loads offline, is what its card says, and beats a bigram model."""

from __future__ import annotations

import json
import math
import socket
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hookql.demo import model_path, text_path

LOADED_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Any:
    """Let no test of this file reach for a hub."""

    def refuse(*_: object) -> None:
        pytest.fail("the demo model asked for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Return the demo's tokenizer."""
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model() -> Any:
    """Return the demo model."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(model_path())
    return loaded.eval()


@pytest.fixture(scope="module")
def figures() -> Any:
    """Return what was measured when the model was made."""
    return json.loads((model_path() / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Return the samples of the demo's text."""
    return text_path().read_text(encoding="utf-8").removesuffix("\n").split("\n")


def mean_loss(model: Any, tokenizer: Any, lines: list[str]) -> tuple[int, float]:
    """Return how many tokens follow another in their line, and their mean loss in nats."""
    losses: list[float] = []
    for line in lines:
        ids = torch.tensor([tokenizer(line).input_ids])
        with torch.inference_mode():
            likelihoods = model(ids).logits.double().log_softmax(dim=-1)
        losses += [-float(likelihoods[0, i, ids[0, i + 1]]) for i in range(ids.shape[1] - 1)]
    return len(losses), math.fsum(losses) / len(losses)


def test_model_is_what_the_demo_needs(model: Any) -> None:
    """The model is a GPT-2 of 6 layers or more, in float32, with all of its weights finite."""
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert len(model.transformer.h) == model.config.n_layer >= 6
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert model.lm_head.weight is model.transformer.wte.weight


def test_every_weight_is_in_the_file() -> None:
    """Nothing is left to chance: no weight of the model is missing from its file, or too many."""
    loader: Any = AutoModelForCausalLM
    _, report = loader.from_pretrained(model_path(), output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_tokenizer_is_like_gpt2s(model: Any, tokenizer: Any) -> None:
    """One token begins and ends a text, none pads, and nothing is added to what is encoded."""
    assert "<|endoftext|>" == tokenizer.bos_token == tokenizer.eos_token
    assert tokenizer.pad_token is None
    assert tokenizer.unk_token is None
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.n_positions == tokenizer.model_max_length
    assert not tokenizer("").input_ids


@pytest.mark.parametrize(
    "text", ["In the beginning", " two  spaces ", "naïve café — 東京 🙂", "a\tb\r\nc", "\x00"]
)
def test_tokenizer_spells_any_text(tokenizer: Any, text: str) -> None:
    """Any text comes back from its tokens as it was."""
    assert text == tokenizer.decode(tokenizer(text).input_ids)


def test_folder_is_small_and_complete() -> None:
    """The folder holds what transformers loads, and stays under 8 MB."""
    names = {path.name for path in model_path().iterdir()}
    assert names >= LOADED_FILES
    size = sum(path.stat().st_size for path in model_path().rglob("*") if path.is_file())
    assert size < 8_000_000


def test_text_is_varied_english(tokenizer: Any, lines: list[str], figures: Any) -> None:
    """Each line is a sample that fits the context; the lengths vary."""
    text = figures["text"]
    assert text["held_out_lines"] + text["modern_lines"] == len(lines)
    assert len(set(lines)) == len(lines)
    words = [len(line.split()) for line in lines]
    assert min(words) >= 5
    assert max(words) <= 150
    assert min(words) * 10 < max(words)
    tokens = [len(tokenizer(line).input_ids) for line in lines]
    assert max(tokens) <= tokenizer.model_max_length


def test_held_out_loss_is_the_recorded_one_and_beats_a_bigram(
    model: Any, tokenizer: Any, lines: list[str], figures: Any
) -> None:
    """The loss, computed anew on the text's held-out lines, is the card's and below a bigram's."""
    text = figures["text"]
    tokens, loss = mean_loss(model, tokenizer, lines[: text["held_out_lines"]])
    assert text["tokens"] == tokens
    assert loss == pytest.approx(text["model"], abs=1e-3)
    assert loss < text["bigram"] < text["unigram"]
    assert figures["held_out"]["model"] < figures["held_out"]["bigram"]


def test_todays_english_is_no_noise_to_it(
    model: Any, tokenizer: Any, lines: list[str], figures: Any
) -> None:
    """The lines of today's English are far likelier than chance, though harder than the Bible."""
    _, modern = mean_loss(model, tokenizer, lines[figures["text"]["held_out_lines"] :])
    assert figures["text"]["model"] < modern < figures["uniform"] - 1


def test_card_says_the_recorded_figures(figures: Any) -> None:
    """The card's losses and steps are those of training.json."""
    card = (model_path() / "README.md").read_text(encoding="utf-8")
    for losses in (figures["held_out"], figures["text"]):
        for name in ("model", "bigram", "unigram"):
            assert f"{losses[name]:.3f}" in card
    assert f"{figures['training']['steps']:,} steps" in card
    assert figures["corpus"]["sha256"] in card
