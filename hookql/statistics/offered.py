"""Accumulators of other people's classes: what they are given, and what is said of their mistakes.

A class sees copies of rows in float64, never none of them, and is merged with its like alone: so a
few lines are enough, and nothing it does to them reaches another statistic.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from hookql.errors import ModelError
from hookql.language.pieces import PIECES, Piece, failed, refuse, wrong_result
from hookql.statistics.core import Parameter, Statistic, read_off

if TYPE_CHECKING:
    from torch import Tensor, dtype


class Offered:
    """The accumulator of an offered statistic: its own class's, made when the first rows come."""

    def __init__(self, name: str, made: type, /, **parameters: Any) -> None:
        """``name``: of the statistic, ``made``: its class, which is called with ``parameters``."""
        self.name = name
        self.made = made  # a notebook may give the name to another class while this one runs
        self.parameters = parameters
        self.state: Any = None
        self.axes: tuple[int, ...] | None = None

    def update(self, rows: Tensor) -> None:
        """Take in rows (n, \\*axes). Raises ModelError naming the piece that fails on them."""
        self.axes = tuple(rows.shape[1:])
        if not len(rows):
            return
        if self.state is None:
            self.state = self.fresh()
        # A copy: the memory of rows is used again, and others read them. Sums of float32 go astray.
        given = rows.clone() if rows.device.type == "mps" else rows.to(dtype=_float64(), copy=True)
        before = _version(given)
        self._call("update", self.state, given, on=f" on rows of shape {tuple(rows.shape)}")
        if _version(given) != before:
            message = "changed the rows that `update` was given"
            raise ModelError(wrong_result(self.piece, message, ("work on a copy: `rows.clone()`",)))

    def merge(self, other: Self) -> None:
        """Take in what another one of the same axes has seen."""
        self.axes = other.axes if self.axes is None else self.axes
        theirs = self._copied(other.state)
        if theirs is None or self.state is None:
            self.state = self.state if theirs is None else theirs
        else:
            self._call("merge", self.state, theirs)

    def pool(self, axis: int) -> Self:
        """A new one without that axis."""
        pooled = type(self)(self.name, self.made, **self.parameters)
        if self.axes is not None:
            pooled.axes = self.axes[:axis] + self.axes[axis + 1 :]
        if self.state is not None:
            pooled.state = self._call("pool", self._copied(self.state), axis)
            if type(pooled.state) is not type(self.state):
                message = f"gave no `{type(self.state).__name__}` for `pool`"
                raise ModelError(wrong_result(self.piece, message, _given(pooled.state)))
        return pooled

    @property
    def nbytes(self) -> int:
        """The memory of its tensors and arrays, or what it says itself."""
        try:
            own = getattr(self.state, "nbytes", None)
            return own if isinstance(own, int) else _bytes(self.state)
        except Exception as error:
            raise ModelError(failed(self.piece, "in `nbytes`", error)) from error

    def result(self) -> Tensor:
        """The number of each place, float64 (\\*axes); NaN where nothing was seen."""
        import torch

        axes = self.axes or ()
        if self.state is None:
            return torch.full(axes, math.nan, dtype=torch.float64)
        found = self._call("result", self.state)
        try:
            tensor = torch.as_tensor(found).detach()
        except (TypeError, ValueError, RuntimeError):
            message = "gave no numbers for `result`"
            raise ModelError(wrong_result(self.piece, message, _given(found))) from None
        if tensor.dtype is torch.bool or tensor.is_complex():
            message = f"gave numbers of {_dtype(tensor)} for `result`"
            raise ModelError(wrong_result(self.piece, message, ("they become float64",)))
        if tuple(tensor.shape) != axes:
            message = f"gave numbers of shape {tuple(tensor.shape)} for `result`"
            notes = (f"one for each place of a row is needed: {axes}",)
            raise ModelError(wrong_result(self.piece, message, notes))
        return tensor.double()

    @property
    def piece(self) -> Piece:
        """Whose it is."""
        return PIECES["statistic", self.name]

    def fresh(self) -> Any:
        """A new accumulator of the class."""
        return self._call("__init__", None)

    def renew(self, kept: type) -> None:
        """Put what no file holds, functions, back where a file has a ``kept`` in their place.

        Raises ValueError where a new accumulator has no such attribute.
        """
        known = getattr(self.state, "__dict__", {})
        missing = [name for name, value in known.items() if isinstance(value, kept)]
        fresh = self.fresh() if missing else None
        for name in missing:
            if not hasattr(fresh, name):
                raise ValueError(f"{self.piece} keeps a function as `{name}`")
            object.__setattr__(self.state, name, getattr(fresh, name))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = type(self)(self.name, self.made, **self.parameters)
        made.state, made.axes = self._copied(self.state), self.axes
        return made

    def _copied(self, state: Any) -> Any:
        """A copy of a state; memory that runs out is the run's own matter."""
        try:
            return copy.deepcopy(state)
        except MemoryError:
            raise
        except Exception as error:
            if "memory" in str(error).lower() and isinstance(error, RuntimeError):
                raise
            doing = "when its state was copied, as `by` and `pool` do"
            raise ModelError(failed(self.piece, doing, error)) from error

    def _call(self, method: str, state: Any, *given: Any, on: str = "") -> Any:
        """Call what is somebody else's; memory that runs out is the run's own matter."""
        try:
            if method == "__init__":
                return self.made(**self.parameters)
            return getattr(state, method)(*given)
        except MemoryError:
            raise
        except Exception as error:
            if "memory" in str(error).lower() and isinstance(error, RuntimeError):
                raise
            raise ModelError(failed(self.piece, f"in `{method}`{on}", error)) from error


def of_class(
    piece: Piece,
    made: type,
    doc: str,
    parameters: tuple[Parameter, ...] | None,
    cell_method: str,
    check: Callable[..., str | None] | None = None,
) -> Statistic:
    """A statistic whose accumulator is somebody's class. Raises UsageError where it cannot be."""
    lacking = [m for m in ("update", "merge", "result") if not callable(getattr(made, m, None))]
    if lacking:
        refuse(piece, f"`{made.__qualname__}` has no `{lacking[0]}`")
    if parameters is None:
        parameters = parameters_of(piece, signature_of(piece, made))

    def takes(**given: Any) -> str | None:
        """Why the class does not take these."""
        wrong = None if check is None else check(**given)
        if wrong is not None or not given:
            return wrong
        try:
            made(**given)
        except Exception as error:
            return f"`{piece.name}` does not take this: {error}"
        return None

    return Statistic(
        piece.name,
        doc,
        parameters,
        partial(Offered, piece.name, made),
        f"{piece.name} ({piece.origin})",
        0,
        cell_method,
        partial(read_off, _result),
        piece.origin,
        state_parameters=tuple(parameter.name for parameter in parameters),
        check=takes,
        poolable=callable(getattr(made, "pool", None)),
        layers=True,
    )


def signature_of(piece: Piece, made: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a class or function is called with. Raises UsageError where Python cannot say."""
    try:
        return list(inspect.signature(made).parameters.values())
    except (TypeError, ValueError):
        help = "write a `def` around it, with its parameters by name"
        refuse(piece, "it does not say what its parameters are", help)


def parameters_of(piece: Piece, given: Iterable[inspect.Parameter]) -> tuple[Parameter, ...]:
    """The parameters of a class or function as those of a statistic or function of queries.

    Raises UsageError for one that no query can give: queries write numbers.
    """
    found = []
    for each in given:
        if each.kind not in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
            refuse(piece, f"its parameter `{each}` has no name that a query could use")
        default = None if each.default is each.empty else each.default
        number = isinstance(default, int | float) and not isinstance(default, bool)
        if not number and each.default is not each.empty:
            refuse(piece, f"its parameter `{each.name}` is no number: {each.default!r}")
        whole = isinstance(default, int) or each.annotation in (int, "int")
        kind = "whole" if whole and each.annotation not in (float, "float") else "number"
        check = _whole if kind == "whole" else _any
        found.append(Parameter(each.name, default, check, kind))
    return tuple(found)


def _whole(value: int | float) -> str | None:
    return None if value == int(value) else "a whole number"


def _any(value: int | float) -> str | None:
    return None


def _result(state: Any, **parameters: Any) -> Any:
    return state.result()


def _float64() -> dtype:
    import torch

    return torch.float64


def _version(rows: Tensor) -> int | None:
    """How often a tensor was written into; not known of those made in inference mode."""
    return None if rows.is_inference() else rows._version


def _bytes(value: Any, seen: set[int] | None = None) -> int:
    """The bytes of the tensors and arrays that an object holds, each once."""
    seen = set() if seen is None else seen
    if value is None or id(value) in seen or isinstance(value, str | bytes | int | float | type):
        return 0
    seen.add(id(value))
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    parts = [*value.values()] if isinstance(value, dict) else []
    parts = [*value] if isinstance(value, list | tuple | set) else parts
    if not parts:
        parts = [*getattr(value, "__dict__", {}).values()]
        slots = [s for kind in type(value).__mro__ for s in _names(kind)]
        parts += [getattr(value, slot, None) for slot in slots]
    return sum(_bytes(part, seen) for part in parts)


def _names(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _given(found: Any) -> tuple[str, ...]:
    return (f"it gave a `{type(found).__name__}`",)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
