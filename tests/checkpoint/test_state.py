"""Files of a run's state: read back to the last bit, and nothing in them is ever run."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.checkpoint.state import MAGIC, attributes_of, dump, load
from hookql.errors import HookQLError
from hookql.statistics.moments import Moments

VALUES: list[Any] = [
    None, True, 0, -(2**80), 1.5, -0.0, math.inf, "", "é\ud800\n", b"", b"\0\xff", (), [], {},
    set(), (1, (2.5, "x")), {1: 2, (1, "a"): [None]}, {1, 2.5, "a"}, frozenset({3}),
    np.float32(1.1), np.int64(-3), np.bool_(True), np.array(3), np.zeros((0, 4)),
    np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(2, 0, 1), np.array(["a", "bcd"]),
    np.arange(10)[::-2], np.array([1 + 2j]), np.array(["2026-01-31"], "M8[D]"),
    torch.tensor(2.5), torch.zeros(0, 3), torch.arange(6).reshape(2, 3).T,
    torch.randn(3, 4).to(torch.bfloat16), torch.randn(5).half(), torch.tensor([True, False]),
    torch.randn(2, 3, dtype=torch.float64).expand(4, 2, 3), torch.tensor([1 + 2j]),
    torch.tensor([math.nan, -math.nan, math.inf, -0.0]),
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type, in layout and in every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        one, other = one.contiguous(), other.contiguous()
        bits = one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
        return bool(one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits))
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return repr(one) == repr(other) if isinstance(one, float) else bool(one == other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_to_the_last_bit(value: Any, tmp_path: Path) -> None:
    """Of the same type, shape, dtype and bits, whatever it stands in."""
    dump(tmp_path / "state", {"inside": [value, (value,)]})
    assert same({"inside": [value, (value,)]}, load(tmp_path / "state"))


def test_arrays_lie_in_memory_as_they_did(tmp_path: Path) -> None:
    """Sums over another order of axes would round otherwise; what comes back may be changed."""
    tensor, array = torch.zeros(2, 3, 4).permute(2, 0, 1), np.zeros((2, 3, 4)).transpose(1, 2, 0)
    dump(tmp_path / "state", [tensor, array])
    tensor_again, array_again = load(tmp_path / "state")
    assert tensor.stride() == tensor_again.stride()
    assert array.strides == array_again.strides
    tensor_again += 1
    array_again += 1
    assert 24 == tensor_again.sum() == array_again.sum()


def test_each_nan_is_its_own(tmp_path: Path) -> None:
    """As keys two NaNs are two groups; one object for both would make them one."""
    dump(tmp_path / "state", {float("nan"): 1, float("nan"): 2})
    assert [1, 2] == list(load(tmp_path / "state").values())


def test_an_accumulator_comes_back(tmp_path: Path) -> None:
    """With all its attributes, and no constructor called."""
    moments = Moments()
    moments.update(torch.randn(9, 3))
    dump(tmp_path / "state", moments)
    again = load(tmp_path / "state")
    assert same(attributes_of(moments), attributes_of(again))
    assert type(again) is Moments


@pytest.mark.parametrize("value", [object(), random.Random(1), iter([]), np.array([{}]), {"a": 1j}])
def test_what_is_no_plain_value_is_refused(value: Any, tmp_path: Path) -> None:
    """A checkpoint that could not be read back is not written."""
    with pytest.raises(HookQLError) as raised:
        dump(tmp_path / "state", {"deep": [0, value]})
    assert "not-resumable" == raised.value.code
    assert raised.value.notes[0].startswith("it stands at state.deep")


# --- hostile files ------------------------------------------------------------------------------


def write(path: Path, header: Any, data: bytes = b"") -> None:
    """A file whose checksums are right, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(MAGIC + struct.pack("<QI", len(text), zlib.crc32(text)) + text + data)


class Evil:
    """What pickle would run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def laid(**given: Any) -> dict[str, Any]:
    """How a tensor is laid out."""
    return {"dtype": "float32", "shape": [2], "order": [0], "device": "cpu"} | given


HOSTILE: list[Any] = [
    b"", b"{", b"\xff", b"[" * 100_000, [[{}]], {"a": 1, "b": 2}, {"no such thing": 1},
    {"tuple": 3}, {"class": ["os:system", {}]}, {"class": ["builtins:eval", {}]},
    {"class": ["builtins:dict", {}]}, {"class": ["tempfile:TemporaryDirectory", {}]},
    {"class": ["subprocess:Popen", {"args": "touch ran"}]}, {"class": ["torch:Tensor", {}]},
    {"class": ["hookql.statistics.core:importlib.import_module", {}]},
    {"class": ["hookql.statistics.moments:Moments.update", {}]},
    {"class": ["hookql.statistics.moments:Moments.__init__", {}]},
    {"class": ["hookql.checkpoint.state:_Reader", {}]},
    {"class": ["hookql.statistics.moments:Moments", {"__class__": 3}]},
    {"class": ["hookql.statistics.moments:Moments", 3]}, {"class": 3}, {"class": ["", {}]},
    {"set": [[1]]}, {"dict": [[[1], 2]]}, {"dict": [[1]]}, {"bytes": 3},
    {"array": laid(dtype="O")}, {"array": laid(dtype="V8")}, {"array": laid(dtype="no")},
    {"array": laid(dtype="<f8")}, {"array": laid(dtype="<f4", order=[1])},
    {"array": laid(dtype="<f4", shape=[2**62, 4])}, {"array": laid(dtype="<f4", shape=[-1])},
    *({"tensor": laid(**wrong)} for wrong in (
        {"dtype": "Tensor"}, {"shape": [10**12]}, {"shape": "ab"}, {"shape": [True, 2]},
        {"shape": [2.0]}, {"shape": [0, 2**63]}, {"shape": [2**40, 2**40, 2**40]},
        {"order": [0, 0]}, {"order": [0, 1]}, {"order": ["a"]}, {"order": 3},
        {"device": "cuda:77"}, {"device": "x"}, {"device": 3.5},
    )),
    {"tensor": {}},
]  # fmt: skip


@pytest.mark.parametrize("header", HOSTILE, ids=lambda header: str(header)[:60])
def test_a_hostile_file_runs_nothing(
    header: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file from somebody else is refused with words, whatever its header says."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "state", header, bytes(8))
    with pytest.raises(HookQLError) as raised:
        load(tmp_path / "state")
    assert "checkpoint-damaged" == raised.value.code
    assert ["state"] == os.listdir(tmp_path)


def test_a_pickle_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as the file, nor where the header should be, nor as bytes in it."""
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps(Evil())
    (tmp_path / "state").write_bytes(evil)
    with pytest.raises(HookQLError):
        load(tmp_path / "state")
    write(tmp_path / "state", evil)
    with pytest.raises(HookQLError):
        load(tmp_path / "state")
    write(tmp_path / "state", {"bytes": laid(dtype="|u1", shape=[len(evil)])}, evil)
    assert evil == load(tmp_path / "state")
    assert ["state"] == os.listdir(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "none"])
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    """A pipe that nobody writes into would make the run wait for ever."""
    path = tmp_path / "state"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    with pytest.raises(HookQLError, match="checkpoint's file"):
        load(path)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["tuple", "set", "dict", "array", "tensor", "scalar", "class", "kept"]),
        inner | st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["<f4", "float32", "|u1", "uint8", "<U3", "O", ""]),
                "shape": st.lists(st.integers(-2, 5), max_size=3),
                "order": st.lists(st.integers(-1, 3), max_size=3),
                "device": st.sampled_from(["cpu", "meta", "no"]),
            }
        ),
        max_size=1,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(tree=TREES, data=st.binary(max_size=64))
def test_any_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, data: bytes
) -> None:
    """No header makes reading fail in any other way."""
    path = tmp_path_factory.getbasetemp() / "any-state"
    write(path, tree, data)
    refused = ""
    try:
        load(path)
    except HookQLError as error:
        refused = error.code
    assert refused in ("", "checkpoint-damaged")


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Of a header by its own checksum; of the bytes behind it by the manifest's (test_damage)."""
    path = tmp_path / "state"
    dump(path, {"a": (1, 2.5, "x"), "b": [None, {3}]})
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(HookQLError):
            load(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(HookQLError):
            load(path)
