"""What the probe finds out by running: leaks, randomness, rows that do not follow the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import hookql
from hookql.errors import ModelError
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, wrap_model
from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, probe
from tests import oracle
from tests.tiny import character_tokenizer, tiny

TEXTS = ["Where were you?", "a", "the the", "In 1969, two", "abcdefg", "O, to be!", "gfedcba"]
COMMON: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def learn(module: nn.Module, *names: str) -> Probe:
    """What the probe learns of the outputs of some modules."""
    model = wrap_model(module, character_tokenizer())
    return probe(model, [HookPoint(name, "output") for name in names], TokenFeed(model))


def fnet() -> nn.Module:
    """FNet mixes tokens by a Fourier transform over all positions, padding included."""
    return hf.FNetModel(hf.FNetConfig(**{k: v for k, v in COMMON.items() if "heads" not in k}))


def convbert() -> nn.Module:
    """ConvBERT's convolutions look into the padding."""
    return hf.ConvBertModel(hf.ConvBertConfig(**COMMON, embedding_size=32, head_ratio=2))


def mobilebert() -> nn.Module:
    """MobileBERT takes its embeddings three tokens at a time."""
    return hf.MobileBertModel(
        hf.MobileBertConfig(
            **COMMON, embedding_size=32, intra_bottleneck_size=16, true_hidden_size=16
        )
    )


class Bidirectional(nn.Module):
    """Attends in both directions, and knows no mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        """One layer and a head."""
        return self.head(self.layer(self.embed(input_ids)))


def seeded(make: Any) -> nn.Module:
    """A model with weights that are the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        module: nn.Module = make().eval()
        with torch.no_grad():  # an embedding of zeros for padding would hide a leak
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return module


@pytest.mark.parametrize(
    ("make", "site"),
    [
        (fnet, "encoder.layer.1"),
        (convbert, "encoder.layer.1"),
        (mobilebert, "encoder.layer.1"),
        (Bidirectional, "layer"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"tokens_per_batch": 10_000}])
def test_models_whose_padding_leaks_still_agree_with_the_oracle(
    make: Any, site: str, options: Any
) -> None:
    """They are found out, and run in batches of equal lengths: the oracle's numbers."""
    model, tokenizer = seeded(make), character_tokenizer()
    assert Mixing.PADDING is learn(model, site).mixing
    result = hookql.run(
        f"capture {oracle.ALL} from {site}",
        model=model,
        tokenizer=tokenizer,
        texts=TEXTS,
        **options,
    )
    seen: list[np.ndarray] = []
    handle = model.get_submodule(site).register_forward_hook(
        lambda _, __, out: seen.append((out[0] if isinstance(out, tuple) else out)[0].numpy())
    )
    with torch.no_grad():
        for row in oracle.encode(tokenizer, TEXTS):
            model(row)
    handle.remove()
    data = result.dataset if "layer" not in result.dims else result.dataset.isel(layer=0)
    oracle.assert_agrees(data, np.concatenate(seen).astype(np.float64))
    assert 0 == result.attrs["tokens_padding"]


@pytest.mark.parametrize(
    ("name", "module"),
    [("gpt2", "transformer.h.3"), ("bert", "encoder.layer.2"), ("bloom", "transformer.h.2"),
     ("roberta", "encoder.layer.2"), ("t5", "encoder.block.1"), ("mamba", "backbone.layers.1")],
)  # fmt: skip
def test_models_that_mask_their_padding_do_not_leak(name: str, module: str) -> None:
    """The ordinary families may share batches of different lengths."""
    model, tokenizer, _ = tiny(name)
    wrapped = wrap_model(model, tokenizer)
    learnt = probe(wrapped, [HookPoint(module, "output")], TokenFeed(wrapped))
    assert Mixing.NONE is learnt.mixing


def test_what_leaks_only_after_the_hook_points_does_not_matter() -> None:
    """The embedding of a leaking model is clean: it is batched freely."""
    model = seeded(Bidirectional)
    assert Mixing.NONE is learn(model, "embed").mixing
    assert Mixing.PADDING is learn(model, "embed", "layer").mixing


class Noisy(nn.Module):
    """Adds noise, whatever the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.noise = nn.Identity()

    def forward(self, input_ids: Tensor) -> Tensor:
        """Random."""
        x = self.embed(input_ids)
        return self.noise(x + torch.randn_like(x))


def test_a_random_model_is_refused() -> None:
    """Two equal runs differ: the number would mean nothing."""
    with pytest.raises(ModelError) as caught:
        learn(Noisy().eval(), "noise")
    assert "not-repeatable" == caught.value.code
    assert "`noise:output`" in caught.value.message


def test_what_is_not_random_of_a_random_model_is_fine() -> None:
    """The embedding before the noise repeats."""
    assert [HookPoint("embed", "output")] == list(learn(Noisy().eval(), "embed").seen)


class Permuting(nn.Module):
    """Sorts the samples by something, as routing does: the shape is right, the rows are not."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.inner = nn.Linear(8, 8)
        self.head = nn.Linear(8, 8)
        self.flat = flat

    def forward(self, input_ids: Tensor) -> Tensor:
        """Run the inner layer on the rows in another order, and put them back."""
        x = self.embed(input_ids)
        rows = x.flatten(0, 1) if self.flat else x
        order = rows.flatten(1).sum(1).argsort()
        out = self.inner(rows[order])[order.argsort()]
        return self.head(out.reshape(x.shape))


@pytest.mark.parametrize("flat", [True, False])
def test_rows_in_another_order_are_refused(flat: bool) -> None:
    """Shapes say nothing of it: exchanging the samples does."""
    model = seeded(lambda: Permuting(flat))
    learnt = learn(model, "embed", "inner", "head")
    assert ["embed", "head"] == [point.module for point in learnt.seen]
    problem = learnt.problems[HookPoint("inner", "output")]
    assert "unaligned" == problem.code
    assert "do not follow the samples" in problem.message
    with pytest.raises(hookql.QueryError):
        hookql.run(
            "capture mean from inner", model=model, tokenizer=character_tokenizer(), texts=TEXTS
        )


class SequenceFirst(nn.Module):
    """Works on (S, B, F) inside, on (B * S, F) and on (1, S, F)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)
        self.positions = nn.Embedding(64, 8)
        self.first = nn.Linear(8, 8)
        self.flat = nn.Linear(8, 8)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Three layouts in one model."""
        here = torch.arange(input_ids.shape[1])[None]
        x = self.embed(input_ids) + self.positions(here)
        x = self.first(x.transpose(0, 1)).transpose(0, 1)
        return self.flat(x.reshape(-1, 8)).reshape(x.shape)


def test_layouts_of_one_model() -> None:
    """Each is found, and each gives the oracle's numbers over padded batches."""
    model, tokenizer = seeded(SequenceFirst), character_tokenizer()
    learnt = learn(model, "first", "flat", "positions", "embed")
    shapes = {point.module: seen.shape for point, seen in learnt.seen.items()}
    assert {
        "first": ("position", "batch", 8),
        "flat": ("batch*position", 8),
        "positions": (1, "position", 8),
        "embed": ("batch", "position", 8),
    } == shapes
    assert Mixing.NONE is learnt.mixing
    ids = oracle.encode(tokenizer, TEXTS)
    with torch.no_grad():
        embedded = [model.embed(row) + model.positions(torch.arange(row.shape[1])) for row in ids]
        expected = {
            "first": [model.first(x)[0] for x in embedded],
            "flat": [model.flat(model.first(x))[0] for x in embedded],
            "positions": [model.positions(torch.arange(row.shape[1])) for row in ids],
        }
    for module, samples in expected.items():
        result = hookql.run(
            f"capture {oracle.ALL} from {module}", model=model, tokenizer=tokenizer, texts=TEXTS
        )
        rows = np.concatenate([sample.double().numpy() for sample in samples])
        oracle.assert_agrees(result.dataset, rows)


def test_calls_and_order_are_learnt() -> None:
    """The events are the order of execution; a shared layer's calls are counted."""
    model, tokenizer, _ = tiny("albert")
    wrapped: Model = wrap_model(model, tokenizer)
    name = "encoder.albert_layer_groups.0.albert_layers.0"
    learnt = probe(wrapped, [HookPoint(name, "output")], TokenFeed(wrapped))
    assert model.config.num_hidden_layers == learnt.seen[HookPoint(name, "output")].calls
    assert ("input", "") == learnt.events[0]
    assert ("output", "") == learnt.events[-1]
    assert model.config.num_hidden_layers == learnt.events.count(("output", name))


class Broken(nn.Module):
    """Fails on whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 8)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Fail."""
        raise IndexError(f"no {self.embed(input_ids).shape[-1]}")


def test_a_model_that_cannot_run_is_one_clear_error() -> None:
    """Its own words stand in a note."""
    with pytest.raises(ModelError) as caught:
        learn(Broken(), "embed")
    assert "probe-failed" == caught.value.code
    assert ("IndexError: no 8",) == caught.value.notes


@pytest.mark.parametrize("context", [3, 5, 11, 64])
def test_models_of_any_context_can_be_probed(context: int) -> None:
    """The probe's inputs fit into the model's context."""
    config = hf.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=128, n_positions=context)
    model = hf.GPT2LMHeadModel(config).eval()
    result = hookql.run(
        "capture mean from h[0]", model=model, tokenizer=character_tokenizer(), texts=["abcdef"]
    )
    assert 6 == int(result["count"])


def test_a_context_too_short_to_probe_is_refused() -> None:
    """Two tokens tell nothing apart."""
    config = hf.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=128, n_positions=2)
    with pytest.raises(ModelError) as caught:
        learn(hf.GPT2LMHeadModel(config).eval(), "transformer.h.0")
    assert "context-too-short" == caught.value.code


def test_the_probe_feeds_no_special_tokens() -> None:
    """Padding and end tokens would mean something to some models."""
    model, tokenizer, _ = tiny("gpt2")
    ids = TokenFeed(wrap_model(model, tokenizer)).random_ids(5, 64)
    assert not set(ids.flatten().tolist()) & set(tokenizer.all_special_ids)
    assert int(ids.max()) < 128
