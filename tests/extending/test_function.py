"""Functions by hand: of the site's values, of token columns, and of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hookql
from hookql.errors import QueryError
from hookql.extending import function
from tests.tiny import character_tokenizer, tiny

TEXTS = ["abcabd abca", "xyz", "hello there, all of you"]


def run(query: str, **options: Any) -> Any:
    """Run a query on a small GPT-2."""
    return hookql.run(
        query, model=tiny("gpt2")[0], tokenizer=character_tokenizer(), texts=TEXTS, **options
    )


def rows(site: str) -> np.ndarray:
    """The raw rows of a site, float64."""
    return np.asarray(run(f"capture values from {site}")["values"].values[0].astype(np.float64))


def test_it_works_number_by_number() -> None:
    """`squash` with its default, and with each of its literals."""
    query = "capture mean(squash(x)) as a, mean(squash(x, 2)) as b, mean(squash(x, power=2)) as c"
    result, x = run(f"{query} from h[1]").isel(layer=0), rows("h[1]")
    np.testing.assert_allclose((x / (1 + abs(x))).mean(0), result["a"], rtol=1e-9)
    np.testing.assert_allclose((x / (2 + abs(x))).mean(0), result["b"], rtol=1e-9)
    np.testing.assert_allclose(((x / (1 + abs(x))) ** 2).mean(0), result["c"], rtol=1e-9)


def test_it_takes_the_last_axis_away() -> None:
    """One number a token, in a statistic and in a predicate."""
    x = np.sort(rows("h[1]"), -1)
    expected = x[:, -1] - x[:, -2]
    found = run("capture mean(gap(x)) from h[1]")["mean_gap_x"].item()
    assert expected.mean() == pytest.approx(found)
    kept = run("capture count from h[1] where gap(x) > 0.1")["count"]
    assert int((expected > 0.1).sum()) == kept.item()


def test_it_takes_several_values() -> None:
    """Of a module's two ports at once, along the last axis."""

    @function("toward", axes="along")
    def toward(a: Any, b: Any) -> Any:
        """``b - a``, of length 1."""
        apart = b - a
        return apart / apart.norm(dim=-1, keepdim=True)

    result = run("capture sum(square(toward(input, output))) as s from h[1] pool feature")
    assert result["s"].item() == pytest.approx(sum(map(len, TEXTS)))


def test_it_is_of_token_columns_too() -> None:
    """In a predicate, alone and in a sum; in an expression, with a truth inside."""
    lengths = [place / (2 + place) for text in TEXTS for place in range(len(text))]
    query = "capture count from h[0] where squash(position, limit=2) + 1 > 1.6"
    assert sum(each > 0.6 for each in lengths) == run(query)["count"].item()
    query = "capture mean(squash(position, 2)) as m from h[0]"
    assert run(query)["m"].item() == pytest.approx(sum(lengths) / len(lengths))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mean(squash())", "wrong-arity"),
        ("mean(squash(x, 1, 2, 3))", "wrong-arity"),
        ("mean(squash(x, lim=3))", "unknown-parameter"),
        ("mean(squash(x, limit=x))", "bad-parameter"),
        ("mean(gap(position))", "wrong-kind"),
        ("mean(squash)", "unknown-name"),
        ("mean(squach(x))", "unknown-function"),
    ],
)
def test_wrong_calls_are_found_without_a_model(text: str, code: str) -> None:
    """The language knows how it is called."""
    with pytest.raises(QueryError) as caught:
        hookql.check(f"capture {text} from h[1]")
    assert code == caught.value.code
