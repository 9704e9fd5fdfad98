"""Every operator and function against NumPy in float64, which shares nothing with the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hookql.expressions import FUNCTIONS, Rows
from tests.expressions.expression import compiled

Array = np.ndarray[Any, np.dtype[Any]]


def length(x: Array, p: float = 2) -> Array:
    """The p-norm of the last axis."""
    return (np.abs(x) ** p).sum(-1) ** (1 / p)


def softmax(x: Array) -> Array:
    """Along the last axis."""
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def plogq(p: Array, q: Array) -> Array:
    """p log q, and 0 where p is."""
    return np.where(p == 0, np.where(np.isnan(q), np.nan, 0), p * np.log(q))


# Each text, and the same of x and input (n, 6), in NumPy.
ORACLES: dict[str, Callable[[Array, Array], Array]] = {
    "x": lambda x, i: x,
    "-x": lambda x, i: -x,
    "x + input": lambda x, i: x + i,
    "x - 1": lambda x, i: x - 1,
    "1 - x": lambda x, i: 1 - x,
    "x * 0.1": lambda x, i: x * 0.1,
    "x / input": lambda x, i: x / i,
    "2 / x": lambda x, i: 2 / x,
    "x ** 2": lambda x, i: x**2,
    "2 ** x": lambda x, i: 2**x,
    "abs(x) ** input": lambda x, i: np.abs(x) ** i,
    "x ** 0.5": lambda x, i: x**0.5,
    "2 * 3 - x": lambda x, i: 6 - x,
    "x + sqrt(2)": lambda x, i: x + np.sqrt(2),
    "x * 1 / 0": lambda x, i: x / 0,
    "x + 1 / 0": lambda x, i: x + np.inf,
    "abs(x)": lambda x, i: np.abs(x),
    "sqrt(x)": lambda x, i: np.sqrt(x),
    "square(x)": lambda x, i: x * x,
    "exp(x)": lambda x, i: np.exp(x),
    "log(x)": lambda x, i: np.log(x),
    "relu(x)": lambda x, i: np.maximum(x, 0),
    "sign(x)": lambda x, i: np.sign(x),
    "clip(x, -1, 2)": lambda x, i: np.clip(x, -1, 2),
    "clip(x, lo=-0.1, hi=0.1)": lambda x, i: np.clip(x, -0.1, 0.1),
    "isfinite(x)": lambda x, i: np.isfinite(x),
    "isnan(x)": lambda x, i: np.isnan(x),
    "x > 0": lambda x, i: x > 0,
    "x >= 0.1": lambda x, i: x >= 0.1,
    "0.1 < x": lambda x, i: x > 0.1,
    "x == input": lambda x, i: x == i,
    "x != input": lambda x, i: x != i,
    "x <= input": lambda x, i: x <= i,
    "-1 < x <= 1": lambda x, i: (x > -1) & (x <= 1),
    "x in {0, 1, input}": lambda x, i: (x == 0) | (x == 1) | (x == i),
    "x not in {0, 1}": lambda x, i: (x != 0) & (x != 1),
    "x > 0 and input > 0": lambda x, i: (x > 0) & (i > 0),
    "x > 0 or input > 0 or isnan(x)": lambda x, i: (x > 0) | (i > 0) | np.isnan(x),
    "not x > 0": lambda x, i: ~(x > 0),
    "true and x > 0": lambda x, i: x > 0,
    "(x > 0) * x": lambda x, i: (x > 0) * x,
    "abs(x > 0)": lambda x, i: x > 0,
    "x[2]": lambda x, i: x[:, 2],
    "x[-1]": lambda x, i: x[:, -1],
    "x[1:5]": lambda x, i: x[:, 1:5],
    "x[:-2]": lambda x, i: x[:, :-2],
    "x[::2]": lambda x, i: x[:, ::2],
    "x[::-1]": lambda x, i: x[:, ::-1],
    "x[4:1:-2]": lambda x, i: x[:, 4:1:-2],
    "x[[5, 0, -1, 5]]": lambda x, i: x[:, [5, 0, -1, 5]],
    "x[feature=3]": lambda x, i: x[:, 3],
    "(x > 0)[2]": lambda x, i: x[:, 2] > 0,
    "norm(x)": lambda x, i: length(x),
    "norm(x, 1)": lambda x, i: length(x, 1),
    "norm(x, p=3.5)": lambda x, i: length(x, 3.5),
    "norm(output - input)": lambda x, i: length(x - i),
    "x / norm(x)": lambda x, i: x / length(x)[:, None],
    "dot(x, input)": lambda x, i: (x * i).sum(-1),
    "cos(x, input)": lambda x, i: (x * i).sum(-1) / (length(x) * length(i)),
    "argmax(x)": lambda x, i: np.argmax(x, -1),
    "argmax(x) in {1, 3}": lambda x, i: np.isin(np.argmax(x, -1), [1, 3]),
    "softmax(x)": lambda x, i: softmax(x),
    "entropy(softmax(x))": lambda x, i: -plogq(softmax(x), softmax(x)).sum(-1),
    "entropy(x)": lambda x, i: -plogq(x, x).sum(-1),
    "kl(softmax(x), softmax(input))": lambda x, i: (
        plogq(softmax(x), softmax(x)) - plogq(softmax(x), softmax(i))
    ).sum(-1),
    "kl(x, input)": lambda x, i: (plogq(x, x) - plogq(x, i)).sum(-1),
}


def tensors(case: str) -> tuple[Tensor, Tensor]:
    """x and input (n, 6) in float64, full of what is delicate."""
    generator = torch.Generator().manual_seed(1)
    x, i = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64)
    if case == "ties":
        x, i = (3 * x).round() / 2, (3 * i).round() / 2
    if case == "zeros":
        x[::2], i[::3] = 0, 0
    if case == "tenths":
        x, i = x.sign() * 0.1, i.round() * 0.1
    if case == "not finite":
        x[0, 1] = x[1, 2] = i[2, 3] = torch.nan
        x[3, 1] = i[4, 0] = torch.inf
        x[5, 1] = i[6, 0] = -torch.inf
        x[7] = torch.nan
    if case == "huge":
        x, i = x * 1e30, i * 1e30
    if case == "tiny":
        x, i = x * 1e-30, i * 1e-30
    return {"one row": (x[:1], i[:1]), "no rows": (x[:0], i[:0])}.get(case, (x, i))


CASES = ("plain", "ties", "zeros", "tenths", "not finite", "huge", "tiny", "one row", "no rows")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", ORACLES)
def test_oracle(text: str, dtype: torch.dtype) -> None:
    """The value is that of float64 on the numbers that the tensor holds; float32 is exact."""
    expression = compiled(text)
    for case in CASES:
        x, i = (tensor.to(dtype) for tensor in tensors(case))
        value = expression(Rows({"x": x, "input": i, "output": x}))
        with np.errstate(all="ignore"):
            expected = ORACLES[text](x.double().numpy(), i.double().numpy())
        assert (len(x), *expression.axes.sizes) == tuple(value.shape)
        assert value.dtype in (torch.float32, torch.float64)
        margin = 0.0 if value.dtype == torch.float32 else 1e-12
        np.testing.assert_allclose(value.double(), expected, margin, margin / 100, err_msg=case)


def test_every_function_has_an_oracle() -> None:
    """A function without a line above is not tested."""
    texts = " ".join(ORACLES)
    assert [] == [name for name in FUNCTIONS if f"{name}(" not in texts]


def test_every_function_says_its_formula() -> None:
    """Each has a docstring."""
    assert [] == [name for name, function in FUNCTIONS.items() if not function.doc]


def test_exact_operations_stay_float32() -> None:
    """What rounds nothing is not widened; what rounds is float64."""
    rows = Rows({"x": torch.ones(2, 6, dtype=torch.bfloat16)})
    axes = {"x": compiled("x").axes}
    exact = ("x", "-x", "abs(x)", "sign(x)", "relu(x)", "clip(x, 0, 1)", "x[1:3]", "x > 0")
    assert [torch.float32] * 8 == [compiled(text, axes)(rows).dtype for text in exact]
    rounded = ("x + 1", "x * x", "sqrt(x)", "norm(x)", "dot(x, x)", "softmax(x)", "argmax(x)")
    assert [torch.float64] * 7 == [compiled(text, axes)(rows).dtype for text in rounded]


def test_whole_numbers_are_exact() -> None:
    """Token ids above 2 ** 24, which float32 cannot hold, are compared as they are."""
    x = torch.tensor([[2**24 + 1] * 6, [2**24] * 6])
    value = compiled(f"x == {2**24}")(Rows({"x": x}))
    assert [[0.0] * 6, [1.0] * 6] == value.tolist()


def test_first_of_equals_of_many() -> None:
    """The first of equals also where rows are long, and the first NaN."""
    x = torch.zeros(3, 5000)
    x[1, [77, 4000]] = 1
    x[2, [99, 3000]] = torch.nan
    axes = compiled("x").axes.resized("feature", 5000)
    assert [0, 77, 99] == compiled("argmax(x)", axes)(Rows({"x": x})).tolist()


def test_no_direction() -> None:
    """The cosine with a vector of zeros is NaN: it has no direction."""
    x = torch.zeros(1, 6)
    value = compiled("cos(x, input)")(Rows({"x": x, "input": torch.ones(1, 6)}))
    assert value.isnan().tolist() == [True]


def test_no_overflow() -> None:
    """The norm of numbers whose squares float32 cannot hold."""
    value = compiled("norm(x)")(Rows({"x": torch.full((1, 6), 1e30)}))
    assert pytest.approx(6**0.5 * 1e30, rel=1e-7) == float(value)
