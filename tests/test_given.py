"""Model inputs given directly: ids in every padding, pixels, embeddings, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hookql
from tests import oracle
from tests.tiny import character_tokenizer, tiny

TEXTS = ["Where were you?", "a", "To be, or not to be.", "x" * 30]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizers_whole_output_may_be_given(side: str) -> None:
    """Ids, mask and token types of BERT, padded on either side: positions count real tokens."""
    model, _, _ = tiny("bert")
    tokenizer = character_tokenizer(side, cls=True)
    inputs = dict(tokenizer(TEXTS, return_tensors="pt", padding=True))
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    outputs = oracle.outputs_of(model, ["encoder.layer.2"], oracle.encode(tokenizer, TEXTS))
    for where, pick in {
        "position == -1": slice(-1, None),
        "position == 0": slice(0, 1),
        "not special": slice(1, -1),
        "position in {1, 2}": slice(1, 3),
    }.items():
        query = f"capture {oracle.ALL} from encoder.layer[2] where {where}"
        result = hookql.run(query, model=model, tokenizer=tokenizer, inputs=inputs)
        rows = np.concatenate([row[pick] for row in outputs["encoder.layer.2"]])
        oracle.assert_agrees(result.dataset.isel(layer=0), rows)


def test_token_types_travel_with_their_tokens() -> None:
    """Token types that are not zero change BERT's rows, and do so for the right tokens."""
    model, _, _ = tiny("bert")
    ids = torch.tensor([[0, 0, 20, 21, 22, 23], [30, 31, 32, 33, 34, 35]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
    result = hookql.run(
        f"capture {oracle.ALL} from encoder.layer[1]",
        model=model,
        inputs={"input_ids": ids, "attention_mask": mask, "token_type_ids": types},
    )
    rows = []
    for row, start in ((0, 2), (1, 0)):
        kept = oracle.outputs_of(
            model,
            ["encoder.layer.1"],
            [ids[row : row + 1, start:]],
            token_type_ids=types[row : row + 1, start:],
        )
        rows += kept["encoder.layer.1"]
    oracle.assert_agrees(result.dataset.isel(layer=0), np.concatenate(rows))


def test_limit_counts_samples_of_inputs() -> None:
    """`limit` takes the first samples of ids and of tensors."""
    model, _, _ = tiny("gpt2")
    ids = torch.arange(20, 80).reshape(6, 10)
    result = hookql.run(
        "capture mean from transformer.h[0]", model=model, inputs={"input_ids": ids}, limit=2
    )
    assert 20 == int(result["count"])
    vit, _, _ = tiny("vit")
    pixels = torch.randn(5, 3, 32, 32)
    result = hookql.run(
        "capture mean from layers[0]", model=vit, inputs={"pixel_values": pixels}, limit=2
    )
    assert 2 * 17 == int(result["count"])


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a mask with holes": (
        {"input_ids": torch.ones(1, 4).long(), "attention_mask": torch.tensor([[1, 0, 1, 1]])},
        {},
        "bad-inputs",
    ),
    "tensors of another shape": (
        {"input_ids": torch.ones(1, 4).long(), "position_ids": torch.ones(4).long()},
        {},
        "bad-inputs",
    ),
    "an additive mask": (
        {"input_ids": torch.ones(1, 4).long(), "attention_mask": torch.tensor([[0, 0, 0, -1e9]])},
        {},
        "bad-inputs",
    ),
    "decoder inputs": (
        {"input_ids": torch.ones(1, 4).long(), "decoder_input_ids": torch.ones(1, 4).long()},
        {},
        "bad-inputs",
    ),
    "padded embeddings": (
        {"inputs_embeds": torch.ones(1, 4, 32), "attention_mask": torch.tensor([[1, 1, 1, 0]])},
        {},
        "bad-inputs",
    ),
    "an unknown name": ({"pixels": torch.ones(1, 4)}, {}, "unknown-input"),
    "an option of text": ({"input_ids": torch.ones(1, 4).long()}, {"max_length": 2}, "bad-option"),
    "too long": ({"input_ids": torch.ones(1, 65).long()}, {}, "too-long"),
}


TEXT_IDS = torch.tensor([[20, 21, 22, 23, 24], [30, 31, 0, 0, 0], [40, 41, 42, 0, 0]])
TEXT_LENGTHS = (5, 2, 3)
TARGET_IDS = torch.tensor([[0, 50, 0, 0, 0], [0, 51, 52, 53, 54], [0, 60, 61, 0, 0]])
TARGET_LENGTHS = (2, 5, 3)


def two_streams(side: str) -> dict[str, torch.Tensor]:
    """Ids and masks of texts and targets, padded on one side."""
    inputs = {}
    for prefix, ids, lengths in (
        ("", TEXT_IDS, TEXT_LENGTHS),
        ("decoder_", TARGET_IDS, TARGET_LENGTHS),
    ):
        mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).long()
        if side == "left":
            ids = torch.stack([row.roll(5 - n) for row, n in zip(ids, lengths, strict=True)])
            mask = mask.flip(1)
        inputs |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask}
    return inputs


@pytest.mark.parametrize("side", ["left", "right"])
def test_both_streams_of_an_encoder_decoder_may_be_given(side: str) -> None:
    """Each is taken apart and padded anew; the oracle runs one pair at a time."""
    model, tokenizer, _ = tiny("t5")
    seen: dict[str, list[np.ndarray]] = {"encoder.block.1": [], "decoder.block.1": []}
    for number, (length, target) in enumerate(zip(TEXT_LENGTHS, TARGET_LENGTHS, strict=True)):
        ids = [TEXT_IDS[number : number + 1, :length]]
        start = TARGET_IDS[number : number + 1, :target]
        found = oracle.outputs_of(model, list(seen), ids, decoder_input_ids=start)
        for name, rows in seen.items():
            rows += found[name]
    for where, pick in {"position == -1": slice(-1, None), "position >= 0": slice(None)}.items():
        result = hookql.run(
            f"capture {oracle.ALL} from encoder.block[1] where {where} as text\n"
            f"capture {oracle.ALL} from decoder.block[1] where {where} as target",
            model=model,
            tokenizer=tokenizer,
            inputs=two_streams(side),
        )
        for name, module in (("text", "encoder.block.1"), ("target", "decoder.block.1")):
            rows = np.concatenate([row[pick] for row in seen[module]])
            (data,) = result[name].children.values()
            oracle.assert_agrees(data.dataset.isel(layer=0), rows)


BAD_TARGETS: dict[str, tuple[dict[str, Any], str]] = {
    "other samples": ({"decoder_input_ids": TARGET_IDS[:2]}, "has 2 samples and"),
    "no ids": ({"decoder_attention_mask": TARGET_IDS > 0}, "`decoder_attention_mask` cannot be"),
    "embeddings": (
        {"decoder_input_ids": TARGET_IDS, "decoder_inputs_embeds": torch.ones(3, 5, 32)},
        "`decoder_inputs_embeds` cannot be taken here",
    ),
    "no whole numbers": ({"decoder_input_ids": TARGET_IDS.float()}, "`decoder_input_ids` are"),
    "another shape": (
        {"decoder_input_ids": TARGET_IDS, "decoder_attention_mask": torch.ones(3, 4)},
        "must all have its shape",
    ),
    "no tokens": (
        {"decoder_input_ids": TARGET_IDS, "decoder_attention_mask": (TARGET_IDS > 50).long()},
        "sample 0 has no tokens for the decoder",
    ),
    "holes": (
        {"decoder_input_ids": TARGET_IDS, "decoder_attention_mask": (TARGET_IDS != 52).long()},
        "the decoder's attention mask of sample 1 has holes",
    ),
}


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_targets_that_would_be_misread_are_refused(case: str) -> None:
    """What is wrong is named as the user named it."""
    model, _, _ = tiny("t5")
    targets, expected = BAD_TARGETS[case]
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run(
            "capture mean from decoder.block[0]",
            model=model,
            inputs={"input_ids": TEXT_IDS, **targets},
        )
    assert "bad-inputs" == caught.value.code
    assert expected in caught.value.message


def test_a_decoder_needs_its_inputs() -> None:
    """Without them its sites are an error, and its encoder's are not."""
    model, tokenizer, _ = tiny("t5")
    options = {"model": model, "tokenizer": tokenizer, "inputs": {"input_ids": TEXT_IDS}}
    assert 15 == int(hookql.run("capture count from encoder.block[0]", **options)["count"])
    with pytest.raises(hookql.QueryError) as caught:
        hookql.run("capture mean from decoder.block[0]", **options)
    assert "needs-target" == caught.value.code


@pytest.mark.parametrize("case", BAD)
def test_inputs_that_would_be_misread_are_refused(case: str) -> None:
    """Each is an error with a code, never a number."""
    model, _, _ = tiny("gpt2")
    inputs, options, code = BAD[case]
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run("capture mean from transformer.h[0]", model=model, inputs=inputs, **options)
    assert code == caught.value.code


@pytest.mark.parametrize("column", ["token == 3", "prev == none", "special", "next == 0"])
def test_there_are_no_token_columns_without_tokens(column: str) -> None:
    """A ViT's patches have no ids to compare."""
    model, _, _ = tiny("vit")
    with pytest.raises(hookql.QueryError) as caught:
        hookql.run(
            f"capture mean from layers[0] where {column}",
            model=model,
            inputs={"pixel_values": torch.randn(2, 3, 32, 32)},
        )
    assert "no-tokens" == caught.value.code


def test_vision_probing_leaves_no_hooks() -> None:
    """Finding a ViT's positions does not make transformers install hooks of its own."""
    model, _, _ = tiny("vit")

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    before = hooks()
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
    hookql.run("capture mean from layers[0]", model=model, inputs=inputs)
    assert before == hooks()


def test_embeddings_may_be_given() -> None:
    """`inputs_embeds` have positions, found by cutting them."""
    model, _, _ = tiny("llama")
    embeds = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(0))
    result = hookql.run(
        f"capture {oracle.ALL} from model.layers[*] where position >= 4",
        model=model,
        inputs={"inputs_embeds": embeds},
    )
    with torch.no_grad():
        states = model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    rows = states[1][:, 4:].double().flatten(0, 1).numpy()
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)


def test_a_plain_module_has_one_row_a_sample() -> None:
    """A perceptron on (samples, features): each sample is one row."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    x = torch.randn(11, 8)
    result = hookql.run(f'capture {oracle.ALL} from "1"', model=model, inputs={"input": x})
    rows = torch.relu(model[0](x)).detach().double().numpy()
    oracle.assert_agrees(result.dataset.isel(layer=0), rows)


def test_special_needs_something_that_knows_it() -> None:
    """Ids alone do not say what the tokenizer added: `special` is refused, not guessed."""
    model, _, _ = tiny("bert")
    inputs = character_tokenizer(cls=True)(TEXTS, return_tensors="pt", padding=True)
    with pytest.raises(hookql.QueryError) as caught:
        hookql.run(
            "capture count from encoder.layer[0] where not special", model=model, inputs=inputs
        )
    assert "no-tokens" == caught.value.code
    assert "special_tokens_mask" in (caught.value.help or "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"inputs": torch.ones(2, 3)}, "bad-inputs"),
        ({"inputs": [torch.ones(2, 3)]}, "bad-inputs"),
        ({"inputs": {"input_ids": [[1, 2], [3]]}}, "bad-inputs"),
        ({"inputs": {"input_ids": torch.ones(2, 3)}}, "bad-inputs"),
        ({"texts": ["a"], "tokenizer": "gpt2"}, "bad-option"),
        ({"texts": ["a"], "output": 3}, "bad-file"),
        ({"query": None, "texts": ["a"]}, "no-query"),
    ],
)
def test_wrong_types_are_told_without_a_traceback(arguments: dict[str, Any], code: str) -> None:
    """What Python lets one pass by mistake is a diagnostic."""
    model, _, _ = tiny("gpt2")
    given = {"query": "capture mean from transformer.h[0]", "model": model, **arguments}
    with pytest.raises(hookql.HookQLError) as caught:
        hookql.run(**given)
    assert code == caught.value.code
