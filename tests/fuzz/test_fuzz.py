"""A bounded share of the fuzzing, in the suite: changed, cut and made-up inputs of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookql.results.netcdf import save
from tests.fuzz import targets

Edit = tuple[float, bytes, int]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=8), st.integers(0, 9)), min_size=1, max_size=6
)
relaxed = settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

SEEDS = (
    b'\1{"text": "a", "b": [1, 2, {"c": null}], "n": 1e3}\n{"text": "\\u00e9"}\n',
    b'\2text,label\n"a, ""b""\nc",1\nd,2\n',
    b"\3text\tlabel\na\t1\n",
    b"\0one\r\ntwo\n",
)


def changed(data: bytes, how: list[Edit]) -> bytes:
    """Bytes with pieces put over others or cut out."""
    for where, piece, cut in how:
        at = int(where * len(data))
        data = data[:at] + piece + data[at + cut :]
    return data


@relaxed
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes_are_a_query_or_none(data: bytes) -> None:
    """Nothing but `QueryError` comes of them."""
    targets.query(data)


@relaxed
@given(st.text(alphabet="ab()[]{}|*+?\\^$.,-&:=!<>#iPRx0123456789 \n", max_size=30))
def test_any_text_is_a_pattern_or_none(text: str) -> None:
    """Nothing but `QueryError` comes of compiling it."""
    targets.pattern(text.encode())


@relaxed
@given(seed=st.sampled_from(SEEDS), how=edits)
def test_changed_data_files(tmp_path: Path, seed: bytes, how: list[Edit]) -> None:
    """Nothing but HookQL's errors comes of a data file."""
    targets.file(changed(seed, how), tmp_path)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small result file."""
    path = tmp_path_factory.mktemp("result") / "r.nc"
    data = xarray.Dataset({"mean": ("feature", [1.0, 2.0])}, attrs={"hookql_version": "0"})
    save(xarray.DataTree(data), path)
    return path.read_bytes()


@settings(relaxed, max_examples=25)
@given(how=edits)
def test_changed_results(tmp_path: Path, result: bytes, how: list[Edit]) -> None:
    """Nothing but HookQL's errors comes of a result file, whatever the C library makes of it."""
    targets.result(changed(result, how), tmp_path)
