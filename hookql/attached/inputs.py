"""`ModelInputDetector`: what a model is fed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hookql.attached.copies import Copies
from hookql.attached.detector import Detector
from hookql.attached.rows import Unfit
from hookql.errors import Diagnostic, UsageError


class ModelInputDetector(Detector):
    """Keeps the token ids and masks of each pass, given by place or by name; for `input`.

    ``get_captured()`` are lists with one tensor (samples, positions) for each pass, on the CPU:
    ``input_ids`` int64, ``attention_mask`` bool (all True where the call has none), and where
    ``special`` is given ``content_mask`` bool: no padding and no special token.
    """

    shareable: ClassVar[bool] = False

    def __init__(self, special: Any = None) -> None:
        """``special``: a tokenizer, or the ids of special tokens. Raises UsageError for others."""
        self._special = None if special is None else _ids(special)
        self._copies = {"input_ids": Copies(), "attention_mask": Copies()}
        if self._special is not None:
            self._copies["content_mask"] = Copies()

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Copy the ids and work out the masks."""
        call = self.call
        ids, mask = call.ids, call.mask
        if ids is None or mask is None:
            reason = call.tokens.unclear or "it is called without token ids"
            raise Unfit(f"what the model is fed is not known: {reason}")
        found = {"input_ids": ids.to(torch.int64), "attention_mask": mask.to(ids.device)}
        if self._special is not None:
            special = torch.isin(ids, torch.tensor(self._special, device=ids.device))
            found["content_mask"] = found["attention_mask"] & ~special
        for name, tensor in found.items():
            self._copies[name].add(tensor)
        self.metadata["calls"] = len(self._copies["input_ids"])

    def get_captured(self) -> dict[str, list[Tensor]]:
        """Lists of tensors, one for each pass, by name."""
        return {name: copies.read() for name, copies in self._copies.items()}

    def clear_captured(self) -> None:
        """Forget them."""
        super().clear_captured()
        for copies in self._copies.values():
            copies.clear()


def _ids(special: Any) -> list[int]:
    given = getattr(special, "all_special_ids", special)
    whole = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    found = list(given) if whole else []
    if not whole or not all(isinstance(i, int) and not isinstance(i, bool) for i in found):
        message = "`special` is a tokenizer or the ids of special tokens"
        raise UsageError(Diagnostic("bad-special", message))
    return found
