"""Tables of groups, quantiles, histograms, matrices and rankings, against golden files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray

from hookql.language import ast
from hookql.results.captured import GroupAxis
from hookql.results.columns import sparkline
from hookql.results.table import render, summary
from hookql.results.terminal import quoted, text_width
from hookql.results.tree import build_tree
from tests.results.made import attributes, capture, grouped, normal, site, spec

Golden = Callable[[str, str], None]

TOKENS = (" the", "\n", '"', "Paris", " ", "é", "\x1b[2J", "a token much longer than most", "東京")


def kinds() -> xarray.DataTree:
    """Groups, quantiles, histograms, matrices and rankings."""
    rng = np.random.default_rng(0)
    position = GroupAxis("position", np.arange(100))
    product = (
        GroupAxis("label", np.array(["a\x1b[2J label that is far too long for a table", "b", "b"])),
        GroupAxis("prev", np.array([3, 3, 1]), texts=np.array([" the", " the", "\n"], object)),
    )
    norm = ast.Call("norm", (ast.Argument(ast.Name("x")),))
    shapes = (
        spec("quantile", "q", norm, q=(0.01, 0.1, 0.5, 0.9, 0.999)),
        spec("quantile", "median", q=(0.5,)),
        spec("hist", bins=100, lo=-2.0, hi=2.0),
        spec("cov"),
    )
    spoilt = rng.normal(size=(4, 4))
    spoilt[0, 1] = np.inf
    numbers_of = [
        {
            "q": np.sort(rng.lognormal(size=5)),
            "median": rng.normal(size=(4, 1)),
            "hist": rng.poisson(900 * np.exp(-(np.linspace(-2, 2, 102) ** 2)), (4, 102)),
            "cov": spoilt if layer else rng.normal(size=(4, 4)),
        }
        for layer in range(3)
    ]
    value = -np.sort(-rng.normal(size=(50, 10)))
    best = {
        "best": np.where(np.arange(10) == 9, np.nan, value),
        "best_sample": np.where(np.arange(10) == 9, -1, rng.integers(0, 1000, (50, 10))),
        "best_position": np.where(np.arange(10) == 9, -1, rng.integers(0, 64, (50, 10))),
        "best_token": np.where(np.arange(10) == 9, -1, rng.integers(0, 9, (50, 10))),
    }
    return build_tree(
        [
            capture(
                *(
                    site(n, variables={"mean": normal(n, 100, 8)}, count=np.arange(100) + 1)
                    for n in range(2)
                ),
                keys=(position,),
                name="by_position",
            ),
            grouped(
                product,
                {"mean": normal(1, 3, 8)},
                np.array([5, 6, 7]),
                statistics=(spec("mean"), spec("count", "n")),
                name="product",
            ),
            capture(
                *(
                    site(n, variables=of, variable_axes={"q": ()})
                    for n, of in enumerate(numbers_of)
                ),
                statistics=shapes,
                name="shapes",
            ),
            capture(
                *(site(n, variables=best) for n in range(2)),
                statistics=(spec("top", "best", k=10),),
                token_text=lambda ids: [TOKENS[number] for number in ids],
                name="best",
            ),
            capture(
                site(3, variables=best, coordinates={"feature": 100 + np.arange(50)}),
                statistics=(spec("top", "best", k=10),),
                name="one",
            ),
        ],
        attributes(),
    )


@pytest.mark.parametrize("width", [60, 100])
def test_every_kind_of_statistic(golden: Golden, width: int) -> None:
    """Groups, quantiles, histograms, matrices and rankings: at two widths."""
    text = render(kinds(), width, ascii=False)
    golden(f"results/kinds-{width}.txt", text + "\n")
    assert max(map(text_width, text.splitlines())) <= width
    assert "\x1b" not in text


def test_kinds_in_ascii(golden: Golden) -> None:
    """Sketches of histograms, quotes and ellipses too."""
    text = summary(kinds(), 100, ascii=True)
    assert text.isascii()
    golden("results/kinds-ascii.txt", text + "\n")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([0, 1, 8, 4000], " ▁▁█"),
        ([4, 2, 1, 0], "█▄▂ "),
        ([0, 0], "  "),
        ([], ""),
        ([1] * 48, "█" * 24),
        ([2**62] * 3, "███"),
    ],
)
def test_sparkline(counts: list[int], expected: str) -> None:
    """As high as the count beside the largest; what is not empty shows."""
    assert sparkline(np.array(counts, np.int64), ascii=False) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the", '" the"'),
        ("\n\t\r", '"\\n\\t\\r"'),
        ('"\\', '"\\"\\\\"'),
        ("\x1b[0m", '"\ufffd[0m"'),
        ("x" * 21, '"' + "x" * 19 + '…"'),
        ("東" * 11, '"' + "東" * 9 + '…"'),
    ],
)
def test_quoted(text: str, expected: str) -> None:
    """A token's text on one line, spaces and newlines to be seen."""
    assert quoted(text) == expected
