"""Groups become dimensions: every number stands where its keys say, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.results.captured import GroupAxis
from hookql.results.groups import assembled, product
from hookql.results.netcdf import load, save
from hookql.results.spool import Spool, mapped
from hookql.results.table import render
from hookql.results.tree import build_tree
from tests.results.made import attributes, capture, grouped, numbers, site, spec

Array = np.ndarray[Any, Any]


def objects(*texts: str) -> Array:
    """Texts as they are, NUL at the end included."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def spelled(ids: Sequence[int]) -> list[str]:
    """A vocabulary."""
    return [f" t{number}\n" for number in ids]


def test_one_key_is_reordered() -> None:
    """Numbers ascend; nothing is left empty."""
    keys = (GroupAxis("position", np.array([3, 0, 12]), long_name="position in the context"),)
    tree: Any = build_tree([grouped(keys, {"mean": numbers(3, 2)}, np.array([1, 2, 3]))], {})
    assert tree["mean"].dims == ("position", "feature")
    assert tree["position"].values.tolist() == [0, 3, 12]
    assert tree["position"].dtype == np.int64
    assert tree["mean"].values.tolist() == [[2, 3], [0, 1], [4, 5]]
    assert tree["count"].values.tolist() == [2, 1, 3]
    assert tree["position"].attrs["long_name"] == "position in the context"
    assert tree.attrs["by"] == "position"
    assert tree["mean"].attrs["cell_methods"] == "token: mean (comment: by position)"


def test_several_keys_are_a_product() -> None:
    """Only values that occur; NaN, and count 0, where nothing fell."""
    keys = (
        GroupAxis("label", objects("b", "a", "b")),
        GroupAxis("position", np.array([7, 7, 0])),
    )
    count = np.array([4, 5, 6])
    tree: Any = build_tree([grouped(keys, {"mean": np.array([[1.0], [2.0], [3.0]])}, count)], {})
    assert tree["mean"].dims == ("label", "position", "feature")
    np.testing.assert_array_equal(tree["mean"].values[..., 0], [[np.nan, 2], [3, 1]])
    assert tree["count"].values.tolist() == [[0, 5], [6, 4]]
    assert tree["count"].dtype == np.int64
    assert tree["label"].values.tolist() == ["a", "b"]
    assert float(tree["mean"].sel(label="b", position=0)[0]) == 3


def test_layers_calls_and_groups() -> None:
    """(layer, call, groups, axes), and counts along layer only where layers differ."""
    keys = (GroupAxis("position", np.array([1, 0])),)
    sites = [
        site(
            layer,
            calls=2,
            count=np.array([5, 6 + layer]),
            counts={"norm": np.array([1, 2])},
            variables={"mean": numbers(2, 2, 3), "norm": numbers(2, 2, start=layer)},
            variable_axes={"norm": ()},
        )
        for layer in range(2)
    ]
    specs = (spec("mean"), spec("mean", "norm"))
    tree: Any = build_tree([capture(*sites, keys=keys, statistics=specs)], {})
    assert tree["mean"].dims == ("layer", "call", "position", "feature")
    assert tree["mean"].values[0, 1].tolist() == [[9, 10, 11], [6, 7, 8]]
    assert tree["norm"].dims == ("layer", "call", "position")
    assert tree["norm"].values[1].tolist() == [[2, 1], [4, 3]]
    assert tree["count"].dims == ("layer", "position")
    assert tree["count"].values.tolist() == [[6, 5], [7, 5]]
    assert tree["norm_count"].dims == ("position",)
    assert tree["norm_count"].values.tolist() == [2, 1]
    assert tree["norm"].attrs["ancillary_variables"] == "norm_count"


def test_a_count_that_is_asked_for_has_groups_too() -> None:
    """By any name, along layer as every statistic is."""
    keys = (GroupAxis("position", np.array([1, 0])),)
    one = site(0, names=(), count=np.array([5, 6]))
    tree: Any = build_tree([capture(one, keys=keys, statistics=(spec("count", "n"),))], {})
    assert tree["n"].dims == ("layer", "position")
    assert tree["n"].values.tolist() == [[6, 5]]


def test_token_keys_say_what_they_spell() -> None:
    """By id, with the text beside it: given, or read off the vocabulary."""
    ids = np.array([9, 4, 9, 4])
    keys = (
        GroupAxis("token", ids, texts=objects("nine", "four", "nine", "four")),
        GroupAxis("prev", np.array([1, 1, 2, 2])),
    )
    made = grouped(keys, {"mean": numbers(4, 1)}, np.ones(4, int), token_text=spelled)
    tree: Any = build_tree([made], {})
    assert tree["token"].values.tolist() == [4, 9]
    assert tree["token_text"].values.tolist() == ["four", "nine"]
    assert tree["prev_text"].values.tolist() == [" t1\n", " t2\n"]
    assert tree["token_text"].dims == ("token",)


ODD = ("", "a", "a\0", "a\n", "\0", " é🙂", "\ud800", "x" * 300)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (objects(*ODD), ["", "\\x00", "a", "a\\x00", "a\n", "x" * 300, " é🙂", "\\ud800"]),
        (np.array([True, False]), [False, True]),
        (np.array([2.5, -np.inf, np.nan]), [-np.inf, 2.5, np.nan]),
        (np.array([2**62, -5]), [-5, 2**62]),
        (np.array([], bool), []),
        (np.array([], object), []),
        (np.array([], np.int64), []),
    ],
)
def test_any_key_comes_back_from_a_file(tmp_path: Path, values: Array, expected: list[Any]) -> None:
    """Odd texts, truths, numbers, and no group at all."""
    keys = (GroupAxis("label", values),)
    made = grouped(keys, {"mean": numbers(len(values), 2)}, np.ones(len(values), int))
    tree: Any = build_tree([made], attributes())
    expected = [" é🙂" if text == " é🙂" else text for text in expected]
    if values.dtype.kind == "O" and len(values):
        assert sorted(tree["label"].values.tolist()) == sorted(expected)
    else:
        np.testing.assert_array_equal(tree["label"].values, np.array(expected, values.dtype))
    save(tree, tmp_path / "x.nc")
    back = load(tmp_path / "x.nc")
    xarray.testing.assert_identical(tree, back)
    assert back["label"].dtype.kind == tree["label"].dtype.kind


def test_two_groups_of_the_same_keys_are_a_bug() -> None:
    """One would silently take the place of the other."""
    keys = (GroupAxis("a", np.array([1, 1])), GroupAxis("b", np.array([2, 2])))
    with pytest.raises(ValueError, match="two groups"):
        product(keys, None)


@pytest.mark.parametrize("name", ["label", "other", "count", "module", "nonfinite", "layer"])
def test_names_that_something_else_has_are_a_bug(name: str) -> None:
    """The language refuses them; here one would silently take the place of the other."""
    keys = (GroupAxis("label", np.array([1])), GroupAxis("other", np.array([1])))
    one = site(0, variables={name: numbers(1, 1)}, count=np.array([1]))
    made = capture(one, keys=keys, statistics=(spec("mean", name),))
    with pytest.raises(ValueError, match=f"one name: {name}$"):
        build_tree([made], {})


def test_texts_of_tokens_step_aside() -> None:
    """A column of the data that is called `token_text` keeps its own values."""
    keys = (
        GroupAxis("token_text", objects("p", "r")),
        GroupAxis("token", np.array([4, 9]), texts=objects("four", "nine")),
    )
    tree: Any = build_tree([grouped(keys, {"mean": numbers(2, 1)}, np.ones(2, int))], {})
    assert tree["token_text"].values.tolist() == ["p", "r"]
    assert tree["token_text_2"].values.tolist() == ["four", "nine"]
    assert tree["token_text_2"].dims == ("token",)
    assert "token_text  token     kept" in render(tree, 100, ascii=False)


def test_a_column_of_no_rows_is_text() -> None:
    """Nobody knows the type of a key that never occurred; positions are numbers all the same."""
    keys = (GroupAxis("label", np.array([], np.int64)), GroupAxis("sample", np.array([], np.int64)))
    tree: Any = build_tree([grouped(keys, {"mean": numbers(0, 1)}, np.ones(0, int))], {})
    assert (tree["label"].dtype.kind, tree["sample"].dtype.kind) == ("U", "i")


NAMES = ("a", "b", "c", "feature", "feature_b", "feature_2_b", "bin_lo_b", "a_token", "token_text")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_nothing_is_dropped_or_replaced(data: st.DataObject) -> None:
    """Whatever things are called: a name stands for one thing, or it is an error."""
    variables = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    named = data.draw(st.lists(st.sampled_from((*NAMES, "token")), max_size=3, unique=True))
    keys = tuple(GroupAxis(name, np.array([7, 8]), objects("x", "y")) for name in named)
    lead = (2,) if keys else ()
    arrays: dict[str, Array] = {}
    labels: dict[str, dict[str, Array]] = {}
    asked = []
    for number, name in enumerate(variables):
        kind = data.draw(st.sampled_from(["mean", "cov", "top", "hist"]))
        width = data.draw(st.integers(1, 2))
        last = {"cov": (width,), "top": (2,), "hist": (3,)}.get(kind, ())
        given: dict[str, Any] = {"k": 2} if kind == "top" else {}
        given |= {"bins": 1, "lo": 0.0, "hi": 1.0 + number} if kind == "hist" else {}
        asked.append(spec(kind, name, **given))
        arrays[name] = numbers(*lead, width, *last, start=100 * number)
        if kind == "hist":
            arrays[name] = arrays[name].astype(np.int64)
        labels[name] = {"feature": number % 2 + np.arange(width)}
    one = site(0, variables=arrays, variable_coordinates=labels, count=np.ones(lead, np.int64))
    made = capture(one, keys=keys, statistics=tuple(asked))
    ranked = any((of.name, of.variable) == ("top", "a") for of in asked)
    if set(variables) & set(named) or (ranked and "a_token" in variables):
        with pytest.raises(ValueError, match="one name"):
            build_tree([made], {})
        return
    tree: Any = build_tree([made], {})
    for name in named:
        assert tree[name].values.tolist() == [7, 8]
        texts = [n for n, c in tree.coords.items() if c.dims == (name,) and n != name]
        assert [tree[text].values.tolist() for text in texts] == [["x", "y"]]
    for name, array in arrays.items():
        found = tree[name].values[0]
        each = [found[(group,) * len(named)] for group in range(2)] if keys else found
        np.testing.assert_array_equal(each, array)
        axis = tree[name].dims[1 + len(named)]
        at = tree[axis].values if axis in tree.coords else np.arange(tree.sizes[axis])
        assert at.tolist() == labels[name]["feature"].tolist()
    render(tree, 80)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_groups_are_placed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In memory and on disk alike, against a plain loop."""
    cells = st.tuples(st.integers(-2, 2), st.sampled_from("ab"))
    groups = data.draw(st.lists(cells, unique=True, max_size=8))
    layers, calls = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    keys = (
        GroupAxis("position", np.array([g[0] for g in groups], np.int64)),
        GroupAxis("label", objects(*(g[1] for g in groups))),
    )
    lead = (calls,) if calls > 1 else ()
    arrays = [numbers(*lead, len(groups), 2, start=100 * n) for n in range(layers)]
    made = product(keys, None)
    given: dict[str, Any] = {"layered": True, "calls": calls > 1, "groups": made}
    found = assembled(arrays, **given, fill=np.nan, name="mean")
    rows, columns = (sorted({g[n] for g in groups}) for n in (0, 1))
    expected = np.full((layers, *lead, len(rows), len(columns), 2), np.nan)
    for layer, array in enumerate(arrays):
        for number, (row, column) in enumerate(groups):
            at = rows.index(row), columns.index(column)
            expected[(layer, ..., *at, slice(None))] = array[..., number, :]
    np.testing.assert_array_equal(found, expected)
    folder = tmp_path_factory.mktemp("spool")
    on_disk = []
    for array in arrays:
        spool = Spool(folder)
        spool.append(array.reshape(-1, 2))
        on_disk.append(spool.close().reshape(array.shape))
    again = assembled(on_disk, **given, fill=np.nan, name="mean")
    np.testing.assert_array_equal(again, expected)


def test_what_is_on_disk_stays_there(tmp_path: Path) -> None:
    """Layers put together, groups put in order, calls behind groups: none of it in memory."""

    def spooled(values: Array) -> Array:
        spool = Spool(tmp_path)
        spool.append(values)
        return spool.close()

    keys = (GroupAxis("sample", np.array([0, 2, 1])),)
    sites = [
        site(n, variables={"mean": spooled(numbers(3, 4, start=n))}, count=np.array([1, 1, 1]))
        for n in range(2)
    ]
    tree: Any = build_tree([capture(*sites, keys=keys)], attributes())
    assert mapped(tree["mean"].variable.data) is not None
    assert tree["mean"].values[1].tolist() == (numbers(3, 4, start=1)[[0, 2, 1]]).tolist()
    assert list(tmp_path.iterdir()) == []
    calls = np.moveaxis(spooled(numbers(3, 2, 4)), 1, 0)
    keys = (GroupAxis("sample", np.array([0, 1, 2])),)
    one = site(0, variables={"mean": calls}, calls=2, count=spooled(np.array([1, 2, 3])))
    tree = build_tree([capture(one, keys=keys)], attributes())
    assert mapped(tree["mean"].variable.data) is not None
    assert tree["mean"].values[0].tolist() == np.moveaxis(numbers(3, 2, 4), 1, 0).tolist()
    assert tree["count"].values.tolist() == [1, 2, 3]
    save(tree, tmp_path / "x.nc")
    xarray.testing.assert_identical(tree, load(tmp_path / "x.nc"))
