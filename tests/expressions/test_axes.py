"""How shapes meet: broadcasting by the names of axes, indices by name, token leaves."""

from __future__ import annotations

import numpy as np
import torch

from hookql.expressions import Axes, Rows
from tests.expressions.expression import HEADS, compiled, read

X = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(2))
ROWS = Rows({"x": X})
ONLY_X = {"x": HEADS}


def value_of(text: str) -> np.ndarray:
    """What an expression of X is."""
    return compiled(text, ONLY_X)(Rows({"x": X})).numpy()


def test_axes_meet_by_name() -> None:
    """Heads meet heads and features features, whichever comes first and is there."""
    x = X.double().numpy()
    lengths = np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(x * lengths[:, :, None], value_of("x * norm(x)"))
    np.testing.assert_allclose(x * lengths[:, :, None], value_of("norm(x) * x"))
    np.testing.assert_allclose(x * x[:, 1][:, None], value_of("x * x[head=1]"))
    # (feature) with (head): the axes stand in the site's order, not in that of the text.
    np.testing.assert_allclose(
        x[:, 1][:, None] + lengths[:, :, None], value_of("x[head=1] + norm(x)")
    )
    assert HEADS == compiled("x[head=1] + norm(x)", ONLY_X).axes


def test_vectors_meet_by_name() -> None:
    """The last axis is reduced, the others broadcast."""
    x = X.double().numpy()
    expected = (x * x[:, 0][:, None]).sum(-1)
    np.testing.assert_allclose(expected, value_of("dot(x, x[head=0])"))
    assert Axes(("head",), (3,)) == compiled("dot(x[head=0], x)", ONLY_X).axes


def test_indices_by_name() -> None:
    """An index takes its own axis, the last where it names none."""
    x = X.numpy()
    np.testing.assert_array_equal(x[:, 2], value_of("x[head=2]"))
    np.testing.assert_array_equal(x[:, -1], value_of("x[head=-1]"))
    np.testing.assert_array_equal(x[:, 1:], value_of("x[head=1:3]"))
    np.testing.assert_array_equal(x[:, [2, 0]], value_of("x[head=[2, 0]]"))
    np.testing.assert_array_equal(x[:, 1, 3], value_of("x[head=1][3]"))
    np.testing.assert_array_equal(x[:, :, 3], value_of("x[3]"))


def test_input_of_other_axes() -> None:
    """Input and output may differ in their axes; `output` is `x`."""
    axes = {"x": HEADS, "output": HEADS, "input": Axes(("feature",), (4,))}
    i = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    expression = compiled("output - input", axes)
    value = expression(Rows({"x": X, "input": i}))
    np.testing.assert_allclose(X.double() - i.double()[:, None], value)
    assert frozenset({"x", "input"}) == expression.operands


def test_token_leaves() -> None:
    """Numbers, truths and ids of tokens, one a row."""
    node, _ = read("x > 0 and special")
    leaf = node.operands[1]  # type: ignore[union-attr]
    truths = torch.tensor([True, False, True, False, True])
    expression = compiled("x > 0 and special", ONLY_X, {leaf: "truth"})
    expected = (X > 0) & truths[:, None, None]
    assert expected.float().tolist() == expression(Rows({"x": X}, {leaf: truths})).tolist()
    assert (leaf,) == expression.leaves
    row, _ = read("row.weight")
    weights = torch.arange(5)
    value = compiled("x * row.weight", ONLY_X, {row: "number"})(Rows({"x": X}, {row: weights}))
    np.testing.assert_allclose(X.double() * weights[:, None, None], value)
    following, _ = read("next")
    ids = X[:, 0].argmax(-1)
    ids[0] += 1
    expression = compiled("argmax(x[head=0]) == next", ONLY_X, {following: "id"})
    assert "truth" == expression.kind
    value = expression(Rows({"x": X}, {following: ids}))
    assert [0.0, 1.0, 1.0, 1.0, 1.0] == value.tolist()


def test_a_leaf_alone() -> None:
    """A statistic of what is no tensor at all."""
    row, _ = read("row.weight")
    value = compiled("row.weight", ONLY_X, {row: "number"})(Rows({"x": X}, {row: torch.arange(5)}))
    assert [0.0, 1.0, 2.0, 3.0, 4.0] == value.tolist()


def test_a_constant() -> None:
    """A literal alone is as many numbers as there are rows."""
    assert [6.0] * 5 == compiled("2 * 3", ONLY_X)(ROWS).tolist()
    assert [1.0] * 5 == compiled("2 > 1 or false", ONLY_X)(ROWS).tolist()


def test_kinds() -> None:
    """What each expression is said to be."""
    texts = ("x", "x > 0", "argmax(x)", "argmax(x) == 1", "isnan(x)", "norm(x)", "not isnan(x)")
    expected = ["number", "truth", "id", "truth", "truth", "number", "truth"]
    assert expected == [compiled(text).kind for text in texts]
