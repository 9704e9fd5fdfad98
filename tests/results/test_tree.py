"""The shape of the tree, its dimensions, coordinates and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray

from hookql.language.names import RESULT_NAMES
from hookql.results.attributes import clean
from hookql.results.dataset import FAULTS
from hookql.results.tree import build_tree
from tests.results.made import attributes, capture, numbers, site, spec


def nodes(tree: xarray.DataTree) -> list[str]:
    """The paths of the nodes that hold data."""
    return [node.path for node in tree.subtree if node.has_data]


def listed(tree: Any, name: str) -> Any:
    """A variable's values as plain Python."""
    return tree[name].values.tolist()


def test_one_capture_of_one_role_is_at_the_root() -> None:
    """The user selects a layer without walking a tree, and sees how the result was made."""
    sites = [site(layer, names=("mean", "std")) for layer in (5, 0, 3)]
    tree = build_tree([capture(*sites, names=("mean", "std"))], attributes())
    assert nodes(tree) == ["/"]
    assert tree["mean"].dims == ("layer", "feature")
    assert listed(tree, "layer") == [0, 3, 5]
    expected = [f"transformer.h.{layer}.attn" for layer in (0, 3, 5)]
    assert listed(tree, "module") == expected
    assert tree["module"].dims == ("layer",)
    assert tree["mean"].sel(layer=3).values.tolist() == [3, 4, 5, 6]
    assert tree["mean"].dtype == np.float64
    assert tree["count"].dims == ()
    assert tree["count"].dtype == np.int64
    assert int(tree["count"]) == 1234
    assert tree.attrs["query"] == attributes()["query"]
    assert tree.attrs["capture"] == "attn"
    assert tree.attrs["capture_query"] == "capture mean, std from transformer.h[0:6].attn"
    assert tree.attrs["role"] == "transformer.h.attn"
    assert tree.attrs["tokens_kept"] == 1234
    assert tree.attrs["Conventions"] == "CF-1.11"
    assert tree["mean"].attrs["cell_methods"] == "token: mean"
    assert tree["std"].attrs["cell_methods"] == "token: standard_deviation (comment: ddof=0)"
    assert tree["mean"].attrs["long_name"].startswith("Arithmetic mean")


def test_several_roles_and_captures_are_children() -> None:
    """A child for each capture and in it one for each role; the root says how it was made."""
    both = capture(site(0), site(0, role="transformer.h.mlp"))
    assert nodes(build_tree([both], {})) == [
        "/attn/transformer.h.attn",
        "/attn/transformer.h.mlp",
    ]
    tree = build_tree([capture(site(0)), capture(site(1), name="again")], attributes())
    assert nodes(tree) == ["/attn/transformer.h.attn", "/again/transformer.h.attn"]
    assert tree.attrs["model"] == "demo"
    assert tree["attn"].attrs["query"] == "capture mean from transformer.h[0:6].attn"
    assert tree["attn"].attrs["tokens_kept"] == 1234


def test_names_are_unique_and_valid() -> None:
    """The root module is called model, and no name is lost or breaks the file."""
    tree = build_tree([capture(site(None, role=""), site(None, role="a/b"))] * 2, {})
    assert nodes(tree) == ["/attn/model", "/attn/a_b", "/attn__2/model", "/attn__2/a_b"]
    assert tree["attn/model"].attrs["role"] == "model"
    tree = build_tree([capture(site(0), site(0, role="e\u0301"), name="\ufa70")], {})
    assert nodes(tree) == ["/\u4e26/transformer.h.attn", "/\u4e26/\u00e9"]  # as netCDF has them


def test_without_layer() -> None:
    """A module outside every list has no layer, and its name is one coordinate."""
    tree = build_tree([capture(site(None, role="lm_head"))], {})
    assert tree["mean"].dims == ("feature",)
    assert str(tree["module"].values) == "lm_head"
    assert tree["nonfinite"].dims == ()


def test_unequal_shapes_split_a_role() -> None:
    """Widths, axes, calls and having a layer: what differs names the parts."""
    tree = build_tree([capture(site(0), site(1, shape=(8,)), site(2))], {})
    assert nodes(tree) == ["/attn/transformer.h.attn__4", "/attn/transformer.h.attn__8"]
    assert listed(tree["attn/transformer.h.attn__4"], "layer") == [0, 2]
    assert tree["attn/transformer.h.attn__8"].attrs["role"] == "transformer.h.attn"
    tree = build_tree([capture(site(0), site(None))], {})
    assert nodes(tree) == ["/attn/transformer.h.attn__layers", "/attn/transformer.h.attn__single"]
    tree = build_tree([capture(site(0), site(1, calls=2))], {})
    assert nodes(tree) == ["/attn/transformer.h.attn__1calls", "/attn/transformer.h.attn__2calls"]
    tree = build_tree([capture(site(0), site(1, axes=("key",)))], {})
    assert nodes(tree) == ["/attn/transformer.h.attn__feature", "/attn/transformer.h.attn__key"]
    tree = build_tree([capture(site(0), site(0))], {})
    assert nodes(tree) == ["/attn/transformer.h.attn__1", "/attn/transformer.h.attn__2"]


def test_calls_and_heads_are_dimensions() -> None:
    """(layer, call, head, feature), in this order."""
    sites = [site(layer, shape=(2, 3), calls=4) for layer in range(2)]
    tree = build_tree([capture(*sites)], {})
    assert dict(tree["mean"].sizes) == {"layer": 2, "call": 4, "head": 2, "feature": 3}
    assert tree["mean"].dims == ("layer", "call", "head", "feature")
    np.testing.assert_array_equal(numbers(4, 2, 3, start=1), tree["mean"].sel(layer=1).values)


def test_pooled_dimensions_are_absent() -> None:
    """Pooled axes leave one number a layer, pooled layers one in all, with the modules listed."""
    pooled = site(0, shape=(), axes=())
    tree = build_tree([capture(pooled, pool={"feature"})], {})
    assert tree["mean"].dims == ("layer",)
    assert tree["mean"].attrs["cell_methods"] == "token: feature: mean"
    modules = tuple(f"transformer.h.{i}.attn" for i in range(6))
    pooled = site(None, module=modules)
    tree = build_tree([capture(pooled, pool={"layer"})], {})
    assert tree["mean"].dims == ("feature",)
    assert tree.attrs["modules"] == "transformer.h[0:6].attn"
    assert "module" not in tree.coords
    pooled = site(None, module=modules, shape=(), axes=(), calls=3)
    tree = build_tree([capture(pooled, pool={"layer", "feature"})], {})
    assert tree["mean"].dims == ("call",)


def test_count() -> None:
    """It is always there, under its own name once, and along layer only if layers differ."""
    counted = capture(site(0), site(1), names=("mean", "count"))
    tree = build_tree([counted], {})
    assert int(tree["count"]) == 1234
    only = site(0, names=())
    tree = build_tree([capture(only, statistics=(spec("count"), spec("count", "n")))], {})
    assert listed(tree, "n") == [1234]
    assert tree["n"].dtype == np.int64
    tree = build_tree([capture(site(0), site(1, count=7))], {})
    assert tree["count"].dims == ("layer",)
    assert listed(tree, "count") == [1234, 7]


def test_nonfinite_values_are_located() -> None:
    """How many there were in each layer, and where the first one was; -1 for nowhere."""
    tree = build_tree([capture(site(0), site(1, nonfinite=3, first_nonfinite=(7, 2)))], {})
    assert listed(tree, "nonfinite") == [0, 3]
    assert listed(tree, "first_nonfinite_sample") == [-1, 7]
    assert listed(tree, "first_nonfinite_position") == [-1, 2]
    assert tree["nonfinite"].dtype == np.int64


@pytest.mark.parametrize("name", sorted({*FAULTS, "layer", "module", "count"}))
def test_names_of_other_parts_are_a_bug(name: str) -> None:
    """The language refuses them: a statistic never takes the place of another part."""
    wrong = capture(site(0, names=(name,)), statistics=(spec("mean", name),))
    assert name in RESULT_NAMES
    with pytest.raises(ValueError, match=f"one name: {name}$"):
        build_tree([wrong], {})


def test_attributes_are_what_netcdf_can_hold() -> None:
    """Nothing that a file cannot hold, or would bring back as something else."""
    cleaned = clean(
        {
            "none": None,
            "bool": True,
            "int": np.int32(3),
            "huge": 2**70,
            "float": np.float32(0.5),
            "text": "a\0b\ud800",
            "mapping": {"a": [1, None]},
            "texts": ["a", "b"],
            "one": [5],
            "empty": [],
            "set": {"b", "a"},
        }
    )
    expected = {
        "bool": "true",
        "int": 3,
        "huge": str(2**70),
        "float": 0.5,
        "text": "a\\x00b\\ud800",
        "mapping": '{"a": [1, null]}',
        "texts": "a, b",
        "one": 5,
        "empty": "",
        "set": "a, b",
    }
    assert cleaned == expected
    np.testing.assert_array_equal([1, 2], clean({"ints": (1, 2)})["ints"])


def test_provenance_says_how_it_was_made() -> None:
    """Times in UTC, versions by name, plain values only."""
    made = attributes()
    assert made["started"] == "2026-01-31T12:30:05.250Z"
    assert made["torch_version"] == "2.13.0"
    assert made["data_fingerprint"] == "ab12"
    assert made["model_revision"] == "none"
    assert clean(made) == made
    installed = attributes(versions=None)
    assert {"hookql_version", "torch_version", "transformers_version"} <= set(installed)
