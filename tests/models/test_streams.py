"""The decoder's stream of encoder-decoders: its axes, its checks, its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from attrs import evolve
from torch import Tensor, nn

from hookql.data.batches import Batch, collate
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.models.feed import TokenFeed
from hookql.models.hooks import hooked
from hookql.models.load import Model, wrap_model
from hookql.models.mixing import Mixing
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, probe
from tests.tiny import character_tokenizer, tiny

TEXTS = ([20, 21, 22, 23, 24], [30, 31], [40, 41, 42])
TARGETS = ([0, 50], [0, 51, 52, 53, 54, 55], [0, 60, 61])


def bart() -> nn.Module:
    """Positions are learnt, and the decoder has its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.BartForConditionalGeneration(
            hf.BartConfig(
                vocab_size=128, d_model=32, encoder_layers=2, decoder_layers=2,
                encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=32,
                decoder_ffn_dim=32, max_position_embeddings=64, decoder_start_token_id=2,
            )
        ).eval()  # fmt: skip


def marian() -> nn.Module:
    """The decoder's vocabulary is the smaller one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.MarianMTModel(
            hf.MarianConfig(
                vocab_size=128, decoder_vocab_size=20, d_model=32, encoder_layers=1,
                decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
                encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
                share_encoder_decoder_embeddings=False, pad_token_id=0, eos_token_id=1,
                decoder_start_token_id=0,
            )
        ).eval()  # fmt: skip


def bert2bert() -> nn.Module:
    """Two models in one, each with a config of its own."""
    common: dict[str, Any] = {
        "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 4, "max_position_embeddings": 64,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = hf.EncoderDecoderConfig.from_encoder_decoder_configs(
            hf.BertConfig(**common), hf.BertConfig(**common)
        )
        config.decoder_start_token_id = 5
        return hf.EncoderDecoderModel(config).eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "t5": (lambda: tiny("t5")[0], "encoder.block.1", "decoder.block.2"),
    "bart": (bart, "model.encoder.layers.1", "model.decoder.layers.1"),
    "marian": (marian, "model.encoder.layers.0", "model.decoder.layers.0"),
    "bert2bert": (bert2bert, "encoder.encoder.layer.0", "decoder.bert.encoder.layer.0"),
}


def prepared(module: nn.Module, has_target: bool = True) -> tuple[Model, TokenFeed]:
    """A model and its feed."""
    model = wrap_model(module, character_tokenizer())
    feed = TokenFeed(model)
    feed.has_target = has_target
    return model, feed


def learn(module: nn.Module, *names: str, has_target: bool = True) -> Probe:
    """What the probe learns of the outputs of some modules."""
    model, feed = prepared(module, has_target)
    return probe(model, [HookPoint(name, "output") for name in names], feed)


@pytest.mark.parametrize("name", MODELS)
def test_each_stack_has_its_stream(name: str) -> None:
    """The encoder's rows are the text's tokens, the decoder's the target's; no padding leaks."""
    make, encoder, decoder = MODELS[name]
    found = learn(make(), encoder, decoder)
    assert {} == found.problems
    assert ["text", "target"] == [seen.layout.stream for seen in found.seen.values()]
    assert [("batch", "position", 32)] * 2 == [seen.shape for seen in found.seen.values()]
    assert Mixing.NONE is found.mixing


@pytest.mark.parametrize("name", MODELS)
def test_without_a_target_only_the_encoder_can_be_read(name: str) -> None:
    """The decoder is fed one start token then, which tells nothing."""
    make, encoder, decoder = MODELS[name]
    found = learn(make(), encoder, decoder, has_target=False)
    assert [encoder] == [point.module for point in found.seen]
    assert ["needs-target"] == [problem.code for problem in found.problems.values()]


def test_what_is_said_without_a_target(golden: Callable[[str, str], None]) -> None:
    """The switch is named."""
    found = learn(tiny("t5")[0], "decoder.block.2", has_target=False)
    golden("models/needs-target.txt", f"{found.problems[HookPoint('decoder.block.2', 'output')]}\n")


def batch_of(texts: Any, targets: Any) -> Batch:
    """A padded batch of both streams."""

    def context(number: int, ids: list[int]) -> Context:
        size = len(ids)
        sample = (Sample(number, "", {}),)
        return Context(np.array(ids), np.zeros(size, bool), np.zeros(size, np.int64), sample)

    rows = [context(n, ids) for n, ids in enumerate(texts)]
    if targets is not None:
        rows = [evolve(r, target=context(n, targets[n])) for n, r in enumerate(rows)]
    return collate(rows)


@pytest.mark.parametrize("name", ["t5", "bart", "bert2bert"])
def test_a_padded_batch_gives_the_rows_of_each_sample(name: str) -> None:
    """Both streams together, each padded to its own longest, against one sample at a time."""
    make, encoder, decoder = MODELS[name]
    model, feed = prepared(make())
    points = {"text": HookPoint(encoder, "output"), "target": HookPoint(decoder, "output")}
    seen = probe(model, list(points.values()), feed).seen

    def rows_of(batch: Batch) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}
        taps: Any = {
            point: lambda tensor, stream=stream: kept.__setitem__(stream, tensor.clone())
            for stream, point in points.items()
        }
        with torch.no_grad(), hooked(model.module, taps):
            model.module(**feed.for_batch(batch))
        assert batch.target is not None
        shapes = {"text": batch.mask.shape, "target": batch.target.mask.shape}
        return {s: seen[p].layout.rows(kept[s], *shapes[s]) for s, p in points.items()}

    padded = rows_of(batch_of(TEXTS, TARGETS))
    for number, (text, target) in enumerate(zip(TEXTS, TARGETS, strict=True)):
        alone = rows_of(batch_of([text], [target]))
        for stream, ids, width in (("text", text, 5), ("target", target, 6)):
            mine = padded[stream][number * width : number * width + len(ids)]
            torch.testing.assert_close(mine, alone[stream], rtol=1e-5, atol=1e-5)


def test_a_batch_without_a_target_feeds_a_start_token() -> None:
    """One for each sample, and no mask; with one, what it holds and its mask."""
    _, feed = prepared(bart())
    assert 2 == feed.decoder_start
    without = feed.for_batch(batch_of(TEXTS, None))
    assert [[2], [2], [2]] == without["decoder_input_ids"].tolist()
    assert "decoder_attention_mask" not in without
    inputs = feed.for_batch(batch_of(TEXTS, TARGETS))
    assert [0, 51, 52, 53, 54, 55] == inputs["decoder_input_ids"][1].tolist()
    assert [[1] * 2 + [0] * 4, [1] * 6, [1] * 3 + [0] * 3] == (
        inputs["decoder_attention_mask"].tolist()
    )


def test_a_decoders_probe_stays_within_its_vocabulary() -> None:
    """Ids that only the encoder knows would be out of its table's range."""
    _, feed = prepared(marian())
    for size in feed.sizes():
        target = feed.random_target(size)
        assert target is not None
        assert (size.batch, size.decoder) == target.shape
        assert int(target.max()) < 20
        assert [0] * size.batch == target[:, 0].tolist()


class Pair(nn.Module):
    """An encoder-decoder whose decoder does something of its own with the rows."""

    def __init__(self, decode: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = hf.T5Config(vocab_size=128, decoder_start_token_id=0)
        self.embed = nn.Embedding(128, 16)
        self.encoder, self.decoder = nn.Identity(), nn.Identity()
        self.decode = decode

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> Tensor:
        """Rows of the decoder from both embeddings and the text's mask."""
        text = self.encoder(self.embed(input_ids))
        return self.decoder(self.decode(text, self.embed(decoder_input_ids), attention_mask))


@pytest.mark.parametrize(
    ("decode", "mixing"),
    [
        (lambda text, rows, mask: rows, Mixing.NONE),
        (lambda text, rows, mask: rows + text[:, :1], Mixing.NONE),
        (lambda text, rows, mask: rows + text.mean(1, keepdim=True), Mixing.SAMPLES),
        (lambda text, rows, mask: rows + rows.mean(1, keepdim=True), Mixing.SAMPLES),
        (
            lambda text, rows, mask: (
                rows + (text * mask[..., None]).sum(1, keepdim=True) / mask.sum()
            ),
            Mixing.SAMPLES,
        ),
    ],
)
def test_padding_of_either_stream_that_leaks_into_the_decoder_is_found(
    decode: Any, mixing: Mixing
) -> None:
    """Equal lengths in both streams cannot be had: such samples run alone."""
    assert mixing is learn(Pair(decode).eval(), "encoder", "decoder").mixing


@pytest.mark.parametrize(
    ("decode", "wrong"),
    [
        (lambda text, rows, mask: rows[rows[:, -1].sum(1).argsort()], "samples"),
        (lambda text, rows, mask: rows.flip(1), "positions"),
    ],
)
def test_rows_of_the_decoder_that_follow_nothing_are_refused(decode: Any, wrong: str) -> None:
    """Samples or positions in another order than the target's."""
    problem = learn(Pair(decode).eval(), "decoder").problems[HookPoint("decoder", "output")]
    assert "unaligned" == problem.code
    assert f"do not follow the {wrong}" in problem.message
