"""Torch hooks, and the care of a model they are put on: the only file that registers any.

What stands here keeps promise 1: a model that HookQL has looked at is as it was, after an
exception too, and only HookQL's own hooks are ever removed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from hookql.errors import ModelError
from hookql.models.paranoid import is_paranoid, unchanged
from hookql.models.ports import HookPoint, PortReader

Tap = Callable[[Tensor], None]
Missing = Callable[[HookPoint, ModelError], None]
Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
See = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]
After = Callable[[tuple[Any, ...], dict[str, Any], Any], None]


class StopForward(BaseException):
    """Raised by the last hook that is needed, to leave the forward pass.

    Not an ``Exception``, so that no ``except Exception`` inside a model swallows it.
    """


class _Ours(functools.partial[None]):
    """A hook that stays behind when its model is copied or pickled: the copy's hook does nothing.

    The copy's hooks would never be removed. A partial, for it is called without a Python frame.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (_nothing,)


def is_ours(hook: Any) -> bool:
    """Whether a hook is HookQL's own, which looks on and changes nothing."""
    return isinstance(hook, _Ours)


def _nothing(*given: Any) -> None:
    """What a copy of a model has in place of our hooks."""


def _itself(value: Any) -> Any:
    return value


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
            call = hook(reader, tap, missing)
            if is_paranoid():
                call = _watched(call, f"the detector of `{point}`", point.module)
            if before:
                register: Any = module.register_forward_pre_hook
            else:
                register = module.register_forward_hook
            handles.append(register(_Ours(call), with_kwargs=True))
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


def _watched(hook: Callable[..., None], who: str, module: str) -> Callable[..., None]:
    """The same hook, held to write into nothing that it is shown."""

    def watched(called: nn.Module, args: Any, kwargs: Any, *out: Any) -> None:
        shown = {"input": args, "kwargs": kwargs, "output": out[0] if out else None}
        with unchanged(who, f"`{module or 'model'}`", shown):
            hook(called, args, kwargs, *out)

    return watched


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
        return _Ours(lambda *_: events.append((kind, name)))

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
    handle = register(_Ours(leave))
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
    own = _OWN.set(True)
    try:
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        _OWN.reset(own)
        for module in training:
            module.training = True
        # Dynamic rotary embeddings exchange their frequencies for those of the longest input.
        for module, buffers, longest in grown:
            module._buffers.update(buffers)
            module.max_seq_len_cached = longest


_OWN: ContextVar[bool] = ContextVar("hookql_own_passes", default=False)


def own_passes() -> bool:
    """Whether it is HookQL itself that runs a model now: nobody who looks on counts that."""
    return _OWN.get()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Arithmetic as HookQL means it, whatever a user's pass is run under.

    Autocast would round sums to half precision, gradients would keep every batch in memory, and
    what is made in inference mode cannot be changed in place later.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def recomputing() -> bool:
    """Whether a backward pass runs a module again, for gradient checkpointing: rows seen before."""
    return bool(torch._C._current_graph_task_id() != -1)


@contextmanager
def module_calls(module: nn.Module, side: str, see: See) -> Iterator[None]:
    """Call ``see(module, args, kwargs, output)`` at each call of a module inside this context.

    At ``side`` "input" before it runs, with None for the output, else after.
    """

    def before(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(called, args, kwargs, None)

    if side == "input":
        handle = module.register_forward_pre_hook(_Ours(before), with_kwargs=True)
    else:
        handle = module.register_forward_hook(_Ours(see), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def root_calls(root: nn.Module, before: Before, after: After) -> Iterator[None]:
    """Call ``before(args, kwargs)`` and ``after(args, kwargs, output)`` around each call of root.

    After an Exception in the pass ``output`` is None; an error that ``after`` raises then is lost
    in favour of the first, with a warning of torch. After Ctrl-C and other such ends ``after`` is
    not called: the next ``before`` says that the pass is over.
    """

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before(args, kwargs)

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        after(args, kwargs, out)

    handles = []
    try:
        handles.append(root.register_forward_pre_hook(_Ours(enter), with_kwargs=True))
        handles.append(root.register_forward_hook(_Ours(leave), with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
