"""The engine against a slow reference evaluator, on queries that Hypothesis makes.

`HOOKQL_REFERENCE_EXAMPLES=5000` runs more of them than the suite does. First the evaluator itself,
against numbers computed by hand.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, Phase, event, given, note, reject, settings

import hookql
from hookql.language import ast
from hookql.language.parser import parse
from tests.reference import formulas, sites
from tests.reference.captures import evaluate
from tests.reference.compare import Disagreement, compare, quantile_error_told
from tests.reference.evaluate import Token
from tests.reference.models import ROWS, subject
from tests.reference.queries import Query, queries
from tests.reference.things import Unsure
from tests.reference.values import Value

EXAMPLES = int(os.environ.get("HOOKQL_REFERENCE_EXAMPLES", "120"))
# Who asks for more of them gets others each time, and failing ones made small, which takes minutes.
ASKED = "HOOKQL_REFERENCE_EXAMPLES" in os.environ
SHRINK = [Phase.shrink] if ASKED else []


@given(queries())
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not ASKED,
    database=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *SHRINK],
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
def test_the_engine_agrees_with_the_reference(query: Query) -> None:
    """Any valid query gives what the slow evaluator says, within the page's margins."""
    note(str(query))
    try:
        expected = evaluate(query.subject(), query.text)
    except Unsure:
        event("unsure")
        reject()
    result = run(query)
    compare(result, expected)
    quantile_error_told(result)


def run(query: Query) -> xarray.DataTree:
    """The engine's answer."""
    about = query.subject()
    options: dict[str, Any] = {} if query.batch_size is None else {"batch_size": query.batch_size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hookql.HookQLWarning)
        return hookql.run(
            query.text,
            model=about.model,
            tokenizer=about.tokenizer,
            data=[dict(row) for row in ROWS],
            max_length=query.max_length,
            overflow=query.overflow,
            **options,
        )


# --- the evaluator by hand ------------------------------------------------------------------------


def test_contexts_are_cut_as_documented() -> None:
    """Pieces without overlap, each with the tokenizer's tokens around it; the empty sample none."""
    about = subject("bert", 9, "split")
    pieces = [c for c in about.contexts if c.sample == 2]  # "The cat sat on a mat": 20 characters
    spelled = ["".join(about.tokenizer.convert_ids_to_tokens(c.ids)) for c in pieces]
    assert ["<cls>The cat<sep>", "<cls> sat on<sep>", "<cls> a mat<sep>"] == spelled
    assert [(0, 0), (1, 7), (2, 14)] == [(c.chunk, c.offset) for c in pieces]
    assert [True, *[False] * 6, True] == list(pieces[2].special)
    assert [] == [c for c in about.contexts if c.sample == 4]
    short = subject("gpt2", 12, "truncate")
    assert [12] == [len(c) for c in short.contexts if c.sample == 2]


# Of GPT-2's "aab" and BERT's "<cls>aab<sep>": at which tokens it holds, ? where it is undefined.
TRUTHS = {
    "token == prev": ("?10", "?0100"),
    'prev == "a" or position == 0': ("111", "10110"),
    'not (prev == "b")': ("?11", "?1110"),
    "prev == none": ("100", "10000"),
    'next in {"b", sep}': ("01?", "0011?"),
    "position == -1": ("001", "00001"),
    "position >= last - 1": ("011", "00011"),
    "position < last - 3": ("000", "10000"),
    "content_position == last": ("001", "?001?"),
    "content_position < -1": ("110", "?110?"),
    "special": ("000", "10001"),
    "0 < position <= 2": ("011", "01100"),
    "token ~ /^[b-z]$/": ("001", "00010"),
    'within "ab"': ("011", "00110"),
    'row.label == "spam" and row.weight >= 2': ("111", "11111"),
    "row.label < \"i\"": ("000", "00000"),
    "length > 3": ("000", "11111"),
    "position == 0 and loss > 0": ("100", None),
    "surprisal > 0": ("?11", None),
    "prob < 2": ("11?", None),
}  # fmt: skip


@pytest.mark.parametrize("predicate", TRUTHS)
def test_predicates_by_hand(predicate: str) -> None:
    """Three-valued logic and every column, on one short sample."""
    for family, expected in zip(("gpt2", "bert"), TRUTHS[predicate], strict=True):
        if expected is not None:
            assert expected == shown(family, predicate), family


def shown(family: str, predicate: str) -> str:
    """What a predicate is at each token of the last sample, "aab"."""
    about = subject(family)
    (capture,) = parse(f"capture mean from h where {predicate}").statements
    assert isinstance(capture, ast.Capture)
    last = len(about.contexts) - 1
    tokens = [Token(about, last, at, {}) for at in range(len(about.contexts[last]))]
    return "".join({True: "1", False: "0", None: "?"}[t.kept(capture.where)] for t in tokens)


X = [3.0, -4.0]
NUMBERS = {
    "norm(x)": 5,
    "norm(x, 1)": 7,
    "x * norm(x)": [15, -20],
    "x - x[0]": [0, -7],
    "-x ** 2": [-9, -16],
    "2 ** abs(x) / 4": [2, 4],
    "relu(x) + square(x) * 10": [93, 160],
    "clip(x, -1, 2)": [2, -1],
    "sign(x)": [1, -1],
    "sqrt(x)": [3**0.5, float("nan")],
    "isnan(sqrt(x)) and x < 0": [0, 1],
    "isfinite(1 / (x - 3))": [0, 1],
    "log(exp(x))": X,
    "dot(input, output)": -1,
    "cos(input, output)": -1 / (5 * 2**0.5),
    "argmax(abs(x))": 1,
    "softmax(x * 0)": [0.5, 0.5],
    "entropy(softmax(x * 0))": np.log(2),
    "kl(softmax(x * 0), softmax(x * 0))": 0,
    "x[[1, 0]]": [-4, 3],
    "x[:1]": [3],
    "x[feature=-1]": -4,
    "x > 0": [1, 0],
    "-5 < x <= 3": [1, 1],
    "not (x > 0) or position == 0": [1, 1],
    "x * position": [0, 0],
}


@pytest.mark.parametrize("expression", NUMBERS)
def test_expressions_by_hand(expression: str) -> None:
    """Each operator and function, on the row [3, -4]; `input` is [1, 1] and `output` the row."""
    (capture,) = parse(f"capture mean(({expression})) from h").statements
    assert isinstance(capture, ast.Capture)
    node = capture.statistics[0].arguments[0].value  # type: ignore[index]
    operands = {"x": exact(X), "output": exact(X), "input": exact([1.0, 1.0])}
    with np.errstate(all="ignore"):
        value = Token(subject("gpt2"), 0, 0, operands).value(node)
    assert value is not None
    assert np.all(value.err < 1e-15)
    expected = np.array(NUMBERS[expression], float)
    np.testing.assert_allclose(np.asarray(value.array), expected, rtol=1e-12, atol=1e-15)


def exact(row: list[float]) -> Value:
    """A row without any noise."""
    return Value(np.array(row), np.zeros(len(row)), ("feature",))


ROWS_BY_HAND = np.array([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]])
STATISTICS: dict[str, tuple[Mapping[str, Any], Any]] = {
    "mean": ({}, [3, 1]),
    "sum": ({}, [9, 3]),
    "var": ({"ddof": 1}, [7, 3]),
    "std": ({}, [(14 / 3) ** 0.5, 2**0.5]),
    "rms": ({}, [(41 / 3) ** 0.5, 3**0.5]),
    "min": ({}, [1, 0]),
    "max": ({}, [6, 3]),
    "skew": ({}, [6 / (14 / 3) ** 1.5, 2 / 2**1.5]),
    "kurtosis": ({}, [-1.5, -1.5]),
    "median": ({}, [2, 0]),
    "quantile": ({"q": (0.0, 1.0)}, [[1, 6], [0, 3]]),
    "cov": ({}, [[14 / 3, 3], [3, 2]]),
    "gram": ({}, [[41, 18], [18, 9]]),
    "corr": ({}, [[1, (27 / 28) ** 0.5], [(27 / 28) ** 0.5, 1]]),
    "hist": ({"bins": 2, "lo": 0.5, "hi": 4.5}, [[0, 2, 2, 3], [2, 2, 3, 3]]),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_by_hand(name: str) -> None:
    """The bounds hold the right number, and none that is off by a hundredth of it and more."""
    parameters, right = STATISTICS[name]
    found = formulas.expected(
        name, parameters, ROWS_BY_HAND, np.zeros_like(ROWS_BY_HAND), ("feature",)
    )
    right = np.array(right, float)
    assert np.all(found.low <= right)
    assert np.all(right <= found.high)
    assert np.all(found.high - found.low <= 0.021 * np.abs(right) + 2e-4)


PATHS = {
    "h[*]": ["transformer.h.0", "transformer.h.1"],
    "h[-1].attn": ["transformer.h.1.attn"],
    "transformer.h.0.{mlp,ln_?}": ["ln_1", "ln_2", "mlp"],
    "**.c_proj": ["0.attn", "0.mlp", "1.attn", "1.mlp"],
    "** isa LayerNorm": ["h.0.ln_1", "h.0.ln_2", "h.1.ln_1", "h.1.ln_2", "ln_f"],
}


def test_paths_by_hand() -> None:
    """Slices, alternatives, any depth, classes and suffixes."""
    start = {
        "transformer.h.0.{mlp,ln_?}": ("transformer.h.0.", ""),
        "**.c_proj": ("transformer.h.", ".c_proj"),
        "** isa LayerNorm": ("transformer.", ""),
    }
    for path, names in PATHS.items():
        (capture,) = parse(f"capture mean from {path}").statements
        assert isinstance(capture, ast.Capture)
        node = capture.sites[0]
        assert isinstance(node, ast.PathSite)
        before, behind = start.get(path, ("", ""))
        expected = [f"{before}{name}{behind}" for name in names]
        assert expected == sites.modules(subject("gpt2").model, node)


def test_a_wrong_result_is_told_from_a_right_one() -> None:
    """The comparer passes the reference's own numbers, and one off by 1e-4 std not."""
    about = subject("gpt2")
    expected = evaluate(about, "capture mean(x) as m from transformer.ln_f by position as c")
    bounds = expected[0].sites[0].variables["m"]
    positions = np.array(sorted(key[0] for key in bounds))
    means = np.array([(bounds[p,].low + bounds[p,].high) / 2 for p in positions])
    counts = np.array([expected[0].sites[0].count[p,] for p in positions])
    data = xarray.Dataset(
        {"m": (("position", "feature"), means), "count": ("position", counts)},
        {"position": positions, "module": "transformer.ln_f"},
        {"role": "transformer.ln_f"},
    )
    compare(xarray.DataTree(data), expected)
    for variable, change in (("m", 1e-4), ("count", 1)):
        wrong = data.copy(deep=True)
        wrong[variable][0] += change
        with pytest.raises(Disagreement, match=f"position 0.*{variable}"):
            compare(xarray.DataTree(wrong), expected)
