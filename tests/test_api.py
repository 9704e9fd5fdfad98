"""The Python face: what it takes, what it returns, what it refuses."""

from __future__ import annotations

import doctest
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from torch import Tensor, nn

import hookql
from hookql.models.load import load_model, wrap_model
from tests import oracle
from tests.tiny import CLS, PAD, SEP, character_tokenizer, tiny

TEXTS = ["Where were you?", "a", "the the", "In 1969, two"]
QUERY = "capture mean, std from transformer.h[*]"


def test_the_example_of_the_package() -> None:
    """What the package's docstring shows is what happens."""
    failed, tried = doctest.testmod(hookql)
    assert (0, True) == (failed, tried > 0)


def test_public_names() -> None:
    """What `__all__` promises is there, and each function is a function, also after use."""
    hookql.explain("capture mean from h[0]")
    for name in hookql.__all__:
        assert callable(getattr(hookql, name)), name
    assert issubclass(hookql.HookQLWarning, UserWarning)


def test_a_query_may_be_text_a_file_or_resolved(tmp_path: Path) -> None:
    """All three give the same numbers; the text is recorded as it was written."""
    model, tokenizer, _ = tiny("gpt2")
    file = tmp_path / "q.hq"
    file.write_text("# blocks\n" + QUERY)
    results = [
        hookql.run(query, model=model, tokenizer=tokenizer, texts=TEXTS)
        for query in (QUERY, file, str(file), hookql.check(QUERY))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(results[0]["mean"], result["mean"])
    assert [QUERY, "# blocks\n" + QUERY] == [r.attrs["query"] for r in results[:2]]
    assert 1 == len({r.attrs["query_canonical"].removeprefix("# blocks\n") for r in results})


def test_a_model_may_be_a_module_a_name_or_loaded() -> None:
    """A `Model` is taken as it is, and loaded once for many runs."""
    query = "capture mean from h[0]"
    loaded = load_model("demo")
    by_name = hookql.run(query, texts=TEXTS)
    for given in ({"model": loaded}, {"model": loaded.module, "tokenizer": loaded.tokenizer}):
        result = hookql.run(query, texts=TEXTS, **given)
        np.testing.assert_array_equal(by_name["mean"], result["mean"])
    module, tokenizer, _ = tiny("gpt2")
    assert isinstance(
        hookql.run(query, model=wrap_model(module, tokenizer), texts=TEXTS), xarray.DataTree
    )


def test_load_model_loads_once() -> None:
    """One model for several queries; wrong options are told as `run` tells them."""
    model = hookql.load_model("demo", dtype="float32", revision=None)
    results = [hookql.run(f"capture mean from h[{i}]", model=model, texts=TEXTS) for i in (0, 1)]
    assert ["demo", "demo"] == [result.attrs["model"] for result in results]
    for wrong, code in (({"limit": 3}, "unknown-option"), ({"dtype": "int3"}, "unknown-dtype")):
        with pytest.raises(hookql.UsageError) as caught:
            hookql.load_model("demo", **wrong)  # type: ignore[misc]
        assert code == caught.value.code


@pytest.mark.parametrize("texts", ["a string", "", b"bytes"])
def test_one_text_is_no_list_of_texts(texts: Any) -> None:
    """A string is not run character by character, nor taken for no text at all."""
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run(QUERY, texts=texts)
    assert ("bad-texts", "write `texts=[...]`") == (caught.value.code, caught.value.help)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a b", ""], "1 sample was empty and not run"),
        (["a b", "", ""], "2 samples were empty and not run"),
    ],
)
def test_warnings_know_one_from_many(texts: list[str], said: str) -> None:
    """One sample was, two were."""
    with pytest.warns(hookql.HookQLWarning) as warned:
        hookql.run("capture mean from h[0]", texts=texts)
    assert [f"warning[samples-empty]: {said}"] == [str(w.message) for w in warned]


@pytest.mark.parametrize(
    ("site", "name"),
    [
        ("h[0].{attn,mlp}", "attn_mlp"),
        ("h[0].{attn,mlp}.c_proj", "c_proj"),
        ("h[0].{attn,ml*}", "h"),
        ("h.{0,1}", "h"),
        ("h[0].{attn,mlp}:input", "attn_mlp_input"),
    ],
)
def test_names_of_captures(site: str, name: str) -> None:
    """Without `as`, a capture is called by the last name of its first site."""
    result = hookql.run(f"capture mean from {site}; capture max from lm_head", texts=["a b"])
    assert [name, "lm_head"] == list(result.children)


@pytest.mark.parametrize(
    "data",
    [
        TEXTS,
        tuple(TEXTS),
        iter(TEXTS),
        [{"text": text} for text in TEXTS],
    ],
    ids=["list", "tuple", "iterator", "mappings"],
)
def test_data_may_be_any_texts(data: Any) -> None:
    """Lists, iterators and mappings are the same data."""
    model, tokenizer, _ = tiny("gpt2")
    expected = hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=TEXTS)
    result = hookql.run(QUERY, model=model, tokenizer=tokenizer, data=data)
    np.testing.assert_array_equal(expected["mean"], result["mean"])
    assert 4 == result.attrs["samples"]


def test_the_result_says_how_it_was_made(tmp_path: Path) -> None:
    """The attributes of the language page, on the result and in the file."""
    model, tokenizer, _ = tiny("gpt2")
    file = tmp_path / "r.nc"
    result = hookql.run(
        QUERY + " where position >= 1", model=model, tokenizer=tokenizer, texts=TEXTS, output=file
    )
    tokens = sum(map(len, TEXTS))
    expected = {
        "model": "GPT2LMHeadModel",
        "model_class": "GPT2LMHeadModel",
        "model_revision": "none",
        "data": "<text>",
        "samples": 4,
        "samples_empty": 0,
        "tokens_read": tokens,
        "tokens_run": tokens - 1,  # "a" is one token, at position 0: it need not run
        "tokens_skipped": 1,
        "tokens_spared": 0,
        "tokens_dropped": 0,
        "tokens_kept": tokens - 4,
        "optimize": "budget, depth, duplicates, prefixes, rows, sharing, weights",
        "dtype_run": "float32",
        "dtype_stored": "float64",
        "attention": "sdpa",
        "device": "cpu",
        "Conventions": "CF-1.11",
        "mask": "position >= 1",
    }
    assert expected == {name: result.attrs[name] for name in expected}
    for name in ("model_weights", "data_fingerprint", "torch_version", "started", "ended"):
        assert result.attrs[name]
    xarray.testing.assert_identical(result, hookql.load(file))


def test_equal_runs_have_equal_fingerprints() -> None:
    """Of weights and of data; another weight or text changes it."""
    model, tokenizer, _ = tiny("gpt2")

    def made(texts: list[str]) -> tuple[str, str]:
        result = hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=texts)
        return result.attrs["model_weights"], result.attrs["data_fingerprint"]

    first = made(TEXTS)
    assert first == made(TEXTS)
    assert first[1] != made(TEXTS[::-1])[1]
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    changed = made(TEXTS)
    assert first[0] != changed[0]
    assert first[1] == changed[1]


def test_warnings_are_python_warnings() -> None:
    """One for each, of a class of their own, pointing at the caller."""
    model, tokenizer, _ = tiny("gpt2")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hookql.run(
            "capture mean from h[0] where token == pad", model=model, tokenizer=tokenizer,
            texts=[*TEXTS, ""],
        )  # fmt: skip
    assert {hookql.HookQLWarning} == {w.category for w in caught}
    assert {__file__} == {w.filename for w in caught}
    codes = [str(w.message).partition("]")[0].partition("[")[2] for w in caught]
    assert "empty-selection" in codes
    assert "samples-empty" in codes
    assert len(codes) == len(set(codes))


def test_a_run_without_trouble_warns_of_nothing() -> None:
    """No warning, ours or another's, in an ordinary run."""
    model, tokenizer, _ = tiny("gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hookql.run(QUERY, model=model, tokenizer=tokenizer, texts=TEXTS)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown option": ({"texts": TEXTS, "batchsize": 3}, "unknown-option"),
    "a count that is none": ({"texts": TEXTS, "batch_size": 0}, "bad-option"),
    "a truth for a count": ({"texts": TEXTS, "limit": True}, "bad-option"),
    "a fraction for a count": ({"texts": TEXTS, "max_length": 2.5}, "bad-option"),
    "a model option for a module": ({"texts": TEXTS, "dtype": "float16"}, "model-option"),
    "no data": ({}, "no-data"),
    "data and inputs": (
        {"texts": TEXTS, "inputs": {"input_ids": torch.ones(1, 3, dtype=torch.int64)}},
        "two-sources",
    ),
    "an unknown overflow": ({"texts": TEXTS, "overflow": "cut"}, "bad-overflow"),
    "a mask of another shape": (
        {"inputs": {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 4)}},
        "bad-inputs",
    ),
    "a mask alone": ({"inputs": {"attention_mask": torch.ones(2, 4)}}, "probe-failed"),
    "ids of three axes": ({"inputs": {"input_ids": torch.ones(2, 3, 4)}}, "bad-inputs"),
    "too long ids": ({"inputs": {"input_ids": torch.ones(1, 65).long()}}, "too-long"),
    "inputs that the model lacks": ({"inputs": {"pixels": torch.ones(2, 3)}}, "unknown-input"),
    "padding without ids": (
        {
            "inputs": {
                "inputs_embeds": torch.ones(2, 3, 32),
                "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
            }
        },
        "bad-inputs",
    ),
    "inputs of several sizes": (
        {"inputs": {"inputs_embeds": torch.ones(2, 3, 32), "position_ids": torch.ones(3, 3)}},
        "bad-inputs",
    ),
    "no samples": ({"data": []}, "no-samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused(case: str) -> None:
    """Each with its code, before anything is run."""
    model, tokenizer, _ = tiny("gpt2")
    options, code = REFUSED[case]
    with pytest.raises(hookql.HookQLError) as caught:
        hookql.run(QUERY, model=model, tokenizer=tokenizer, **options)
    assert code == caught.value.code


def test_text_needs_a_tokenizer() -> None:
    """A module alone has none: the error says what to give."""
    model, _, _ = tiny("gpt2")
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run(QUERY, model=model, texts=TEXTS)
    assert "needs-tokenizer" == caught.value.code
    assert "inputs=" in str(caught.value.help)


def test_ids_need_no_tokenizer() -> None:
    """Ids given directly: predicates over positions and ids work, the oracle agrees."""
    model, tokenizer, _ = tiny("gpt2")
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    query = f"capture {oracle.ALL} from h[2] where position >= 1 and token != 77"
    result = hookql.run(query, model=model, inputs=inputs)
    ids = oracle.encode(tokenizer, TEXTS)
    outputs = oracle.outputs_of(model, ["transformer.h.2"], ids)["transformer.h.2"]
    rows = [v[1:][row[0, 1:].numpy() != 77] for v, row in zip(outputs, ids, strict=True)]
    oracle.assert_agrees(result.dataset.isel(layer=0), np.concatenate(rows))
    assert "<inputs>" == result.attrs["data"]
    assert "none" == result.attrs["tokenizer"]


def test_special_tokens_of_ids_given_directly() -> None:
    """`special_tokens_mask` says which they are; a sample without a token is not run."""
    model, _, _ = tiny("bert")
    ids = torch.tensor([[CLS, 73, 74, SEP, PAD], [CLS, 75, SEP, PAD, PAD], [PAD] * 5])
    result = hookql.run(
        "capture count from encoder.layer[0] where not special",
        model=model,
        inputs={
            "input_ids": ids,
            "attention_mask": (ids != PAD).long(),
            "special_tokens_mask": torch.isin(ids, torch.tensor([CLS, SEP])).long(),
        },
    )
    assert 3 == int(result["count"])
    assert (3, 1) == (result.attrs["samples"], result.attrs["samples_empty"])


def test_embeddings_given_directly() -> None:
    """`inputs_embeds` of one length: the same rows as from their ids."""
    model, tokenizer, _ = tiny("gpt2")
    texts = ["abcdefgh", "the thee", "In 1969,"]
    ids = oracle.encode(tokenizer, texts)
    embedded = model.transformer.wte(torch.cat(ids)).detach()
    query = f"capture {oracle.ALL} from h[2]"
    result = hookql.run(query, model=model, inputs={"inputs_embeds": embedded})
    outputs = oracle.outputs_of(model, ["transformer.h.2"], ids)["transformer.h.2"]
    oracle.assert_agrees(result.dataset.isel(layer=0), np.concatenate(outputs))


class Rows(nn.Module):
    """No tokens at all: a row of numbers a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        return self.layer(x).relu()


def test_models_of_plain_rows() -> None:
    """A sample is one row, at position 0; `sample` may be asked for."""
    torch.manual_seed(1)
    model, x = Rows().eval(), torch.randn(40, 6)
    result = hookql.run(
        f"capture {oracle.ALL} from output where sample >= 10 and position == 0",
        model=model,
        inputs={"x": x},
        batch_size=7,
    )
    with torch.no_grad():
        oracle.assert_agrees(result.dataset, model(x[10:]).double().numpy())


def test_inputs_that_the_model_does_not_take() -> None:
    """The names that it takes are said."""
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run("capture mean from layer", model=Rows(), inputs={"y": torch.randn(4, 6)})
    assert ("unknown-input", ("it takes: x",)) == (caught.value.code, caught.value.notes)


def test_token_columns_without_tokens_are_refused() -> None:
    """Pixels and rows have no text to compare with."""
    with pytest.raises(hookql.QueryError):
        hookql.run('capture mean from layer where token == "a"', model=Rows(),
                   inputs={"x": torch.randn(4, 6)})  # fmt: skip


def test_columns_of_the_data_without_data_are_refused() -> None:
    """Model inputs have no columns, which is said instead of an empty list of them."""
    with pytest.raises(hookql.QueryError) as caught:
        hookql.run("capture mean from layer where row.x > 1", model=Rows(),
                   inputs={"x": torch.randn(4, 6)})  # fmt: skip
    assert ("unknown-column", None, ("what is run has no columns",)) == (
        caught.value.code, caught.value.help, caught.value.notes
    )  # fmt: skip


def test_check_returns_the_query() -> None:
    """Resolved, with its warnings, or every error at once."""
    query = hookql.check("capture mean, var(ddof=1) from h[0] as a")
    assert ("a",) == tuple(c.name for c in query.captures)
    assert {"ddof": 1} == dict(query.captures[0].statistics[1].parameters)
    with pytest.raises(hookql.QueryError) as caught:
        hookql.check("capture medan from h[0] where tokn == 1")
    assert ["unknown-statistic", "unknown-name"] == [d.code for d in caught.value.diagnostics]


def test_check_with_a_model_reports_all_that_does_not_bind() -> None:
    """Paths and literals of all captures come together, in the order of the text."""
    model, tokenizer, _ = tiny("gpt2")
    query = 'capture mean from h[9]; capture max from h[0].atn where token == "not one token"'
    with pytest.raises(hookql.QueryError) as caught:
        hookql.check(query, model=model, tokenizer=tokenizer)
    codes = [d.code for d in caught.value.diagnostics]
    assert ["index-out-of-range", "unknown-module", "no-such-token"] == codes


def test_the_fields_of_an_error() -> None:
    """Code, message, span, help and notes, as the command line shows them."""
    with pytest.raises(hookql.QueryError) as caught:
        hookql.check("capture medan from h[0]")
    error = caught.value
    assert ("unknown-statistic", 2) == (error.code, error.exit_code)
    assert hookql.Span(8, 13) == error.span
    assert "did you mean `median`?" == error.help
    assert str(error) == error.diagnostics[0].render()
    assert str(error).startswith("error[unknown-statistic]: there is no statistic `medan`\n")


def test_compiled_models_are_refused() -> None:
    """Hooks that are added afterwards would not run: no number, an error."""
    model, tokenizer, _ = tiny("gpt2")
    with pytest.raises(hookql.ModelError) as caught:
        hookql.run(QUERY, model=torch.compile(model), tokenizer=tokenizer, texts=TEXTS)
    assert "compiled-model" == caught.value.code


def test_output_files_are_checked_before_the_model_is_loaded(tmp_path: Path) -> None:
    """A file that exists costs nobody a run."""
    file = tmp_path / "a.nc"
    file.write_bytes(b"mine")
    with pytest.raises(hookql.UsageError) as caught:
        hookql.run(QUERY, model="./no/such/model", texts=TEXTS, output=file)
    assert "file-exists" == caught.value.code
    assert "overwrite=True" in str(caught.value.help)
    assert b"mine" == file.read_bytes()


def test_a_run_that_fails_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the output nor an `into` file nor a temporary one."""
    model, tokenizer, _ = tiny("gpt2")

    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("hookql.engines.local._forward", fails)
    query = QUERY + ' capture max from h[0] into "b.nc"'
    with pytest.raises(hookql.ModelError):
        hookql.run(query, model=model, tokenizer=tokenizer, texts=TEXTS, output=tmp_path / "a.nc")
    assert [] == list(tmp_path.iterdir())


def test_character_tokenizers_differ_in_side_only() -> None:
    """The premise of every test of padding sides."""
    left, right = character_tokenizer("left"), character_tokenizer("right")
    assert left(TEXTS)["input_ids"] == right(TEXTS)["input_ids"]
    assert ("left", "right") == (left.padding_side, right.padding_side)
