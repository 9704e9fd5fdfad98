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

from hookql.errors import ModelError
from hookql.models.ports import HookPoint, PortReader

Tap = Callable[[Tensor], None]
Missing = Callable[[HookPoint, ModelError], None]


class StopForward(BaseException):
    """Raised by the last hook that is needed, to leave the forward pass.

    Not an ``Exception``, so that no ``except Exception`` inside a model swallows it.
    """


@contextmanager
def hooked(
    root: nn.Module, taps: Mapping[HookPoint, Tap], missing: Missing | None = None
) -> Iterator[None]:
    """Call ``taps[point]`` with the point's tensor whenever its module runs, inside this context.

    The tensor is the model's own and may be changed in place by the model afterwards: a tap reduces
    or copies it at once. Hooks return nothing, so what the model computes stays what it was. Where
    a port holds no tensor, ``missing`` is told, or without it the error is raised.
    """
    handles = []
    attention = getattr(getattr(root, "config", None), "_attn_implementation", None)
    try:
        for point, tap in taps.items():
            module = root.get_submodule(point.module)
            before = point.event[0] == "input"
            hook = _pre_hook if before else _hook
            reader = PortReader(point, module, attention)
            if before:
                register: Any = module.register_forward_pre_hook
            else:
                register = module.register_forward_hook
            handles.append(register(hook(reader, tap, missing), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pre_hook(reader: PortReader, tap: Tap, missing: Missing | None) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _read(lambda: reader.input(args, kwargs), reader.point, tap, missing)

    return hook


def _hook(reader: PortReader, tap: Tap, missing: Missing | None) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        _read(lambda: reader.output(out), reader.point, tap, missing)

    return hook


def _read(read: Callable[[], Tensor], point: HookPoint, tap: Tap, missing: Missing | None) -> None:
    try:
        tensor = read()
    except ModelError as error:
        if missing is None:
            raise
        missing(point, error)
    else:
        tap(tensor)


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
def leaving(
    root: nn.Module, event: tuple[str, str] | None, ready: Callable[[], bool]
) -> Iterator[None]:
    """Leave the forward pass at an event, ("input" | "output", module), once ``ready()``.

    The event is the one after the last that is needed, not that one itself: were a module to run
    more often on the data than it did in the probe, its further call would still be seen.
    """
    if event is None:
        yield
        return

    def leave(*_: Any) -> None:
        if ready():
            raise StopForward

    kind, name = event
    module = root.get_submodule(name)
    register: Any = module.register_forward_hook
    if kind == "input":
        register = module.register_forward_pre_hook
    handle = register(leave)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def observing(root: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode is restored afterwards.

    ``no_grad`` rather than ``inference_mode``: modules that cache buffers in their forward (dynamic
    rotary embeddings) would otherwise keep tensors that later training cannot use.
    """
    training = [module for module in root.modules() if module.training]
    rotary = [m for m in root.modules() if hasattr(m, "max_seq_len_cached")]
    grown = [(m, dict(m._buffers), m.max_seq_len_cached) for m in rotary]
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        # Dynamic rotary embeddings exchange their frequencies for those of the longest input.
        for module, buffers, longest in grown:
            module._buffers.update(buffers)
            module.max_seq_len_cached = longest
