"""Attention patterns: each query has its own number of keys, and 0 at those it cannot see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hookql.errors import QueryError
from hookql.expressions import Axes, Rows
from tests.expressions.expression import PATTERN, compiled

# Weights (query, head, key) of a causal pattern over 7 positions, and each query's own keys.
SCORES = torch.randn(7, 3, 7, generator=torch.Generator().manual_seed(4))
WEIGHTS = SCORES.masked_fill(torch.ones(7, 7).triu(1).bool()[:, None], -torch.inf).softmax(-1)
SEEN = [WEIGHTS[query, :, : query + 1].double().numpy() for query in range(7)]

ORACLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "norm(x)": lambda w: np.linalg.norm(w, axis=-1),
    "norm(x, 1)": lambda w: w.sum(-1),
    "dot(x, x[head=1])": lambda w: (w * w[1]).sum(-1),
    "cos(x, x[head=1])": lambda w: (w @ w[1]) / np.linalg.norm(w, axis=-1) / np.linalg.norm(w[1]),
    "argmax(x)": lambda w: w.argmax(-1),
    "argmax(x[head=[2, 0]])": lambda w: w[[2, 0]].argmax(-1),
    "argmax(log(x))": lambda w: w.argmax(-1),
    "entropy(x)": lambda w: -(w * np.log(w)).sum(-1),
    "kl(x, x[head=0])": lambda w: (w * np.log(w / w[0])).sum(-1),
    "norm(2 * x ** 3 - x)": lambda w: np.linalg.norm(2 * w**3 - w, axis=-1),
    "norm(x > 0.3)": lambda w: np.linalg.norm(w > 0.3, axis=-1),
    "norm(x > 0.3 and x < 0.5)": lambda w: np.linalg.norm((w > 0.3) & (w < 0.5), axis=-1),
    "norm(log(x + 1))": lambda w: np.linalg.norm(np.log(w + 1), axis=-1),
}


@pytest.mark.parametrize("text", ORACLES)
def test_as_if_each_query_were_alone(text: str) -> None:
    """What a query cannot see changes nothing, however much of it a batch has."""
    value = compiled(text, {"x": PATTERN})(Rows({"x": WEIGHTS}))
    for query, own in enumerate(SEEN):
        np.testing.assert_allclose(value[query], ORACLES[text](own), rtol=1e-6, atol=1e-12)
    wider = torch.nn.functional.pad(WEIGHTS, (0, 20))
    again = compiled(text, {"x": PATTERN})(Rows({"x": wider}))
    np.testing.assert_allclose(value, again, rtol=1e-12, atol=1e-14)


COUNTING = [
    "norm(x + 1)",
    "norm(exp(x))",
    "norm(x == 0)",
    "norm(not x > 0)",
    "norm(x * norm(x))",
    "dot(x, x - 1)",
    "argmax(-x)",
    "argmax(x - 1)",
    "entropy(x + 1)",
    "softmax(x)",
    "entropy(softmax(x))",
]


@pytest.mark.parametrize("text", COUNTING)
def test_what_would_count_unseen_keys(text: str) -> None:
    """A reduction to which unseen keys would add is refused."""
    with pytest.raises(QueryError) as raised:
        compiled(text, {"x": PATTERN})
    assert ["bad-axes"] == [problem.code for problem in raised.value.diagnostics]


def test_keys_by_number() -> None:
    """One key of each query; which ones are asked for is said, for queries that have fewer."""
    expression = compiled("x[key=3] + x[head=1][5]", {"x": PATTERN})
    assert Axes(("head",), (3,)) == expression.axes
    assert frozenset({3, 5}) == expression.keys
    value = expression(Rows({"x": WEIGHTS}))
    np.testing.assert_allclose(WEIGHTS[:, :, 3].double() + WEIGHTS[:, 1:2, 5].double(), value)


def test_a_key_beyond_the_batch() -> None:
    """A batch of short samples has 0 there and goes on."""
    value = compiled("x[key=9]", {"x": PATTERN})(Rows({"x": WEIGHTS}))
    assert np.zeros((7, 3)).tolist() == value.tolist()


def test_ragged_stays_ragged() -> None:
    """Number by number the keys are kept, and said to be ragged."""
    assert PATTERN == compiled("sqrt(x) * norm(x)", {"x": PATTERN}).axes
    assert Axes(("key",), (None,)) == compiled("x[head=0]", {"x": PATTERN}).axes
