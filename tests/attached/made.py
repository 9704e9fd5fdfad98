"""Detectors and a model that several tests of attaching use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hookql.attached import Detector
from tests.tiny import character_tokenizer, tiny

TEXTS = ["hello there", "hi", "what is it?"]


class Counting(Detector):
    """Five lines of a person's own."""

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Count calls, and keep where they came from."""
        self.metadata["calls"] = int(self.metadata.get("calls", 0)) + 1
        self.tensor_metadata["last"] = self.call.tensor


class Failing(Detector):
    """Raises at its second call."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or ValueError("no such luck")
        self.calls = 0

    def process_activations(self, module: nn.Module, input: tuple[Any, ...], output: Any) -> None:
        """Raise."""
        self.calls += 1
        if self.calls > 1:
            raise self.error


def gpt2() -> tuple[Any, Any]:
    """A tiny GPT-2 and its tokenizer."""
    model, tokenizer, _ = tiny("gpt2")
    return model, tokenizer


def batch(texts: list[str] = TEXTS, side: str = "right") -> dict[str, Tensor]:
    """Padded ids and mask."""
    return dict(character_tokenizer(side)(texts, return_tensors="pt", padding=True))


def hook_count(model: nn.Module) -> int:
    """How many hooks stand on a model, of all kinds, and what torch notes beside them."""
    return sum(
        len(hooks)
        for module in model.modules()
        for attribute, hooks in vars(module).items()
        if "hooks" in attribute and isinstance(hooks, dict)
    )


def by_hand(model: nn.Module, name: str, inputs: dict[str, Tensor]) -> Tensor:
    """A module's first output tensor in a plain pass, by a hook of the test's own."""
    seen: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        seen.append((output if isinstance(output, Tensor) else output[0]).detach().clone())

    handle = model.get_submodule(name).register_forward_hook(hook)
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return seen[0]
