"""Whether anybody writes into the tensors they are shown: looked at bit for bit, where asked for.

Off, which is the default, it costs nothing: hooks ask when they are put on, not when they run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from hookql.errors import Diagnostic, ModelError

VARIABLE = "HOOKQL_PARANOID"
_ASKED: ContextVar[bool | None] = ContextVar("hookql_paranoid", default=None)


def is_paranoid() -> bool:
    """Whether hooks that are put on now look: as `paranoid` says, else ``HOOKQL_PARANOID=1``."""
    asked = _ASKED.get()
    return os.environ.get(VARIABLE, "") not in ("", "0") if asked is None else asked


@contextmanager
def paranoid(on: bool | None = True) -> Iterator[None]:
    """Hooks that are put on inside this context look, or do not; None leaves it as it was."""
    token = _ASKED.set(_ASKED.get() if on is None else on)
    try:
        yield
    finally:
        _ASKED.reset(token)


@contextmanager
def unchanged(
    who: str, where: str, shown: Mapping[str, Any], *, bits: bool = True
) -> Iterator[None]:
    """Hold whoever runs inside this context to change nothing of what is shown.

    ``shown`` are values by name: tensors, and tuples, lists and mappings of them. Their bits are
    compared, NaN and the sign of 0 included, and what stands in them. Without ``bits`` torch's own
    count of writes is looked at instead, which costs next to nothing and misses some ways round it.

    Raises:
        ModelError: `detector-wrote`, with who it was and which of the values is another now.
    """
    before = {name: _Print(leaf, bits) for name, leaf in _leaves(shown)}
    yield
    after = dict(_leaves(shown))
    changed = [
        name for name, print_ in before.items() if name not in after or print_.differs(after[name])
    ]
    changed += [name for name in after if name not in before]
    if changed:
        message = (
            f"{who} wrote into `{changed[0]}` of {where}, which changes what the model computes"
        )
        help = "work on a copy: `x = x.clone()`, or without the `_` of in-place methods"
        others = tuple(f"it wrote into `{name}` too" for name in changed[1:4])
        raise ModelError(Diagnostic("detector-wrote", message, help=help, notes=others))


class _Print:
    """What a value was: a tensor's bits and version, or which object."""

    def __init__(self, value: Any, bits: bool) -> None:
        self._value = value  # kept, so that no other object takes its address
        self._bits = _bits(value) if bits and isinstance(value, Tensor) else None
        self._version = _version(value)

    def differs(self, now: Any) -> bool:
        """Whether another value stands there, or this one was written into."""
        same = now == self._value if isinstance(now, int) else now is self._value
        if not same or _version(now) != self._version:
            return True
        if self._bits is None:
            return False
        bits = _bits(now, copy=False)
        return bits is None or bits.shape != self._bits.shape or not torch.equal(bits, self._bits)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        yield f"len({name})", len(value)
        for number, part in enumerate(value):
            yield from _leaves(part, f"{name}[{number}]")
    else:
        yield name, value


def _bits(tensor: Tensor, copy: bool = True) -> Tensor | None:
    """A tensor's bytes, of its own; None for one that has none to look at, such as a sparse one."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return None
    with torch.no_grad():
        plain = tensor.detach()
        plain = plain.clone(memory_format=torch.contiguous_format) if copy else plain.contiguous()
        plain = plain.resolve_conj().resolve_neg().reshape(-1)
        return plain.view(torch.uint8)


def _version(value: Any) -> int | None:
    """How often a tensor was written into; None where that is not counted."""
    if not isinstance(value, Tensor) or value.is_inference():
        return None
    return value._version
