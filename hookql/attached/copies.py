"""Tensors copied out of a pass, for whose copies nobody waits until they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hookql.errors import Diagnostic, UsageError, did_you_mean
from hookql.models.hooks import undisturbed

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class Copies:
    """Copies of tensors, in order: detached, contiguous, of their own memory.

    From a GPU to the CPU a copy goes into pinned memory while the model runs on; `read` waits for
    those that are still under way.
    """

    def __init__(
        self,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = "cpu",
        non_blocking: bool = True,
    ) -> None:
        """``dtype`` None keeps each tensor's own, ``device`` None leaves it where it is."""
        self.dtype = _dtype(dtype)
        self.device = None if device is None else torch.device(device)
        self.non_blocking = non_blocking
        self._kept: list[Tensor] = []
        self._under_way: list[Any] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, tensor: Tensor) -> None:
        """Copy one more; the model may write into the original right after."""
        with undisturbed():
            self._kept.append(self._copied(tensor.detach()))

    def keep(self, tensor: Tensor) -> None:
        """One more that is a copy already."""
        self._kept.append(tensor)

    def read(self) -> list[Tensor]:
        """All of them, whole."""
        for event in self._under_way:
            event.synchronize()
        self._under_way.clear()
        return list(self._kept)

    def clear(self) -> None:
        """Forget them."""
        self._kept, self._under_way = [], []

    def _copied(self, tensor: Tensor) -> Tensor:
        dtype = tensor.dtype if self.dtype is None or not _rounds(tensor) else self.dtype
        device = self.device or tensor.device
        if tensor.is_cuda and device.type == "cpu" and self.non_blocking:
            # Rounded where it is, so that less crosses over; read in order on the same stream.
            there = torch.empty(tensor.shape, dtype=dtype, pin_memory=True)
            there.copy_(tensor.to(dtype), non_blocking=True)
            event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(tensor.device))
            self._under_way.append(event)
            return there
        layout = torch.contiguous_format
        return tensor.to(device, dtype, copy=True, memory_format=layout)


def _rounds(tensor: Tensor) -> bool:
    """Whether a dtype that is asked for is for this tensor: ids and masks keep theirs."""
    return tensor.is_floating_point()


_SITE = 'where a detector stands is a key of `attach`: `attach(model, {"h[0].attn": ...})`'


def _dtype(given: torch.dtype | str | None) -> torch.dtype | None:
    if given is None or (isinstance(given, torch.dtype) and given.is_floating_point):
        return given
    found = _DTYPES.get(given) if isinstance(given, str) else None
    if found is None:
        known = list(_DTYPES)
        raise UsageError(
            Diagnostic(
                "unknown-dtype",
                f"unknown dtype `{given}`",
                help=_SITE if set(str(given)) & set(".[@") else did_you_mean(str(given), known),
                notes=(f"dtypes: {', '.join(known)}",),
            )
        )
    return found
