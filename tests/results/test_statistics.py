"""Statistics with dimensions of their own, rankings, and axes that differ within a capture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from hookql.language import ast
from hookql.results.captured import CaptureResult, GroupAxis
from hookql.results.netcdf import load, save
from hookql.results.tree import build_tree
from tests.results.made import attributes, capture, numbers, site, spec

X = ast.Name("x")


def spelled(ids: Sequence[int]) -> list[str]:
    """A vocabulary; no id of nothing is ever looked up."""
    assert min(ids, default=0) >= 0
    return [f" t{number}\0" for number in ids]


def ranked() -> CaptureResult:
    """The top 3 of two neurons in two layers; the last one saw two rows only."""
    value = np.array([[3.0, 2.0, 1.0], [5.0, 4.0, np.nan]])
    parts = {
        "best": value,
        "best_sample": np.array([[0, 9, 9], [2, 3, -1]]),
        "best_position": np.array([[5, 0, 1], [7, 8, -1]]),
        "best_token": np.array([[50, 60, 50], [70, 50, -1]]),
    }
    chunk = {"best_chunk": np.array([[0, 0, 2], [0, 0, -1]])}
    sites = [
        site(0, variables=parts, shape=(2,), coordinates={"feature": np.array([5, 99])}),
        site(1, variables=parts | chunk, shape=(2,), coordinates={"feature": np.array([5, 99])}),
    ]
    best = (spec("top", "best", k=3),)
    return capture(*sites, statistics=best, token_text=spelled)


def test_ranking() -> None:
    """Values, places, ids and texts along (layer, feature, top); -1 and "" where nothing is."""
    tree: Any = build_tree([ranked()], {})
    for name in ("best", "best_sample", "best_position", "best_chunk", "best_token", "best_text"):
        assert tree[name].dims == ("layer", "feature", "top")
    assert tree["top"].values.tolist() == [0, 1, 2]
    assert tree["feature"].values.tolist() == [5, 99]
    assert tree["best"].dtype == np.float64
    assert tree["best_token"].dtype == np.int64
    assert tree["best_token"].sel(layer=1, feature=99).values.tolist() == [70, 50, -1]
    texts = tree["best_text"].sel(layer=1, feature=99).values.tolist()
    assert texts == [" t70\\x00", " t50\\x00", ""]
    assert tree["best_chunk"].values.tolist() == [
        [[0, 0, 0], [0, 0, -1]],
        [[0, 0, 2], [0, 0, -1]],
    ]
    companions = "best_sample best_position best_chunk best_token best_text"
    assert tree["best"].attrs["ancillary_variables"] == companions


def test_chunks_stand_only_where_samples_were_split() -> None:
    """Most results have none."""
    made = ranked()
    first = capture(made.sites[0], statistics=made.statistics)
    tree: Any = build_tree([first], {})
    assert "best_chunk" not in tree
    assert "best_text" not in tree  # nobody knows what ids spell


def test_quantiles_and_bins() -> None:
    """The statistic's own dimensions come last, labelled by what was asked for."""
    variables = {
        "q": numbers(4, 2),
        "hist": np.arange(4 * 5).reshape(4, 5),
    }
    asked = (spec("quantile", "q", q=(0.5, 0.99)), spec("hist", bins=3, lo=0.0, hi=3.0))
    tree: Any = build_tree([capture(site(0, variables=variables), statistics=asked)], {})
    assert tree["q"].dims == ("layer", "feature", "quantile")
    assert tree["quantile"].values.tolist() == [0.5, 0.99]
    assert float(tree["q"].sel(layer=0, quantile=0.99)[2]) == 5
    assert "q=(0.5, 0.99)" in tree["q"].attrs["cell_methods"]
    assert float(tree["q"].attrs["relative_error"]) > 0
    assert tree["hist"].dims == ("layer", "feature", "bin")
    assert tree["hist"].dtype == np.int64
    assert tree["bin_lo"].values.tolist() == [-np.inf, 0, 1, 2, 3]
    assert tree["bin_hi"].values.tolist() == [0, 1, 2, 3, np.inf]


def test_the_other_axis_of_a_matrix() -> None:
    """(feature, feature_2), both with the labels of chosen features."""
    one = site(0, variables={"cov": numbers(2, 2)}, coordinates={"feature": np.array([5, 99])})
    tree: Any = build_tree([capture(one, statistics=(spec("cov"),))], {})
    assert tree["cov"].dims == ("layer", "feature", "feature_2")
    assert float(tree["cov"].sel(layer=0, feature=99, feature_2=5)) == 2


def test_each_statistic_has_the_axes_of_its_value() -> None:
    """One number a token beside a whole vector; the value is in the attributes."""
    norm = ast.Call("norm", (ast.Argument(X),))
    one = site(0, variables={"mean": numbers(4), "n": np.array(2.5)}, variable_axes={"n": ()})
    asked = (spec("mean"), spec("mean", "n", norm))
    tree: Any = build_tree([capture(one, statistics=asked)], {})
    assert tree["mean"].dims == ("layer", "feature")
    assert tree["n"].dims == ("layer",)
    assert tree["n"].attrs["expression"] == "norm(x)"
    assert "expression" not in tree["mean"].attrs


def test_dimensions_that_differ_have_names_of_their_own() -> None:
    """Other features, other quantiles: never one name for two things."""
    asked = (
        spec("mean"),
        spec("mean", "some"),
        spec("mean", "same"),
        spec("quantile", "a", q=(0.5,)),
        spec("quantile", "b", q=(0.9,)),
        spec("hist", "h", bins=2, lo=0, hi=1),
        spec("hist", "g", bins=2, lo=0, hi=2),
    )
    variables = {
        "mean": numbers(4),
        "some": numbers(2),
        "same": numbers(4),
        "a": numbers(4, 1),
        "b": numbers(4, 1),
        "h": np.ones((4, 4), int),
        "g": np.ones((4, 4), int),
    }
    labels = {"some": {"feature": np.array([3, 1])}, "same": {"feature": np.arange(4)}}
    one = site(0, variables=variables, variable_coordinates=labels)
    tree: Any = build_tree([capture(one, statistics=asked)], {})
    assert tree["mean"].dims == ("layer", "feature")
    assert tree["some"].dims == ("layer", "feature_some")
    assert tree["feature_some"].values.tolist() == [3, 1]
    assert tree["same"].dims == ("layer", "feature")
    assert tree["b"].dims == ("layer", "feature", "quantile_b")
    assert tree["quantile_b"].values.tolist() == [0.9]
    assert tree["g"].dims == ("layer", "feature", "bin_g")
    assert tree["bin_hi_g"].values.tolist() == [0, 1, 2, np.inf]
    assert tree["bin_hi"].values.tolist() == [0, 0.5, 1, np.inf]


def test_equal_parts_share_a_dimension() -> None:
    """Features 3 to 5 are the same features in each of three statistics."""
    names = ("mean", "c", "d", "e")
    asked = (spec("mean"), spec("cov", "c"), spec("corr", "d"), spec("top", "e", k=3))
    variables = dict(zip(names, map(numbers, (4, 3, 3, 3)), strict=True))
    variables |= {name: numbers(3, 3) for name in names[1:]}
    labels = {name: {"feature": np.array([3, 4, 5])} for name in names[1:]}
    one = site(0, variables=variables, variable_coordinates=labels)
    tree: Any = build_tree([capture(one, statistics=asked)], {})
    assert [tree[name].dims[1:] for name in names] == [
        ("feature",),
        ("feature_c", "feature_2"),
        ("feature_c", "feature_2"),
        ("feature_c", "top"),
    ]


def test_names_that_only_look_like_companions() -> None:
    """A mean brings no `a_token` along: one that is asked for is a statistic of its own."""
    asked = (spec("mean", "a"), spec("max", "a_token"))
    one = site(0, variables={"a": numbers(2), "a_token": numbers(2, start=0.5)})
    tree: Any = build_tree([capture(one, statistics=asked, token_text=spelled)], {})
    assert tree["a_token"].values.tolist() == [[0.5, 1.5]]
    assert tree["a_token"].attrs["statistic"] == "max"
    assert "ancillary_variables" not in tree["a"].attrs
    assert "a_text" not in tree


def test_dimensions_step_aside() -> None:
    """No made-up name is one that a variable or a key has."""
    asked = (
        spec("mean", "a"),
        spec("mean", "b"),
        spec("max", "feature_b"),
        spec("hist", "h", bins=1, lo=0, hi=1),
        spec("hist", "g", bins=1, lo=0, hi=2),
    )
    variables = {
        "a": numbers(1, 4),
        "b": numbers(1, 3),
        "feature_b": np.ones(1),
        "h": np.ones((1, 4, 3), int),
        "g": np.ones((1, 4, 3), int),
    }
    axes: dict[str, tuple[str, ...]] = {"feature_b": ()}
    one = site(0, variables=variables, variable_axes=axes, count=np.array([5]))
    keys = (GroupAxis("bin_lo_g", np.array([7])), GroupAxis("bin_g", np.array([8])))
    tree: Any = build_tree([capture(one, statistics=asked, keys=keys)], {})
    assert tree["b"].dims == ("layer", "bin_lo_g", "bin_g", "feature_b_2")
    assert tree["g"].dims == ("layer", "bin_lo_g", "bin_g", "feature", "bin_g_2")
    assert (tree["bin_lo_g"].values.tolist(), tree["bin_g"].values.tolist()) == ([7], [8])
    assert tree["bin_lo_g_2"].values.tolist() == [-np.inf, 0, 2]
    assert tree["bin_hi_g"].values.tolist() == [0, 2, np.inf]


def test_other_labels_split_a_role() -> None:
    """The last two features of layers of unequal width are not the same features."""
    sites = [site(n, shape=(2,), coordinates={"feature": np.array([n, n + 1])}) for n in range(2)]
    tree: Any = build_tree([capture(*sites)], {})
    first, second = (node for node in tree["attn"].children.values())
    assert first["feature"].values.tolist() == [0, 1]
    assert second["feature"].values.tolist() == [1, 2]


def test_axes_that_do_not_fit_are_a_bug() -> None:
    """Numbers are never given another axis' name."""
    with pytest.raises(ValueError, match="do not fit"):
        build_tree([capture(site(0, variables={"mean": numbers(2, 2, 2)}))], {})


@pytest.mark.parametrize("other", ["best_sample", "best_text"])
def test_names_of_companions_are_a_bug(other: str) -> None:
    """The language refuses a statistic that is called like what belongs to another one."""
    made = ranked()
    sites = [site(0, variables={**made.sites[0].variables, other: numbers(2)})]
    asked = (*made.statistics, spec("mean", other))
    with pytest.raises(ValueError, match=f"one name: {other}$"):
        build_tree([capture(*sites, statistics=asked, token_text=spelled)], {})


def test_rankings_by_group_come_back(tmp_path: Path) -> None:
    """Texts, -1 and NaN where nothing fell, through a file."""
    keys = (GroupAxis("a", np.array([0, 1])), GroupAxis("b", np.array([True, False])))
    made = ranked()
    sites = [
        site(
            0,
            variables=dict(made.sites[0].variables),
            axes=(),
            shape=(),
            count=np.array([3, 2]),
        )
    ]
    grouped = capture(*sites, statistics=made.statistics, keys=keys, token_text=spelled)
    tree: Any = build_tree([grouped], attributes())
    assert tree["best"].dims == ("layer", "a", "b", "top")
    assert tree["best_token"].sel(layer=0, a=0, b=False).values.tolist() == [-1, -1, -1]
    assert tree["best_text"].sel(layer=0, a=0, b=False).values.tolist() == ["", "", ""]
    assert np.isnan(tree["best"].sel(layer=0, a=1, b=True)).all()
    save(tree, tmp_path / "x.nc")
    xarray.testing.assert_identical(tree, load(tmp_path / "x.nc"))
