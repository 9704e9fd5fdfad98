"""`ModelOutputDetector`: what a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hookql.attached.copies import Copies
from hookql.attached.detector import Detector
from hookql.attached.rows import Unfit


class ModelOutputDetector(Detector):
    """Keeps the logits and the last hidden state of each pass; for `output`.

    ``get_captured()`` are lists with one tensor for each pass: ``logits``, and ``hidden_state``
    where the model returns one (``output_hidden_states=True``, or a model without a head). What a
    tuple holds is known by its shape: logits are as wide as the vocabulary.
    """

    shareable: ClassVar[bool] = False

    def __init__(
        self,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = "cpu",
        non_blocking: bool = True,
    ) -> None:
        """As of `LayerActivationDetector`."""
        self._copies = {
            name: Copies(dtype, device, non_blocking) for name in ("logits", "hidden_state")
        }

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Copy what is there of the two."""
        found = returned(module, output)
        if not found:
            message = f"{type(module).__name__} returned neither logits nor a hidden state"
            help = "attach it to `output`; LayerActivationDetector takes any tensor"
            raise Unfit(message, help)
        for name, tensor in found.items():
            self._copies[name].add(tensor)
        self.metadata["calls"] = max(len(copies) for copies in self._copies.values())

    def get_captured(self) -> dict[str, list[Tensor]]:
        """Lists of tensors, one for each pass, by name; what never came is left out."""
        return {name: copies.read() for name, copies in self._copies.items() if len(copies)}

    def clear_captured(self) -> None:
        """Forget them."""
        super().clear_captured()
        for copies in self._copies.values():
            copies.clear()


def returned(module: nn.Module, output: Any) -> dict[str, Tensor]:
    """``logits`` and ``hidden_state`` of what a model returned, as far as they are there."""
    if isinstance(output, Mapping):
        states = output.get("hidden_states", output.get("decoder_hidden_states"))
        last = output.get("last_hidden_state")
        if last is None and isinstance(states, tuple | list) and states:
            last = states[-1]
        both = {"logits": output.get("logits"), "hidden_state": last}
        return {name: value for name, value in both.items() if isinstance(value, Tensor)}
    parts = list(output) if isinstance(output, tuple | list) else [output]
    found: dict[str, Tensor] = {}
    config = getattr(module, "config", None)
    for part in parts:
        if isinstance(part, Tensor) and part.ndim > 1:
            if part.shape[-1] == getattr(config, "hidden_size", None):
                found.setdefault("hidden_state", part)
            elif config is None or part.shape[-1] == getattr(config, "vocab_size", None):
                found.setdefault("logits", part)
        elif isinstance(part, tuple | list) and part and _states(part, config):
            found.setdefault("hidden_state", part[-1])
    return found


def _states(parts: Any, config: Any) -> bool:
    """Whether these are the hidden states of all layers, which are as wide as the stream."""
    width = getattr(config, "hidden_size", None)
    return all(isinstance(p, Tensor) and p.ndim == 3 and p.shape[-1] == width for p in parts)
