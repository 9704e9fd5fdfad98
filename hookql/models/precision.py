"""Autocast: forward passes in half precision of a model whose weights stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from attrs import evolve
from torch import Tensor

from hookql.errors import Diagnostic, UsageError
from hookql.models.hooks import Tap, undisturbed
from hookql.models.load import Model


def with_autocast(model: Model, dtype: str | None) -> Model:
    """The same model, whose passes run under autocast to ``bfloat16`` or ``float16``.

    Raises UsageError where that dtype cannot be had on the model's device.
    """
    if dtype is None:
        return model
    if dtype == "float16" and model.device.type == "cpu":
        message = "autocast to float16 needs a GPU, and the model is on the CPU"
        raise UsageError(Diagnostic("cannot-autocast", message, help="give `--autocast bfloat16`"))
    return evolve(model, autocast=dtype)


@contextmanager
def casting(model: Model) -> Iterator[None]:
    """Around one forward pass: under autocast where the model asks for it."""
    if model.autocast is None:
        yield
        return
    with torch.autocast(model.device.type, getattr(torch, model.autocast)):
        yield


@contextmanager
def keeping_casts(model: Model) -> Iterator[None]:
    """Around passes of unchanged weights: each weight is cast once, not in every pass.

    Autocast forgets them at the end of its outermost context, which is this one.
    """
    if model.autocast is None:
        yield
        return
    try:
        with torch.autocast(model.device.type, enabled=False):
            yield
    finally:
        # Inside a user's own autocast they would live on, and have no gradients.
        torch.clear_autocast_cache()


def calm(model: Model, tap: Tap) -> Tap:
    """A tap that works as ever inside a pass under autocast, which would round its sums."""
    if model.autocast is None:
        return tap

    def undisturbed_tap(tensor: Tensor) -> None:
        with undisturbed():
            tap(tensor)

    return undisturbed_tap


def resolution(model: Model) -> Callable[[Tensor], torch.dtype]:
    """The dtype that a tensor's numbers are as exact as: under autocast less than its own says."""
    lower = None if model.autocast is None else getattr(torch, model.autocast)
    return lambda tensor: tensor.dtype if lower is None else lower
