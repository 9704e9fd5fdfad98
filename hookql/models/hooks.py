"""Torch hooks, and the care of a model they are put on: the only file that registers any.

What stands here keeps promise 1: a model that HookQL has looked at is as it was, after an
exception too, and only HookQL's own hooks are ever removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hookql.models.ports import HookPoint, PortReader


class StopForward(BaseException):
    """Raised by the last hook that is needed, to leave the forward pass.

    Not an ``Exception``, so that no ``except Exception`` inside a model swallows it.
    """


@contextmanager
def hooked(root: nn.Module, taps: Mapping[HookPoint, Callable[[Tensor], None]]) -> Iterator[None]:
    """Call ``taps[point]`` with the point's tensor whenever its module runs, inside this context.

    The tensor is the model's own and may be changed in place by the model afterwards: a tap reduces
    or copies it at once. Hooks return nothing, so what the model computes stays what it was.
    """
    handles = []
    try:
        for point, tap in taps.items():
            module = root.get_submodule(point.module)
            hook = _pre_hook if point.side == "input" else _hook
            reader = PortReader(point, module)
            if point.side == "input":
                register: Any = module.register_forward_pre_hook
            else:
                register = module.register_forward_hook
            handles.append(register(hook(reader, tap), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pre_hook(reader: PortReader, tap: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tap(reader.input(args, kwargs))

    return hook


def _hook(reader: PortReader, tap: Callable[[Tensor], None]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        tap(reader.output(out))

    return hook


@contextmanager
def traced(root: nn.Module, events: list[tuple[str, str]]) -> Iterator[None]:
    """Append ``("input", module)`` and ``("output", module)`` to events as modules are run."""

    def recorder(kind: str, name: str) -> Callable[..., None]:
        return lambda *_: events.append((kind, name))

    handles = []
    try:
        for name, module in root.named_modules():
            handles.append(module.register_forward_pre_hook(recorder("input", name)))
            handles.append(module.register_forward_hook(recorder("output", name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def observing(root: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is restored afterwards.

    ``no_grad`` rather than ``inference_mode``: modules that cache buffers in their forward (dynamic
    rotary embeddings) would otherwise keep tensors that later training cannot use.
    """
    training = [module for module in root.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
