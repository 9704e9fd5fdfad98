"""Ports: which tensor of a module's call a hook point reads.

A module is called with positional and keyword arguments and returns a tensor, a tuple, a list, a
dict or a transformers ``ModelOutput``. A port names one tensor of these.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from hookql.errors import Diagnostic, ModelError, listing
from hookql.language import ast


@frozen(order=True)
class HookPoint:
    """One module and one port of it, bound: what is read, once, however many captures need it."""

    module: str
    side: str  # "input", "output", or "pattern": the attention weights in the output
    element: int | str | None = None

    @property
    def event(self) -> tuple[str, str]:
        """("input" | "output", module): what of the forward pass has to happen for it."""
        return ("input" if self.side == "input" else "output", self.module)

    @classmethod
    def of(cls, module: str, site: ast.Site) -> HookPoint:
        """The hook point of a module that a site matched."""
        if isinstance(site, ast.ModelSite):
            return cls("", site.end)
        port = None if isinstance(site, ast.CanonicalSite) else site.port
        return cls(module, "output") if port is None else cls(module, port.name, port.element)

    @property
    def port(self) -> str:
        """``output``, ``input``, ``output[1]``, ``input.mask``, as a query writes it."""
        if self.element is None:
            return self.side
        if isinstance(self.element, int):
            return f"{self.side}[{self.element}]"
        return f"{self.side}.{self.element}"

    def __str__(self) -> str:
        return f"{self.module or 'model'}:{self.port}"


class PortReader:
    """Reads one hook point's tensor from a call of its module.

    Keyword arguments are looked up in the order of the module's signature, not of the call, so that
    ``:input`` is the hidden state however a family orders its keywords.
    """

    def __init__(self, point: HookPoint, module: nn.Module, attention: str | None = None) -> None:
        """``attention``: the implementation in use, which says why there may be no weights."""
        self.point = point
        self._class = type(module).__name__
        self._attention = attention
        self._parameters = [
            p.name
            for p in inspect.signature(module.forward).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]

    def input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The tensor among the arguments. Raises ModelError where there is none."""
        element = self.point.element
        if element is None:
            for value in args:
                if isinstance(value, Tensor):
                    return value
            for name in [*self._parameters, *kwargs]:
                if isinstance(kwargs.get(name), Tensor):
                    return kwargs[name]  # type: ignore[no-any-return]
            raise self._missing(self._described(args, kwargs))
        names = [*self._parameters[: len(args)], *map(str, range(len(self._parameters), len(args)))]
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        if isinstance(element, int):
            ordered = [n for n in self._parameters if n in given]
            ordered += [n for n in given if n not in ordered]
            value = given[ordered[element]] if element < len(ordered) else None
        else:
            value = given.get(element)
        if not isinstance(value, Tensor):
            raise self._missing(self._described(args, kwargs))
        return value

    def output(self, output: Any) -> Tensor:
        """The tensor in what the module returned. Raises ModelError where there is none."""
        element = self.point.element
        items = _items(output)
        value: Any = None
        if self.point.side == "pattern":
            value = _weights(items, self._attention in (None, "eager"))
            if value is None:
                raise self._no_pattern(items)
        elif element is None:
            value = next((v for _, v in items if isinstance(v, Tensor)), None)
        elif isinstance(element, int):
            value = items[element][1] if element < len(items) else None
        else:
            value = dict(items).get(element)
        if not isinstance(value, Tensor):
            raise self._missing([f"{name}: {_kind(v)}" for name, v in items])
        return value

    def _described(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        names = [*self._parameters, *(str(i) for i in range(len(args)))]
        positional = [f"{n}: {_kind(a)}" for n, a in zip(names, args, strict=False)]
        return positional + [f"{n}: {_kind(v)}" for n, v in kwargs.items()]

    def _missing(self, present: Sequence[str]) -> ModelError:
        point = self.point
        what = "was called with" if point.side == "input" else "returned"
        notes = [f"{point.module or 'the model'} {what} {listing(present) or 'nothing'}"]
        advice = None
        if point.element == 1 and any(p.endswith(": None") for p in present):
            advice = f"attention weights are `{point.module}:pattern`"
        message = f"`{point}` ({self._class}) is not a tensor in this model's forward pass"
        return ModelError(Diagnostic("no-tensor", message, help=advice, notes=tuple(notes)))

    def _no_pattern(self, items: Sequence[tuple[str, Any]]) -> ModelError:
        present = [f"{name}: {_kind(v)}" for name, v in items]
        hidden = any(v is None for _, v in items)
        return ModelError(no_pattern(self.point, self._class, self._attention, hidden, present))


def no_pattern(
    point: HookPoint, kind: str, attention: str | None, hidden: bool, present: Sequence[str]
) -> Diagnostic:
    """Why a module's output has no attention weights; ``hidden`` where it is an attention's."""
    message = f"`{point.module or 'the model'}` ({kind}) returns no attention weights"
    notes = (f"it returned {listing(present) or 'nothing'}",)
    if attention in (None, "eager") or not (hidden or "attention" in kind.lower()):
        return Diagnostic("no-pattern", message, notes=notes)
    advice = (
        "run with --attn eager (from Python attn='eager', or for a module of your own "
        "model.set_attn_implementation('eager'))"
    )
    return Diagnostic("no-pattern", f"{message} under `{attention}`", help=advice, notes=notes)


def _weights(items: Sequence[tuple[str, Any]], shown: bool) -> Tensor | None:
    """The last tensor of four axes: some families return a position bias before the weights.

    Where the implementation does not show weights, None stands in their place at the end.
    """
    if not shown and items and items[-1][1] is None:
        return None
    fitting = [v for _, v in items if isinstance(v, Tensor) and v.ndim == 4]
    fitting = [v for v in fitting if v.is_floating_point()]
    return fitting[-1] if fitting else None


def _items(output: Any) -> list[tuple[str, Any]]:
    """An output's elements with their names, in order."""
    if isinstance(output, Mapping):
        return [(str(k), v) for k, v in output.items()]
    if isinstance(output, tuple | list):
        return [(str(i), v) for i, v in enumerate(output)]
    return [("0", output)]


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else type(value).__name__


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that rows are reduced in: float32 for what fits it exactly, else float64.

    bfloat16 and float16 widen losslessly to float32; integers up to 64 bits do not, so token ids
    and counters are reduced in float64.
    """
    if dtype in (torch.float32, torch.bfloat16, torch.float16):
        return torch.float32
    return torch.float64
