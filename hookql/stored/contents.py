"""The contents of tensors, known again quickly: sums read all of them, sha256 what is new.

Each tensor is named by the sha256 of its bytes. That takes 0.3 s for 500 MB, so it is remembered;
but torch's version counters, which are free, do not count a write through ``.data``, through NumPy
or through the file that a tensor is mapped from. What is remembered therefore holds only while all
bytes add up as they did, which memory's own speed allows (20 ms for 500 MB).

How they are added up: blocks of 128 rows of 1,021 64-bit words, each block's columns summed modulo
2**64, and the sums kept, not summed further. A word that changes changes its sum, whatever it was.
Two changes hide each other only if they are in one block and one column and add up to nothing bit
for bit: an exchange of two words whose distance is a multiple of 8,168 bytes, and not more than one
megabyte. 1,021 is a prime, so that rows of a matrix never lie that way, unless they are narrower
than 1 kB and 1,021 rows apart. Scaling, adding, zeroing, negating, exchanging rows, columns, heads
or tensors: none of it can do that in every column. The sums are no address: they only say whether
the memory at this place is what it was when it was hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookql.stored.telling import Strange

_ROWS, _LANES = 128, 1021
_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
_MOST = 100_000  # tensors remembered

_Key = tuple[int, int, bytes]
_KNOWN: dict[_Key, str] = {}


def contents(tensors: Sequence[Tensor]) -> list[str]:
    """The sha256 of each tensor's bytes, in order.

    Raises Strange for a tensor without plain memory: sparse, quantised, on the meta device.
    """
    words = [_bytes_of(tensor) for tensor in tensors]
    with _threads() as pool:
        sums = _sums(words, pool)
        keys = [
            (tensor.data_ptr(), tensor.numel() * tensor.element_size(), found)
            for tensor, found in zip(tensors, sums, strict=True)
        ]
        new = {key: number for number, key in enumerate(keys) if key not in _KNOWN}
        hashed = pool.map(_sha, (words[number] for number in new.values()))
        if len(_KNOWN) > _MOST:
            _KNOWN.clear()
            return contents(tensors)
        _KNOWN.update(zip(new, hashed, strict=True))
    return [_KNOWN[key] for key in keys]


def sums(tensors: Sequence[Tensor]) -> list[bytes]:
    """What each tensor's bytes add up to: the same while nobody wrote into it. Raises Strange."""
    with _threads() as pool:
        return _sums([_bytes_of(tensor) for tensor in tensors], pool)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, min(8, torch.get_num_threads())))


def _bytes_of(tensor: Tensor) -> Tensor:
    """A tensor's bytes, as a flat tensor on its own device."""
    kind = type(tensor)
    if kind not in _PLAIN or tensor.layout is not torch.strided:
        raise Strange(f"weights of the kind `{kind.__module__}.{kind.__qualname__}` are not known")
    if tensor.is_meta:  # left out by the rule `weights`: its label says so
        return torch.zeros(0, dtype=torch.uint8)
    if tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        raise Strange("some weights are not stored as they are")
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8) if flat.numel() else flat.new_zeros(0, dtype=torch.uint8)


def _sums(words: Sequence[Tensor], pool: ThreadPoolExecutor) -> list[bytes]:
    """What each tensor's bytes add up to, as bytes."""
    jobs: list[tuple[Any, Any]] = []
    parts: list[tuple[Any, Any]] = []
    for flat in words:
        rows = flat.numel() // (8 * _LANES)
        blocks = -(-rows // _ROWS)
        end = rows * _LANES * 8
        if flat.device.type == "cpu":
            lanes = flat[:end].numpy().view(np.int64).reshape(rows, _LANES)
            out = np.empty((blocks, _LANES), np.int64)
            starts = range(0, rows, _ROWS)
            jobs += [(lanes[at : at + _ROWS], out[n]) for n, at in enumerate(starts)]
        else:
            out = _on_device(flat[:end], rows)
        parts.append((out, flat[end:].cpu().numpy()))
    each = 4 * max(1, torch.get_num_threads())
    list(pool.map(_add_up, [jobs[first::each] for first in range(each)]))
    return [hashlib.sha256(out.tobytes() + tail.tobytes()).digest() for out, tail in parts]


def _on_device(flat: Tensor, rows: int) -> Any:
    """The same sums, worked out where the tensor is."""
    whole = flat if flat.data_ptr() % 8 == 0 and flat.storage_offset() % 8 == 0 else flat.clone()
    lanes = whole.view(torch.int64).reshape(rows, _LANES)
    even = rows // _ROWS * _ROWS
    parts = [lanes[:even].reshape(-1, _ROWS, _LANES).sum(1)]
    if even < rows:
        parts.append(lanes[even:].sum(0, keepdim=True))
    return torch.cat(parts).cpu().numpy()


def _add_up(jobs: Sequence[tuple[Any, Any]]) -> None:
    for rows, out in jobs:
        np.add.reduce(rows, axis=0, out=out)


def _sha(flat: Tensor) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(flat):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(flat: Tensor) -> Iterator[Any]:
    """The bytes in the CPU's memory, at most 64 MB of another device's at once."""
    step = flat.numel() if flat.device.type == "cpu" else 64_000_000
    for first in range(0, flat.numel(), max(1, step)):
        yield flat[first : first + step].cpu().numpy().data
