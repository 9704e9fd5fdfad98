"""What is computed once, and what is computed in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hookql.expressions import FUNCTIONS, Axes, Rows, prepare, rows
from hookql.expressions.functions import function
from tests.expressions.expression import FEATURES, HEADS, Unembedding, compiled

X = torch.randn(50, 6, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def counted() -> Iterator[list[int]]:
    """A function `counted(x)` that notes how many rows each call of it has."""
    calls: list[int] = []

    @function("counted", axes="last")
    def count(x: Tensor) -> Tensor:
        """The sum."""
        calls.append(len(x))
        return x.sum(-1)

    yield calls
    del FUNCTIONS.own["counted"]


def test_a_part_is_computed_once(counted: list[int]) -> None:
    """Within an expression, and over several of the same rows; `output` is `x`."""
    here = Rows({"x": X, "input": X + 1})
    first = compiled("counted(x) * counted(x) + counted(output)")
    first(here)
    assert [50] == counted
    compiled("norm(output) > counted(output)")(here)
    assert [50] == counted
    compiled("counted(input)")(here)
    assert [50, 50] == counted
    first(Rows({"x": X}))
    assert [50, 50, 50] == counted


def test_equal_expressions_have_equal_nodes() -> None:
    """`output` stands as `x` in the node where they are the same, and only there."""
    assert compiled("norm(x)").node == compiled("norm(output)").node
    assert compiled("norm(x)").node != compiled("norm(input)").node
    apart = {"output": FEATURES}
    assert compiled("x", {"x": FEATURES}).node != compiled("output", apart).node


def test_known_parts_are_taken() -> None:
    """What is in the memo is not computed: over all rows computed, then a selection."""
    truth = compiled("x[0] > 0")
    expected = 1 - truth(Rows({"x": X}))
    here = Rows({"x": X})
    here.memo[truth.node] = expected
    assert (1 - expected).tolist() == compiled("not x[0] > 0")(here).tolist()


LENS_TEXTS = [
    "argmax(lens(x))",
    "lens(x)[5]",
    "entropy(softmax(lens(x)))",
    "norm(x) + argmax(lens(x)) * 2",
    "lens(x)",
    "kl(softmax(lens(x)), softmax(lens(input)))",
    "lens(lens(x)[0:6])[1]",
    "argmax(lens(x)) == argmax(lens(input))",
    "lens(x * 2 - input)[3:7] > 0",
]


@pytest.mark.parametrize("size", [1, 33, 100, 10**6])
@pytest.mark.parametrize("text", LENS_TEXTS)
def test_pieces_make_the_whole(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few logits are had at once, the values are the same."""
    lens = Unembedding(6, 11)
    here = {"x": X, "input": X.flip(1)}
    expression = compiled(text, lens=lens)
    expected = expression(Rows(here))
    assert {50} == set(lens.calls)
    lens.calls.clear()
    monkeypatch.setattr(rows, "PIECE", size)
    np.testing.assert_allclose(expression(Rows(here)), expected, rtol=1e-5, atol=1e-6)
    assert max(1, size // 11) >= max(lens.calls) or size == 10**6
    assert 0 == sum(lens.calls) % 50


def test_lens_against_numpy() -> None:
    """The logits of each row, reduced."""
    lens = Unembedding(6, 11)
    logits = (X @ lens.matrix).double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = -(probabilities * np.log(probabilities)).sum(-1)
    here = Rows({"x": X})
    value = compiled("entropy(softmax(lens(x)))", lens=lens)(here)
    np.testing.assert_allclose(value, entropy, rtol=1e-6)
    assert logits.argmax(-1).tolist() == compiled("argmax(lens(x))", lens=lens)(here).tolist()
    assert Axes(("vocabulary",), (11,)) == compiled("lens(x)", lens=lens).axes


def test_lens_of_other_axes() -> None:
    """Other axes than the last stay."""
    lens = Unembedding(4, 11)
    x = X[:, :4].reshape(50, 1, 4).expand(50, 3, 4)
    expression = compiled("lens(x)", {"x": HEADS}, lens=lens)
    assert Axes(("head", "vocabulary"), (3, 11)) == expression.axes
    expected = x @ lens.matrix
    np.testing.assert_allclose(expression(Rows({"x": x})), expected, rtol=1e-5, atol=1e-6)


def test_no_rows() -> None:
    """A batch of which nothing is kept."""
    lens = Unembedding(6, 11)
    here = Rows({"x": X[:0], "input": X[:0]})
    for text in LENS_TEXTS:
        expression = compiled(text, lens=lens)
        assert (0, *expression.axes.sizes) == tuple(expression(here).shape)


def test_one_walk_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared together, expressions share the logits of each piece."""
    monkeypatch.setattr(rows, "PIECE", 20 * 11)
    lens = Unembedding(6, 11)
    texts = ("argmax(lens(x))", "entropy(softmax(lens(x))) * 2", "norm(x)", "lens(output)[1]")
    expressions = [compiled(text, lens=lens) for text in texts]
    here = Rows({"x": X})
    prepare(expressions, here)
    assert [20, 20, 10] == lens.calls
    values: list[Any] = [expression(here) for expression in expressions]
    assert [20, 20, 10] == lens.calls
    for expression, value in zip(expressions, values, strict=True):
        np.testing.assert_allclose(value, expression(Rows({"x": X})), rtol=1e-5)


def test_wide_values_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """What remains of logits is what was asked for, not a view that holds them all."""
    monkeypatch.setattr(rows, "PIECE", 20 * 11)
    here = Rows({"x": X})
    value = compiled("lens(x)[5]", lens=Unembedding(6, 11))(here)
    assert 50 * 4 == value.untyped_storage().nbytes()
    assert [] == [held for held in here.memo.values() if held.shape[-1] == 11]


def test_operands_are_not_changed() -> None:
    """The model's own tensors are read and never written."""
    x = X.clone()
    for text in ("-x", "abs(x)", "relu(x) + x", "clip(x, 0, 1)", "x[::-1]", "x * norm(x)"):
        compiled(text)(Rows({"x": x, "input": x}))
    assert X.tolist() == x.tolist()
