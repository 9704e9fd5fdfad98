"""Models whose samples change each other in a batch: found, and run so that they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import hookql
from hookql.models.feed import TokenFeed
from hookql.models.load import wrap_model
from hookql.models.mixing import Mixing, distance, scale
from hookql.models.ports import HookPoint
from hookql.models.probe import probe
from tests import oracle
from tests.tiny import character_tokenizer

TEXTS = ["Where were you?", "a", "To be, or not to be, that is it.", "the the", "x" * 40, "she"]


def convbert() -> nn.Module:
    """A ConvBERT, whose convolutions look into the padding."""
    torch.manual_seed(0)
    config = hf.ConvBertConfig(
        vocab_size=128,
        hidden_size=32,
        embedding_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    return hf.ConvBertModel(config).eval()


class BatchNormed(nn.Module):
    """Normalises over the whole batch, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(128, 16)
        self.norm = nn.BatchNorm1d(16, track_running_stats=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        return self.norm(x.flatten(0, 1)).reshape(x.shape)


def mixing_of(model: nn.Module, module: str) -> Mixing:
    """What the probe finds for one module's output."""
    wrapped = wrap_model(model, character_tokenizer())
    return probe(wrapped, [HookPoint(module, "output")], TokenFeed(wrapped)).mixing


@pytest.mark.parametrize("massive", [0.0, 1e4, 1e6])
def test_a_leak_is_found_beside_a_massive_activation(massive: float) -> None:
    """Each feature is measured by its own spread; results equal the oracle all the same."""
    model = convbert()
    with torch.no_grad():
        model.encoder.layer[2].output.LayerNorm.bias[0] = massive
    assert Mixing.PADDING is mixing_of(model, "encoder.layer.2")
    tokenizer = character_tokenizer()
    result = hookql.run(
        "capture count, mean, std from encoder.layer[2]",
        model=model,
        tokenizer=tokenizer,
        texts=TEXTS,
    )
    name = "encoder.layer.2"
    outputs = oracle.outputs_of(model, [name], oracle.encode(tokenizer, TEXTS))[name]
    rows = np.concatenate(outputs)[:, 1:]
    oracle.assert_agrees(result.dataset.isel(layer=0, feature=slice(1, None)), rows)


def test_samples_that_change_each_other_run_alone() -> None:
    """Batch statistics: every sample alone is what a sample gives by itself."""
    model = BatchNormed().eval()
    assert Mixing.SAMPLES is mixing_of(model, "norm")
    tokenizer = character_tokenizer()
    result = hookql.run(
        f"capture {oracle.ALL} from norm",
        model=model,
        tokenizer=tokenizer,
        texts=TEXTS[:1] + TEXTS[2:],
    )
    rows = np.concatenate(
        [
            model(row)[0].detach().double().numpy()
            for row in oracle.encode(tokenizer, TEXTS[:1] + TEXTS[2:])
        ]
    )
    oracle.assert_agrees(result.dataset, rows)


class Mixed(nn.Module):
    """Adds to an embedding what a function makes of the whole batch."""

    def __init__(self, mix: Callable[[Tensor], Tensor], table: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(128, 16) if table else None
        self.table = nn.Parameter(torch.randn(128, 16))
        self.out = nn.Identity()
        self.mix = mix

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids) if self.embed else nn.functional.embedding(input_ids, self.table)
        return self.out(x + self.mix(x))


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x.sum(0, keepdim=True),
        lambda x: x / x.shape[0],
        lambda x: x.mean((0, 1), keepdim=True).expand_as(x),
        lambda x: torch.full_like(x, float(x.shape[0])),
    ],
)
def test_every_way_to_look_at_the_batch_is_found(
    mix: Callable[[Tensor], Tensor], table: bool
) -> None:
    """Also where the noise of batching itself is large, or the ids' table is a bare parameter."""
    assert Mixing.SAMPLES is mixing_of(Mixed(mix, table).eval(), "out")


def test_tensors_that_change_each_other_run_alone() -> None:
    """Inputs given directly are tried beside each other too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False)).eval()

    class Sequence(nn.Module):
        """A batch of rows, normalised over batch and positions."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.flatten(0, 1)).reshape(*x.shape[:2], 8)

    rows = torch.randn(6, 5, 4)
    results = [
        hookql.run("capture max from inner", model=Sequence(), inputs={"x": rows}, batch_size=n)
        for n in (1, 3)
    ]
    assert torch.equal(*(torch.from_numpy(result["max"].values) for result in results))


class Reversed(nn.Module):
    """Hands its inner module the positions backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 16)
        self.inner = nn.Identity()

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.inner(self.embed(input_ids).flip(1)).flip(1)


class Sorted(nn.Module):
    """Hands its inner module flat rows, position-major, beside one huge constant feature."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 16)
        self.inner = nn.Identity()

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids).clone()
        x[..., 0] = 1e4
        return self.inner(x.transpose(0, 1).flatten(0, 1))


class Twice(nn.Module):
    """Runs its layer twice on inputs that no probe is long enough to be."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, 16)
        self.layer = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for _ in range(1 + (input_ids.shape[1] > 16)):
            x = self.layer(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("model", "module", "code"),
    [
        (Reversed(), "inner", "unaligned"),
        (Sorted(), "inner", "unaligned"),
        (Twice(), "layer", "varying-calls"),
    ],
)
def test_what_would_be_misread_is_refused(model: Any, module: str, code: str) -> None:
    """Rows in another order than the tokens', and calls that the probe did not see."""
    with pytest.raises(hookql.HookQLError) as caught:
        hookql.run(
            f"capture mean from {module}",
            model=model.eval(),
            tokenizer=character_tokenizer(),
            texts=TEXTS,
        )
    assert code == caught.value.code


def test_a_model_that_changes_itself_is_refused_untouched() -> None:
    """BigBird's block-sparse attention would be exchanged for good by a short input."""
    config = hf.BigBirdConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        attention_type="block_sparse",
        block_size=4,
        num_random_blocks=1,
    )
    model = hf.BigBirdModel(config).eval()
    with pytest.raises(hookql.ModelError) as caught:
        hookql.explain(
            "capture mean from encoder.layer[0]", model=model, tokenizer=character_tokenizer()
        )
    assert "unstable-model" == caught.value.code
    assert "block_sparse" == model.config.attention_type == model.attention_type


def test_dynamic_rotary_frequencies_come_back() -> None:
    """A model that has met a long input keeps its grown frequencies."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    )
    model = hf.LlamaForCausalLM(config).eval()
    long = torch.arange(20, 60)[None]
    with torch.no_grad():
        model(long)
        before = model(long[:, :30]).logits
        hookql.run(
            "capture mean from model.layers[0]",
            model=model,
            tokenizer=character_tokenizer(),
            texts=["a short one"],
        )
        after = model(long[:, :30]).logits
    assert torch.equal(before, after)


def test_a_difference_is_measured_by_each_features_spread() -> None:
    """A feature of 1e6 with a spread of 1 does not hide a shift of 0.1 in another."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 4, generator=generator)
    rows[:, 0] += 1e6
    moved = rows.clone()
    moved[7, 2] += 0.1
    assert 0.05 < distance(rows, moved, scale(rows)) < 0.2
    assert 0.0 == distance(rows, rows, scale(rows))
