"""Files: the same tree comes back, and nothing half-written is ever left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookql.errors import HookQLError, UsageError
from hookql.results.captured import CaptureResult, SiteResult
from hookql.results.netcdf import check_target, load, save
from hookql.results.table import render
from hookql.results.tree import build_tree
from tests.results.made import attributes, capture, site, spec

STATISTICS = ["mean", "std", "min", "max", "rms", "sum", "var"]
numbers = st.floats(width=64, allow_nan=True, allow_infinity=True)
texts = st.text(st.characters(codec="utf-8"), max_size=12)


@st.composite
def sites(draw: st.DrawFn, names: list[str], role: str) -> SiteResult:
    """Any hook point's results."""
    layer = draw(st.none() | st.integers(0, 99))
    axes = draw(st.sampled_from([(), ("feature",), ("head", "feature"), ("head", "key")]))
    calls = draw(st.sampled_from([1, 1, 3]))
    shape = ((calls,) if calls > 1 else ()) + tuple(draw(st.integers(1, 3)) for _ in axes)
    size = int(np.prod(shape, dtype=int))
    variables = {
        name: np.array(draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)
        for name in names
    }
    return SiteResult(
        module=draw(texts | st.just(("h.0.é", "h.1.é"))) if layer is None else draw(texts),
        layer=layer,
        role=role,
        calls=calls,
        axes=axes,
        count=draw(st.integers(0, 2**60)),
        variables=variables,
        nonfinite=draw(st.integers(0, 5)),
        first_nonfinite=draw(st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9))),
    )


@st.composite
def captures(draw: st.DrawFn) -> CaptureResult:
    """Any capture's results."""
    names = draw(st.lists(st.sampled_from(STATISTICS), unique=True, max_size=3))
    roles = st.sampled_from(["h.attn", "h.mlp.c_fc", "", "a/b", " x"])
    return CaptureResult(
        name=draw(texts),
        text=draw(texts),
        statistics=[spec(name) for name in names],
        sites=draw(
            st.lists(roles.flatmap(lambda role: sites(names, role)), min_size=1, max_size=4)
        ),
        attributes=draw(st.dictionaries(st.sampled_from("abc"), values)),
    )


values = st.none() | st.booleans() | st.integers() | numbers | texts | st.lists(st.integers())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    made=st.lists(captures(), min_size=1, max_size=2),
    more=st.dictionaries(st.sampled_from(["x", "y", "z"]), values),
)
def test_any_result_comes_back_identical(
    tmp_path: Path, made: list[CaptureResult], more: dict[str, Any]
) -> None:
    """Numbers, names, coordinates, attributes and types survive; a second trip changes nothing."""
    tree = build_tree(made, {**attributes(), **more})
    path = tmp_path / "result.nc"
    save(tree, path, overwrite=True)
    back = load(path)
    xarray.testing.assert_identical(tree, back)
    for node in tree.subtree:
        for name, variable in node.variables.items():
            assert back[node.path].variables[name].dtype.kind == variable.dtype.kind
            assert back[node.path].variables[name].dtype.kind in "fiU"
    save(back, path, overwrite=True)
    xarray.testing.assert_identical(tree, load(path))
    assert os.listdir(tmp_path) == ["result.nc"]


@pytest.fixture
def tree() -> xarray.DataTree:
    """A small result."""
    return build_tree([capture(site(0), site(1))], attributes())


def test_plain_xarray_opens_it(tree: xarray.DataTree, tmp_path: Path) -> None:
    """No HookQL is needed to read a result, and numbers are neither packed nor filled."""
    save(tree, tmp_path / "first.nc")
    with xarray.open_dataset(tmp_path / "first.nc") as data:
        assert data["mean"].sel(layer=1).values.tolist() == [1, 2, 3, 4]
        assert "_FillValue" not in data["mean"].encoding
        assert not data["mean"].encoding["zlib"]


def test_a_loaded_file_is_closed(tree: xarray.DataTree, tmp_path: Path) -> None:
    """A result can be deleted or replaced while it is in use."""
    path = tmp_path / "first.nc"
    save(tree, path)
    back = load(path)
    path.unlink()
    xarray.testing.assert_identical(tree, back)


def test_a_large_file_is_read_as_it_is_used(
    tree: xarray.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers stay on disk until someone looks at them; printing and saving work all the same."""
    save(tree, tmp_path / "first.nc")
    assert load(tmp_path / "first.nc")["mean"].variable._in_memory
    monkeypatch.setattr("hookql.results.netcdf.LARGE", 1)
    back = load(tmp_path / "first.nc")
    assert not back["mean"].variable._in_memory
    assert render(back, 80) == render(tree, 80)
    assert not back["mean"].variable._in_memory
    save(back, tmp_path / "second.nc")
    xarray.testing.assert_identical(tree, load(tmp_path / "second.nc"))
    back.close()


def refused(path: Path, tree: xarray.DataTree, overwrite: bool = False) -> str:
    """The code of the error that saving there raises, which checking first tells too."""
    with pytest.raises(UsageError) as caught:
        check_target(path, overwrite=overwrite)
    with pytest.raises(UsageError) as again:
        save(tree, path, overwrite=overwrite)
    assert again.value.code == caught.value.code
    return caught.value.code


def test_files_are_not_overwritten_unasked(tree: xarray.DataTree, tmp_path: Path) -> None:
    """A file that exists stays, unless the user says otherwise; its mode stays then too."""
    path = tmp_path / "first.nc"
    path.write_text("mine")
    assert refused(path, tree) == "file-exists"
    assert path.read_text() == "mine"
    path.chmod(0o640)
    save(tree, path, overwrite=True)
    xarray.testing.assert_identical(tree, load(path))
    assert path.stat().st_mode & 0o777 == 0o640


def test_places_that_cannot_be_written(
    tree: xarray.DataTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, a missing folder, a folder without the right to write: each is said."""
    assert refused(tmp_path, tree, overwrite=True) == "not-a-file"
    assert refused(tmp_path / "none" / "first.nc", tree) == "no-such-folder"
    assert refused(Path(os.devnull), tree, overwrite=True) == "not-a-file"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert refused(tmp_path / "first.nc", tree) == "not-writable"


@pytest.mark.parametrize("step", ["to_netcdf", "fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_crash_leaves_the_old_file(
    tree: xarray.DataTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: BaseException,
) -> None:
    """Ctrl-C or a full disk at any step: the old file is whole, and no other is left."""
    path = tmp_path / "first.nc"
    path.write_text("old")
    write = xarray.DataTree.to_netcdf

    def crash(*arguments: Any, **options: Any) -> None:
        if step == "to_netcdf":  # half way through the file
            write(*arguments, **options)
        raise error

    monkeypatch.setattr(xarray.DataTree if step == "to_netcdf" else os, step, crash)
    expected = HookQLError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        save(tree, path, overwrite=True)
    if isinstance(caught.value, HookQLError):
        assert caught.value.code == "cannot-write"
        assert "No space left on device" in caught.value.message
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["first.nc"]


def test_a_link_stays_a_link(tree: xarray.DataTree, tmp_path: Path) -> None:
    """Overwriting through a link writes the file that it points to."""
    (tmp_path / "real.nc").write_text("old")
    (tmp_path / "link.nc").symlink_to("real.nc")
    save(tree, tmp_path / "link.nc", overwrite=True)
    assert (tmp_path / "link.nc").is_symlink()
    xarray.testing.assert_identical(tree, load(tmp_path / "real.nc"))


def test_files_that_are_no_results(tmp_path: Path, tree: xarray.DataTree) -> None:
    """Missing, not NetCDF, cut short, or someone else's: each is said without a traceback."""

    def code(path: Path) -> str:
        with pytest.raises(UsageError) as caught:
            load(path)
        return caught.value.code

    assert code(tmp_path / "none.nc") == "no-such-file"
    assert code(tmp_path) == "not-netcdf"
    (tmp_path / "text.nc").write_text("capture mean")
    assert code(tmp_path / "text.nc") == "not-netcdf"
    (tmp_path / "empty.nc").write_bytes(b"")
    assert code(tmp_path / "empty.nc") == "not-netcdf"
    save(tree, tmp_path / "whole.nc")
    whole = (tmp_path / "whole.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    assert code(tmp_path / "cut.nc") == "not-netcdf"
    xarray.Dataset({"t": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="netcdf4")
    assert code(tmp_path / "other.nc") == "not-hookql"
