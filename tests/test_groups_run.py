"""Grouped captures from end to end: streamed samples, bounds, rows that wait for the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray
from torch import nn

import hookql
from hookql.binding import bind
from hookql.engines import local
from hookql.expressions import rows as expression_rows
from hookql.loading import get_model
from hookql.source import open_source, open_texts
from tests.tiny import tiny

TEXTS = ["Where were you?", "a", "the the", "In the beginning was the word", "b c"]


def run(query: str, texts: Any = TEXTS, **options: Any) -> xarray.DataTree:
    """A query over the tiny GPT-2."""
    model, tokenizer, _ = tiny("gpt2")
    return hookql.run(query, model=model, tokenizer=tokenizer, texts=texts, **options)


def alone(text: str, module: str) -> np.ndarray[Any, Any]:
    """A module's output for one text by itself, float64 (tokens, features)."""
    model, tokenizer, _ = tiny("gpt2")
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, args: Any, out: Any) -> None:
        found.append(out[0] if isinstance(out, tuple) else out)

    handle = model.get_submodule(module).register_forward_hook(keep)
    with torch.no_grad():
        model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]))
    handle.remove()
    return found[0].detach()[0].double().numpy()


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"max_length": 4}])
def test_by_sample_is_each_sample_by_itself(options: dict[str, int]) -> None:
    """Streamed to disk sample by sample: in the order of the data, split samples put together."""
    result = run("capture mean from transformer.h[0] by sample", **options)
    assert list(range(len(TEXTS))) == result["sample"].values.tolist()
    expected = []
    for text in TEXTS:
        width = options.get("max_length", len(text))
        pieces = [text[i : i + width] for i in range(0, len(text), width)]
        expected.append(np.concatenate([alone(p, "transformer.h.0") for p in pieces]).mean(0))
    found = result["mean"].sel(layer=0).transpose("sample", "feature").values
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)
    assert [len(text) for text in TEXTS] == result["count"].values.tolist()


def test_streamed_and_held_groups_are_the_same() -> None:
    """`by sample` goes to disk as samples complete, `by sample, row.n` stays in memory."""
    data = [{"text": text, "n": 1} for text in TEXTS] * 3
    streamed = run("capture mean, max from transformer.h[*] by sample", (), data=data)
    held = run("capture mean, max from transformer.h[*] by sample, row.n", (), data=data)
    for name in ("mean", "max"):
        both = streamed[name], held[name].sel(n=1)
        np.testing.assert_array_equal(*(a.transpose("layer", "sample", ...).values for a in both))


def test_samples_that_keep_no_token_are_left_out() -> None:
    """Only values that occur are stored: a text of one token has no second one."""
    result = run("capture mean from transformer.h[0] where position == 1 by sample")
    assert [0, 2, 3, 4] == result["sample"].values.tolist()


def test_state_of_samples_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small windows the accumulators never hold more than a few samples."""
    monkeypatch.setattr("hookql.work.WINDOW_CONTEXTS", 8)
    most = []
    check = local.check_bytes

    def watch(outcome: local.Outcome, limit: int) -> None:
        most.append(max(table.number for table in outcome.tables.values()))
        check(outcome, limit)

    monkeypatch.setattr(local, "check_bytes", watch)
    result = run("capture mean from transformer.h[0] by sample", TEXTS * 40)
    assert 200 == result.sizes["sample"]
    assert max(most) < 30


def test_too_many_groups_are_refused() -> None:
    """By what they hold in bytes, with what may be done."""
    texts = ["".join(chr(32 + (i * 7 + j) % 90) for j in range(30)) for i in range(40)]
    query = "capture mean, std from transformer.h[*] by sample, position"
    with pytest.raises(hookql.HookQLError) as error:
        run(query, texts, group_memory=1)
    diagnostic = error.value.diagnostics[0]
    assert "too-many-groups" == diagnostic.code
    assert "--group-memory" in str(diagnostic)


def test_an_expression_in_several_places_is_worked_out_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one batch: in two statistics, in another capture's, and in the predicate."""
    counted: list[str] = []
    of = expression_rows.Rows.of

    def watch(self: expression_rows.Rows, term: expression_rows.Term) -> torch.Tensor:
        fresh = term.key not in self.memo
        value = of(self, term)
        if fresh and getattr(term.key, "function", "") == "norm":
            counted.append(str(len(value)))
        return value

    monkeypatch.setattr(expression_rows.Rows, "of", watch)
    run(
        "capture mean(norm(x)), max(norm(x)) from transformer.h[0] where norm(x) > 0.01 "
        "capture min(norm(x)) from transformer.h[0] where position > 0 as other",
        texts=["Where were you?"],
    )
    assert ["15"] == counted


def test_only_what_asks_for_the_prediction_waits() -> None:
    """A mask of the prediction runs the whole pass; without one it is left early."""
    model, tokenizer, _ = tiny("gpt2")
    wrapped = get_model(model, tokenizer, {})
    source = open_source(wrapped, open_texts(None, TEXTS, None, {}), None, {})
    early = bind(hookql.check("capture mean from h[0]"), wrapped, source.feed)
    late = bind(hookql.check("capture mean from h[0] where loss > 1"), wrapped, source.feed)
    assert early.leave is not None
    assert early.logits is None
    assert late.leave is None
    assert late.logits is not None
    explained = hookql.explain(
        "capture mean from h[0] where loss > 1", model=model, tokenizer=tokenizer
    )
    assert "waits      h: for the model's prediction, at the end of each pass" in explained


def test_a_statistic_whose_values_are_undefined_says_how_many_it_had() -> None:
    """`next` means nothing at a last token: that row is dropped for this statistic alone."""
    result = run(
        "capture mean(x[0]) as whole, mean(x[0] > 0 and next != 5) as part from transformer.h[0]"
    )
    tokens = sum(map(len, TEXTS))
    assert tokens == int(result["count"])
    assert tokens - len(TEXTS) == int(result["part_count"])
    assert "whole_count" not in result.dataset


def test_counts_differ_from_module_to_module() -> None:
    """Where the predicate asks for the module's own values, each layer keeps its own tokens."""
    rows = [np.concatenate([alone(t, f"transformer.h.{i}") for t in TEXTS]) for i in range(4)]
    norms = np.stack([np.linalg.norm(r, axis=1) for r in rows])
    limit = float(np.median(norms))
    result = run(f"capture mean from transformer.h[*] where norm(x) > {limit!r}")
    np.testing.assert_array_equal((norms > limit).sum(1), result["count"].values)
    expected = np.stack([r[n > limit].mean(0) for r, n in zip(rows, norms, strict=True)])
    np.testing.assert_allclose(result["mean"].values, expected, atol=1e-6)


@pytest.mark.parametrize("where", ["x[head=0][key=5] < 2", "not x[head=0][key=5] > 2"])
def test_a_key_that_a_query_does_not_see_has_no_weight(where: str) -> None:
    """Queries before key 5 have no weight on it, not one of 0: undefined, and dropped."""
    model, tokenizer, _ = tiny("gpt2")
    model.set_attn_implementation("eager")
    result = hookql.run(
        f"capture count from transformer.h[0].attn:pattern where {where}",
        model=model,
        tokenizer=tokenizer,
        texts=TEXTS,
    )
    assert sum(max(0, len(text) - 5) for text in TEXTS) == result["count"].item()
    assert sum(min(5, len(text)) for text in TEXTS) == result.attrs["tokens_undefined"]
