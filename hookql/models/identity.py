"""Which weights a result was made with: a name that changes when one of them does."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from hookql.errors import Diagnostic, ModelError

# Where each tensor lies and how often it was written in place: cheap to take, equal while
# nothing was touched.
Stamp: TypeAlias = tuple[tuple[str, int, int], ...]

# What a config says of where it came from.
_NAMES = ("_name_or_path", "transformers_version", "_commit_hash")

_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[Stamp, str]] = weakref.WeakKeyDictionary()


def weights_identity(module: nn.Module, only_loaded: bool = False) -> str:
    """``sha256:HEX`` over name, dtype, shape and bytes of each parameter and persistent buffer.

    With ``only_loaded`` those on the meta device are passed over.

    Computed once: a second call is free until a tensor is replaced or written in place. (A write
    through ``.data``, which torch itself does not count, goes unnoticed by that memory.)

    Raises:
        ModelError: weights that are not in memory (on the meta device).
    """
    now = stamp(module)
    known = _KNOWN.get(module)
    if known is not None and known[0] == now:
        return known[1]
    digest = hashlib.sha256()
    for name, tensor in _tensors(module):
        if not (only_loaded and tensor.is_meta):
            _add(digest, name, tensor)
    identity = f"sha256:{digest.hexdigest()}"
    _KNOWN[module] = now, identity
    return identity


def architecture(module: nn.Module) -> str:
    """A hash of all that makes a model but its weights: widths, heads, epsilons, scalings."""
    config: Any = getattr(module, "config", None)
    given = config.to_dict() if hasattr(config, "to_dict") else {}
    known = {name: value for name, value in given.items() if name not in _NAMES}
    text = json.dumps(known, sort_keys=True, default=str) + repr(module)
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def stamp(module: nn.Module) -> Stamp:
    """Where each tensor lies and its version; equal stamps mean untouched weights."""
    return tuple((name, _address(t), _version(t)) for name, t in _tensors(module))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, in the order of their names, each once."""
    found: dict[str, Tensor] = dict(module.named_parameters())
    for path, part in module.named_modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = buffer
    yield from sorted(found.items())


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    if tensor.is_meta:
        message = f"the weight `{name}` is not in memory, so the model cannot be identified"
        help = "load the model without leaving weights on the disk or the meta device"
        raise ModelError(Diagnostic("no-weights", message, help=help))
    shape = "x".join(map(str, tensor.shape))
    digest.update(f"{name}\0{tensor.dtype}\0{shape}\0".encode())
    inner = getattr(tensor, "__tensor_flatten__", None)
    if inner is not None:  # a quantised tensor made of plain ones
        for part in sorted(inner()[0]):
            _add(digest, f"{name}.{part}", getattr(tensor, part))
        return
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)


def _address(tensor: Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:  # a wrapper without storage of its own
        return id(tensor)


def _version(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # tensors made under inference_mode count nothing
        return -1
