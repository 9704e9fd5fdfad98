"""The tables that `hookql run` and `hookql show` print, against golden files."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.results.cells import bars, number_text, number_texts
from hookql.results.table import render, summary
from hookql.results.tree import build_tree
from tests.results.made import WHEN, attributes, capture, normal, site, spec

Golden = Callable[[str, str], None]
ALL = ("mean", "std", "var", "min", "max", "rms", "sum")


def first() -> xarray.DataTree:
    """What the first example gives: mean and std of six layers."""
    sites = [
        site(i, variables={"mean": normal(i, 128), "std": np.abs(normal(i + 9, 128))})
        for i in range(6)
    ]
    return build_tree([capture(*sites, names=("mean", "std"))], attributes())


def everything() -> xarray.DataTree:
    """Several captures: calls and heads, 100 layers, pooled numbers, no layer, nothing kept."""
    spoilt = site(0, ALL, shape=(6,), nonfinite=4, first_nonfinite=(12, 5))
    spoilt.variables["mean"][2] = np.nan
    spoilt.variables["max"][:] = np.inf
    many = [site(i, ALL, shape=(6,), scale=10.0 ** (i / 10)) for i in range(1, 100)]
    modules = tuple(f"transformer.h.{i}.attn" for i in range(6))
    total = {"mean": np.array(-1.25e20), "n": np.array(77)}
    nothing = {"mean": np.full(4, np.nan)}
    return build_tree(
        [
            capture(*(site(i, shape=(2, 3), calls=2) for i in range(2)), name="calls"),
            capture(spoilt, *many, names=ALL, name="many"),
            capture(
                site(None, module=modules, shape=(), axes=(), variables=total),
                statistics=(spec("mean"), spec("count", "n")),
                pool={"layer", "feature"},
                name="pooled",
            ),
            capture(
                site(None, role="", count=0, variables=nothing),
                site(None, role="lm_head"),
                name="others",
            ),
            capture(site(0), site(1, count=999, shape=(4,)), name="uneven"),
        ],
        attributes(),
    )


def test_first_table(golden: Golden) -> None:
    """The table a newcomer sees first."""
    golden("results/first.txt", render(first(), 100, ascii=False) + "\n")


def test_summary(golden: Golden) -> None:
    """What `hookql show` prints of the first result."""
    golden("results/summary.txt", summary(first(), 100, ascii=False) + "\n")


def test_what_was_skipped_was_looked_at_too() -> None:
    """The tokens of batches that no `where` wanted are part of the whole, and said apart."""
    tree = build_tree([capture(site(0))], attributes(tokens_run=1300, tokens_skipped=700))
    assert "1,234 tokens kept of 2,000\n" in render(tree, 100, ascii=False)
    assert "1,300 tokens run · 700 tokens skipped" in summary(tree, 100, ascii=False)


@pytest.mark.parametrize("width", [60, 100])
def test_every_kind_of_table(golden: Golden, width: int) -> None:
    """Calls, heads, 100 layers, huge numbers, NaN, pooled numbers, no tokens: at two widths."""
    text = render(everything(), width, ascii=False)
    golden(f"results/everything-{width}.txt", text + "\n")
    assert max(map(len, text.splitlines())) <= width


def test_ascii(golden: Golden) -> None:
    """Where the stream knows no bars, all is ASCII."""
    text = summary(first(), 80, ascii=True)
    assert text.isascii()
    golden("results/ascii.txt", text + "\n")


def test_ascii_is_chosen_by_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that stdout cannot encode is printed."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert render(first(), 80).isascii()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "█" in render(first(), 80)


def test_color_changes_no_text() -> None:
    """Colours are only added around the same characters."""
    colored = render(everything(), 100, color=True, ascii=False)
    assert "\x1b[1m" in colored
    for code in ("\x1b[1m", "\x1b[2m", "\x1b[0m"):
        colored = colored.replace(code, "")
    assert colored == render(everything(), 100, ascii=False)


def test_names_cannot_steer_the_terminal() -> None:
    """Escape sequences in a file from elsewhere are shown as such."""
    made = attributes(query="capture \x1b[2J mean", model="\x1b]0;x\x07")
    tree = build_tree([capture(site(None, module="a\x1b[31m"))], made)
    assert "\x1b" not in summary(tree, 80, ascii=False)


def test_bare_tree_has_a_summary() -> None:
    """A result without any provenance is no reason to fail."""
    assert "transformer.h.0.attn" in summary(build_tree([capture(site(0))], {}), 80)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=30),
    st.integers(1, 150),
)
def test_any_numbers_make_a_table(rows: list[list[float]], width: int) -> None:
    """Whatever the numbers, at whatever width: a row for each layer, and no failure."""
    sites = [
        site(i, variables={"mean": np.array(row), "min": np.array(row)})
        for i, row in enumerate(rows)
    ]
    tree = build_tree([capture(*sites, names=("mean", "min"))], attributes(started=WHEN))
    lines = render(tree, width, ascii=False).splitlines()
    starts = [line.split()[0] for line in lines if line.split()]
    assert starts.count("0") >= 1
    assert starts.count(str(len(rows) - 1)) >= 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1.000"),
        (-12.3456, "-12.35"),
        (123456.7, "123457"),
        (9999.96, "10000"),
        (0.00012345, "0.0001234"),
        (1e-5, "1.000e-05"),
        (-1.5e300, "-1.500e+300"),
        (np.nan, "nan"),
        (-np.inf, "-inf"),
    ],
)
def test_numbers(value: float, expected: str) -> None:
    """Four significant digits where they fit, never fewer."""
    assert number_text(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([971.0, 108752.0, -0.0, np.nan], ["971", "108,752", "0", "nan"]),
        ([971.0, 0.5], ["971.0", "0.5000"]),
        ([2.0, 1e20], ["2.000", "1.000e+20"]),
        ([np.inf, np.inf], ["inf", "inf"]),
        ([], []),
    ],
)
def test_columns_of_whole_numbers(values: list[float], expected: list[str]) -> None:
    """Sums of what is true, and all else that is whole, with every digit."""
    assert number_texts(values) == expected


def test_bars() -> None:
    """Lengths are proportional to size; a zero, a NaN and a lone number have none."""
    assert bars([4.0, -2.0, 1.0, 0.0, np.nan], ascii=False) == ["████████", "████", "██", "", ""]
    assert bars([4.0, 0.3], ascii=False) == ["████████", "▌"]
    assert bars([8.0, 3.0], ascii=True) == ["########", "###"]
    assert bars([0.0, 0.0], ascii=False) == ["", ""]
    assert bars([3.0], ascii=False) == [""]
    assert bars([1.7e308, -1.7e308], ascii=False) == ["████████"] * 2
