"""A model's own `generate`, told of before and after: the one method that HookQL stands before.

Hooks see the calls of a forward pass, and not which of them are one text.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Begin = Callable[[tuple[Any, ...], dict[str, Any]], None]


class _Generate:
    """Stands before a model's own ``generate`` and tells listeners of each call.

    One for a model, in the instance's own attributes. Copies and pickles of the model have the
    original instead, bound to the copy.
    """

    def __init__(self, original: Callable[..., Any], own: bool) -> None:
        """``own``: whether the original was the instance's own attribute already."""
        self.original = original
        self.own = own
        self.listeners: list[tuple[Begin, Callable[[Any], None]]] = []
        functools.update_wrapper(self, original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begun: list[Callable[[Any], None]] = []
        output = None
        try:
            for begin, end in tuple(self.listeners):
                begin(args, kwargs)
                begun.append(end)
            output = self.original(*args, **kwargs)
        finally:
            _tell(begun, output)
        return output

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.original, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.original,)


def _tell(ends: list[Callable[[Any], None]], output: Any) -> None:
    """Tell all of them, the last first, even where one raises."""
    if ends:
        try:
            ends[-1](output)
        finally:
            _tell(ends[:-1], output)


def _itself(value: Any) -> Any:
    return value


@contextmanager
def around_generate(root: nn.Module, begin: Begin, end: Callable[[Any], None]) -> Iterator[None]:
    """Call ``begin(args, kwargs)`` before and ``end(output)`` after each ``root.generate(...)``.

    ``end(None)`` where it raised. Without a ``generate`` nothing is done.
    """
    if not callable(getattr(root, "generate", None)):
        yield
        return
    known: Any = root.__dict__.get("generate")
    if isinstance(known, _Generate):
        wrapper = known
    else:
        wrapper = _Generate(getattr(root, "generate"), known is not None)  # noqa: B009
    root.__dict__["generate"] = wrapper
    listener = (begin, end)
    wrapper.listeners.append(listener)
    try:
        yield
    finally:
        # By identity: two listeners may compare equal, as bound methods of one object do.
        wrapper.listeners[:] = [each for each in wrapper.listeners if each is not listener]
        # Whoever has put theirs over ours meanwhile keeps it; ours only calls through from now on.
        if not wrapper.listeners and root.__dict__.get("generate") is wrapper:
            if wrapper.own:
                root.__dict__["generate"] = wrapper.original
            else:
                del root.__dict__["generate"]
