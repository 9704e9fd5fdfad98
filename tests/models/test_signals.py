"""Signals of the prediction, against NumPy in float64; and which models have any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from hookql.data.batches import collate
from hookql.data.encode import Context
from hookql.data.samples import Sample
from hookql.errors import Diagnostic
from hookql.models.feed import TokenFeed
from hookql.models.load import Model, load_model, wrap_model
from hookql.models.ports import HookPoint
from hookql.models.probe import Probe, probe
from hookql.models.signals import logits_point, not_causal, read_signals, signals
from tests.tiny import character_tokenizer, tiny
from tests.weights import smollm2_folder

ALL = ("surprisal", "loss", "prob", "rank", "entropy")
BERT: dict[str, Any] = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip


def reference(logits: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """What the signals of one sample must be, from logits (S, V): NaN where there are none."""
    length = len(ids)
    found = {name: np.full(length, np.nan) for name in ALL}
    for t, row in enumerate(logits.astype(np.float64)):
        logs = row - row.max() - np.log(np.exp(row - row.max()).sum())
        p = np.exp(logs)
        found["entropy"][t] = -(p[p > 0] * logs[p > 0]).sum()
        if t + 1 < length:
            own = ids[t + 1]
            found["loss"][t] = found["surprisal"][t + 1] = -logs[own]
            found["prob"][t] = p[own]
            found["rank"][t] = (row > row[own]).sum()
    return found


def assert_agrees(
    found: dict[str, Tensor], logits: Tensor, ids: Tensor, lengths: list[int], within: float = 2e-5
) -> None:
    """Every signal of every token that has one is the reference's."""
    for row, length in enumerate(lengths):
        expected = reference(logits[row, :length].double().numpy(), ids[row, :length].numpy())
        for name, values in found.items():
            assert torch.float64 == values.dtype
            mine = values[row, :length].numpy()
            where = ~np.isnan(expected[name])
            assert length - (name != "entropy") == where.sum()
            tight = 0 if name == "rank" else within
            np.testing.assert_allclose(
                mine[where], expected[name][where], rtol=tight, atol=tight, err_msg=name
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_signals_of_made_up_logits(dtype: torch.dtype) -> None:
    """Also where many logits are equal, as they are in half precision."""
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(4, 9, 50, generator=generator) * 5).to(dtype)
    logits[1] = (logits[1] / 4).round()
    ids = torch.randint(50, (4, 9), generator=generator)
    lengths = [9, 7, 2, 1]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    within = 1e-12 if dtype == torch.float64 else 2e-5
    assert_agrees(signals(logits, ids, mask, ALL), logits, ids, lengths, within)


@pytest.mark.parametrize("rows", [1, 2, 5, 36])
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """However few rows fit into the memory that a piece may take."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 9, 50, generator=generator)
    ids = torch.randint(50, (4, 9), generator=generator)
    mask = torch.ones(4, 9, dtype=torch.bool)
    whole = signals(logits, ids, mask, ALL)
    monkeypatch.setattr("hookql.models.signals._PIECE_BYTES", rows * 50 * 4 * 4)
    pieces = signals(logits, ids, mask, ALL)
    for name in ALL:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_each_signal_alone_is_the_same(name: str) -> None:
    """What is not wanted is not computed, and not returned."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 5, 20, generator=generator)
    ids = torch.randint(20, (2, 5), generator=generator)
    mask = torch.ones(2, 5, dtype=torch.bool)
    alone = signals(logits, ids, mask, [name])
    assert [name] == list(alone)
    assert torch.equal(signals(logits, ids, mask, ALL)[name], alone[name])


def test_nan_logits_give_nan() -> None:
    """Only in the rows that have them, and never a rank that looks right."""
    logits = torch.randn(1, 4, 10, generator=torch.Generator().manual_seed(3))
    logits[0, 1, 7] = torch.nan
    found = signals(logits, torch.tensor([[1, 2, 3, 4]]), torch.ones(1, 4).bool(), ALL)
    for name, values in found.items():
        bad = 2 if name == "surprisal" else 1
        assert [t == bad for t in range(4)] == values[0].isnan().tolist()


def test_a_certain_prediction_and_an_impossible_one() -> None:
    """Logits of minus infinity: probability 0, infinite loss, entropy without NaN."""
    logits = torch.full((1, 3, 5), -torch.inf)
    logits[0, :, 2] = 1.0
    found = signals(logits, torch.tensor([[0, 2, 3]]), torch.ones(1, 3).bool(), ALL)
    assert [0.0, torch.inf] == found["loss"][0, :2].tolist()
    assert [1.0, 0.0] == found["prob"][0, :2].tolist()
    assert [0.0, 1.0] == found["rank"][0, :2].tolist()
    assert [0.0, 0.0, 0.0] == found["entropy"][0].tolist()


def test_a_token_that_the_head_cannot_predict_has_no_number() -> None:
    """An embedding may be wider than the head."""
    logits = torch.zeros(1, 3, 4)
    found = signals(logits, torch.tensor([[1, 9, 2]]), torch.ones(1, 3).bool(), ALL)
    assert [True, False] == found["loss"][0, :2].isnan().tolist()
    assert [True, False] == found["rank"][0, :2].isnan().tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_signals_of_smollm2(dtype: str) -> None:
    """Real logits over 49,152 tokens, in a padded batch, each sample as it is by itself."""
    model = load_model(str(smollm2_folder()), dtype=dtype, device="cpu")
    texts = ["The capital of France is Paris, which lies on the Seine.", "Once upon", "Hello"]
    rows = [model.tokenizer(text, return_tensors="pt")["input_ids"] for text in texts]
    lengths = [row.shape[1] for row in rows]
    ids = torch.full((3, lengths[0]), 2)
    for number, row in enumerate(rows):
        ids[number, : lengths[number]] = row
    mask = torch.arange(lengths[0]) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        padded = model.module(input_ids=ids, attention_mask=mask.long()).logits
        alone = model.module(input_ids=rows[0]).logits
    found = signals(padded, ids, mask, ALL)
    assert_agrees(found, padded, ids, lengths)
    if dtype == "float32":
        expected = reference(alone[0].double().numpy(), rows[0][0].numpy())
        for name in ("loss", "entropy"):
            mine = found[name][0, : lengths[0] - 1].numpy()
            np.testing.assert_allclose(mine, expected[name][:-1], rtol=1e-4, atol=1e-4)


def test_columns_are_undefined_where_they_mean_nothing() -> None:
    """The first token has no surprisal; the last no loss; padding nothing at all."""
    contexts = [
        Context(np.array(ids), np.zeros(len(ids), bool), np.zeros(len(ids), int), (sample,))
        for sample, ids in ((Sample(0, "", {}), [5, 6, 7]), (Sample(1, "", {}), [8]))
    ]
    columns = read_signals(torch.randn(2, 3, 20), collate(contexts), ALL)
    expected = {"surprisal": [[False, True, True], [False] * 3],
                "entropy": [[True] * 3, [True, False, False]]}  # fmt: skip
    followed = [[True, True, False], [False] * 3]
    for name, column in columns.items():
        assert expected.get(name, followed) == column.defined.tolist()
        assert (2, 3) == column.value.shape


class Plain(nn.Module):
    """A module that is no model of transformers."""

    def __init__(self, width: int, shift: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(128, 16)
        self.head = nn.Linear(16, width)
        self.shift = shift

    def forward(self, input_ids: Tensor) -> Tensor:
        """A head on the embedding, or on that of the token after."""
        x = self.head(self.embed(input_ids))
        return x + x.roll(-1, 1) if self.shift else x


def learnt(module: nn.Module) -> tuple[Probe, HookPoint]:
    """What the probe says of a model's logits."""
    model = wrap_model(module.eval(), character_tokenizer())
    point = logits_point(model)
    assert isinstance(point, HookPoint)
    return probe(model, [point], TokenFeed(model)), point


@pytest.mark.parametrize(
    ("module", "causal"),
    [
        (lambda: tiny("gpt2")[0], True),
        (lambda: tiny("mixtral")[0], True),
        (lambda: tiny("mamba")[0], True),
        (lambda: tiny("gemma2")[0].bfloat16(), True),
        (lambda: hf.BertLMHeadModel(hf.BertConfig(**BERT, is_decoder=True)), True),
        (lambda: hf.BertLMHeadModel(hf.BertConfig(**BERT)), False),
        (lambda: hf.BertLMHeadModel(hf.BertConfig(**BERT)).bfloat16(), False),
        (lambda: Plain(128), True),
        (lambda: Plain(128, shift=True), False),
    ],
)
def test_causality_is_tried_out(module: Callable[[], nn.Module], causal: bool) -> None:
    """Other tokens at the end show whether the logits before them rest on these."""
    torch.manual_seed(0)
    found, point = learnt(module())
    assert point in found.seen
    assert causal is found.causal


def test_causality_is_not_asked_where_no_logits_are() -> None:
    """The probe runs nothing for it."""
    module, tokenizer, _ = tiny("gpt2")
    model = wrap_model(module, tokenizer)
    assert probe(model, [HookPoint("transformer.h.1", "output")], TokenFeed(model)).causal is None


def test_what_is_said_of_models_without_signals(golden: Callable[[str, str], None]) -> None:
    """No head, a head that looks both ways, a decoder behind an encoder, another width."""

    def told(module: nn.Module) -> str:
        model: Model = wrap_model(module.eval(), character_tokenizer())
        found = logits_point(model)
        if isinstance(found, HookPoint):
            found = probe(model, [found], TokenFeed(model)).problems[found]
        assert isinstance(found, Diagnostic)
        return str(found)

    bert = hf.BertConfig(**BERT)
    gpt2 = tiny("gpt2")[0]
    cases = {
        "a decoder without its head": told(gpt2.transformer),
        "an encoder": told(tiny("bert")[0]),
        "a vision model": told(tiny("vit")[0]),
        "a classifier": told(hf.GPT2ForSequenceClassification(gpt2.config)),
        "a head for masked tokens": told(hf.BertForMaskedLM(bert)),
        "an encoder-decoder": told(tiny("t5")[0]),
        "a plain module": told(Plain(5)),
        "a head that looks both ways": str(
            not_causal(wrap_model(hf.BertLMHeadModel(bert), character_tokenizer()))
        ),
    }
    golden("models/signals.txt", "\n".join(f"# {name}\n{text}\n" for name, text in cases.items()))
