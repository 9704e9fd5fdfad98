"""What a run remembers, as a file: plain values and arrays, and nothing that could be run.

A file is a header in JSON that says how the value is built, then the bytes of its arrays in that
order. Nothing of pickle is in it. Objects are those of the statistics' own classes: made without
calling them, and given their attributes.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from attrs import define, field, frozen
from torch import Tensor

from hookql.checkpoint.files import create, damaged, open_whole, write
from hookql.errors import Diagnostic, HookQLError
from hookql.language.pieces import PIECES
from hookql.statistics import STATISTICS

MAGIC = b"hookql-state-1\n"
_LENGTH = struct.Struct("<QI")  # of the header, and its CRC-32
_PLAIN = (type(None), bool, int, float, str)
# NumPy evaluates parts of what it takes for a dtype's name, so others are not shown to it.
_DTYPE = re.compile(r"[<>|][biufcUS]\d{1,7}|[<>][Mm]8(\[[a-zA-Z]{1,2}\])?")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not str(dtype).startswith("torch.q")
}


@frozen
class Kept:
    """Stands for a function, which a file cannot hold: a fresh object's takes its place."""


@frozen
class Written:
    """What is known of a file that was written: its size, and the CRC-32 of all of it."""

    bytes: int
    crc32: int


def dump(path: Path, value: Any) -> Written:
    """Write a value to a new file and sync it.

    It is made of dicts, lists, tuples, sets, texts, bytes, numbers, None, NumPy arrays and scalars,
    tensors and accumulators. What stands in it twice is two things afterwards. Raises HookQLError
    for anything else, OSError where writing fails.
    """
    arrays: list[np.ndarray[Any, Any]] = []
    header = json.dumps(_encoded(value, arrays, "state")).encode()
    total, crc = 0, 0
    fd = create(path)
    try:
        parts: tuple[bytes | np.ndarray[Any, Any], ...]
        parts = (MAGIC, _LENGTH.pack(len(header), zlib.crc32(header)), header, *arrays)
        for part in parts:
            data = memoryview(part if isinstance(part, bytes) else part.view(np.uint8).data)
            write(fd, data)
            total, crc = total + len(data), zlib.crc32(data, crc)
        os.fsync(fd)
    finally:
        os.close(fd)
    return Written(total, crc)


def load(path: Path) -> Any:
    """The value that a file holds, equal to the last bit. Whatever the file says, nothing is run.

    Memory stays within a small multiple of the file's size. Raises HookQLError for a file that is
    none of ``dump``'s, or not whole.
    """
    try:
        with open_whole(path) as file:
            return _read(file)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    except Exception as error:  # torch has many of its own
        raise damaged(path, f"what it holds cannot be built ({type(error).__name__})") from error


def _read(file: BinaryIO) -> Any:
    size = os.fstat(file.fileno()).st_size
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("it is no state of a run")
    fixed = file.read(_LENGTH.size)
    length, crc = _LENGTH.unpack(fixed.ljust(_LENGTH.size))
    if length > size:
        raise ValueError("its end is missing")
    header = file.read(length)
    if zlib.crc32(header) != crc:
        raise ValueError("its header does not have its checksum")
    # Each NaN is an object of its own: as a key one does not equal the other.
    tree = json.loads(header, parse_constant=float)
    reader = _Reader(file, size - file.tell())
    value = reader.value(tree)
    if reader.left:
        raise ValueError("it is longer than what it holds")
    return value


def numpy_dtype(name: object) -> np.dtype[Any]:
    """The dtype of plain numbers, texts or dates of that name; raises ValueError for another."""
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise ValueError("it holds an array of no plain numbers")
    return np.dtype(name)


def attributes_of(instance: object) -> dict[str, Any]:
    """An object's attributes, those in slots too."""
    slots = [
        name
        for kind in type(instance).__mro__
        for name in _names(kind.__dict__.get("__slots__", ()))
        if name not in ("__dict__", "__weakref__") and hasattr(instance, name)
    ]
    return {name: getattr(instance, name) for name in slots} | getattr(instance, "__dict__", {})


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _allowed(kind: type) -> bool:
    """Whether a class is one of the statistics', or of a package that registered one."""
    roots = {s.origin.partition(".")[0] for s in STATISTICS.values()} - {"hookql"}
    module = kind.__module__
    inside = module.startswith("hookql.statistics.") or module.partition(".")[0] in roots
    # An object with a finalizer does something when it is thrown away.
    return inside and not hasattr(kind, "__del__")


def _class(name: str) -> type:
    """The class of that name, among those that are allowed and imported."""
    found = _found(name)
    if found is None or not _allowed(found):
        raise ValueError(f"it holds a `{name[:80]}`, which is no statistic's")
    return found


def _found(name: str) -> type | None:
    """What a module has under that name, or a statistic that was made inside a function."""
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    offered = [piece.value for (kind, _), piece in PIECES.items() if kind == "statistic"]
    known = (each for each in (found, *offered) if isinstance(each, type) and _name(each) == name)
    return next(known, None)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _encoded(value: Any, arrays: list[np.ndarray[Any, Any]], where: str) -> Any:
    """A value as JSON; its arrays, flat, are appended to ``arrays``."""

    def inner(each: Any, name: object) -> Any:
        return _encoded(each, arrays, f"{where}.{name}")

    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [inner(each, i) for i, each in enumerate(value)]
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [inner(each, i) for i, each in enumerate(value)]}
    if kind is dict:
        return {"dict": [[inner(k, "key"), inner(v, k)] for k, v in value.items()]}
    if kind is bytes:
        return {"bytes": _array(np.frombuffer(value, np.uint8), arrays)}
    if isinstance(value, Tensor):
        return {"tensor": _tensor(value.detach(), arrays)}
    if isinstance(value, np.ndarray | np.generic) and _DTYPE.fullmatch(value.dtype.str):
        return {"array" if kind is np.ndarray else "scalar": _array(np.asarray(value), arrays)}
    plain = _allowed(kind) and getattr(kind, "__new__", None) is object.__new__
    if plain and _found(_name(kind)) is not None:  # else it could not be found again
        attributes = attributes_of(value)
        return {"class": [_name(kind), {k: inner(v, k) for k, v in attributes.items()}]}
    if callable(value):
        return {"kept": None}
    message = f"a checkpoint cannot hold a `{kind.__module__}.{kind.__qualname__}`"
    raise HookQLError(Diagnostic("not-resumable", message, notes=(f"it stands at {where[:200]}",)))


def _array(array: np.ndarray[Any, Any], arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    """How an array is laid out: its axes in the order in which they lie in memory."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    laid = np.asarray(array.transpose(order), order="C")
    arrays.append(laid.reshape(-1))
    return {"dtype": array.dtype.str, "shape": laid.shape, "order": order}


def _tensor(tensor: Tensor, arrays: list[np.ndarray[Any, Any]]) -> dict[str, Any]:
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda axis: -strides[axis])
    laid = tensor.permute(order).cpu().contiguous()
    arrays.append(laid.reshape(-1).view(torch.uint8).numpy())
    dtype = str(tensor.dtype).removeprefix("torch.")
    device = str(tensor.device)
    return {"dtype": dtype, "shape": list(laid.shape), "order": order, "device": device}


def _inverse(order: Sequence[int]) -> list[int]:
    if sorted(order) != list(range(len(order))):
        raise ValueError("it holds an array of no shape")
    return sorted(range(len(order)), key=order.__getitem__)


@define
class _Reader:
    """Builds values of JSON and the bytes that follow; ``left`` is how many there are."""

    file: BinaryIO
    left: int
    builders: Mapping[str, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.builders = {
            "tuple": lambda each: tuple(map(self.value, each)),
            "set": lambda each: set(map(self.value, each)),
            "frozenset": lambda each: frozenset(map(self.value, each)),
            "dict": lambda pairs: {self.value(k): self.value(v) for k, v in pairs},
            "bytes": lambda laid: self._array(laid).tobytes(),
            "array": self._array,
            "scalar": lambda laid: self._array(laid)[()],
            "tensor": self._tensor,
            "class": self._object,
            "kept": lambda _: Kept(),
        }

    def value(self, tree: Any) -> Any:
        """The value that a part of the header stands for."""
        if isinstance(tree, list):
            return [self.value(each) for each in tree]
        if isinstance(tree, dict):
            ((kind, inner),) = tree.items()
            return self.builders[kind](inner)
        return tree

    def _array(self, laid: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        dtype = numpy_dtype(laid["dtype"])
        self._room(laid["shape"], dtype.itemsize)
        array = np.empty(laid["shape"], dtype)
        self._fill(array.reshape(-1).view(np.uint8))
        return array.transpose(_inverse(laid["order"]))

    def _tensor(self, laid: Mapping[str, Any]) -> Tensor:
        dtype = _DTYPES[laid["dtype"]]
        self._room(laid["shape"], dtype.itemsize)
        tensor = torch.empty(laid["shape"], dtype=dtype)
        self._fill(tensor.reshape(-1).view(torch.uint8).numpy())
        tensor = tensor.permute(_inverse(laid["order"]))
        return tensor if laid["device"] == "cpu" else tensor.to(torch.device(laid["device"]))

    def _object(self, given: Any) -> object:
        name, attributes = given
        made: object = object.__new__(_class(name))
        for attribute, value in attributes.items():
            object.__setattr__(made, attribute, self.value(value))
        return made

    def _room(self, shape: Any, itemsize: int) -> None:
        """Refuse an array of more bytes than there are, before memory is asked for."""
        wanted = itemsize
        for size in shape:
            if type(size) is not int or size < 0:
                raise ValueError("it holds an array of no shape")
            wanted *= size
        if wanted > self.left:
            raise ValueError("its end is missing")
        self.left -= wanted

    def _fill(self, memory: np.ndarray[Any, Any]) -> None:
        if self.file.readinto(memory.data) != len(memory):  # type: ignore[attr-defined]
            raise ValueError("its end is missing")
