"""`LayerActivationDetector`: the tensors that a module makes, as they are."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hookql.attached.copies import Copies
from hookql.attached.detector import Detector


class LayerActivationDetector(Detector):
    """Keeps a copy of the site's tensor at each call: a list, in order, padding included.

    Of a plain path that is the first tensor that the module returns. Copies are detached and of
    their own memory. All of them stay in memory until `clear_captured`: for more than that, a
    query's `values` go to the disk.
    """

    shareable: ClassVar[bool] = False

    def __init__(
        self,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = "cpu",
        non_blocking: bool = True,
    ) -> None:
        """``dtype`` as floating-point tensors are kept, None for their own; ``device`` where.

        ``device`` None leaves them where they are. From a GPU to the CPU nothing waits for a copy
        until it is read, unless ``non_blocking`` is False. Raises UsageError for another dtype.
        """
        self._copies = Copies(dtype, device, non_blocking)

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Copy the tensor."""
        tensor = self.call.tensor
        self._copies.add(tensor)
        self.metadata["calls"] = len(self._copies)
        self.metadata["dtype"] = str(tensor.dtype).removeprefix("torch.")

    def get_captured(self) -> list[Tensor]:
        """The copies, one for each call."""
        return self._copies.read()

    def clear_captured(self) -> None:
        """Forget them."""
        super().clear_captured()
        self._copies.clear()
