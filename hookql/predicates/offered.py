"""Columns and functions of other people, as predicates and token columns use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from attrs import evolve, fields

from hookql.data.batches import Batch
from hookql.errors import DataError, HookQLError
from hookql.expressions.functions import FUNCTIONS
from hookql.language import ast
from hookql.language.pieces import PIECES, Piece, failed, wrong_result
from hookql.language.walk import literal
from hookql.predicates.values import Array, Values

if TYPE_CHECKING:
    from hookql.extending import OfferedColumn, OfferedFunction

_TYPES = {"number": "biuf", "truth": "b", "id": "iu"}
_WANTED = {"number": "numbers", "truth": "bools", "id": "integers"}


def guarded(piece: Piece) -> Callable[[Batch], Values]:
    """What reads a piece's column, with a look at what it gives: its shape and its dtype."""
    offered: OfferedColumn = piece.value

    def read(batch: Batch) -> Values:
        try:
            given = offered.read(_locked(batch))
        except HookQLError:
            raise
        except Exception as error:
            doing = f"on a batch of {batch.ids.shape[0]} x {batch.ids.shape[1]} tokens"
            raise DataError(failed(piece, doing, error)) from error
        if isinstance(given, tuple) and len(given) == 2:
            values, defined = (_fitting(piece, each, batch) for each in given)
            if defined.dtype.kind != "b":
                message = f"says by {defined.dtype} where it has a value"
                raise DataError(wrong_result(piece, message, ("bools are needed",)))
        else:
            values, defined = _fitting(piece, given, batch), np.array(True)
        if values.dtype.kind not in _TYPES[offered.kind]:
            message = f"gave values of {values.dtype}"
            notes = (f"a column of kind `{offered.kind}` has {_WANTED[offered.kind]}",)
            raise DataError(wrong_result(piece, message, notes))
        return Values(_plain(values, offered.kind), defined)

    return read


def _locked(batch: Batch) -> Batch:
    """A copy whose arrays cannot be written: others read the batch's own."""

    def locked(given: Any) -> Any:
        arrays = {
            field.name: value.copy()
            for field in fields(type(given))
            if isinstance(value := getattr(given, field.name), np.ndarray)
        }
        for array in arrays.values():
            array.setflags(write=False)
        return evolve(given, **arrays)

    own: Batch = locked(batch)
    return evolve(
        own,
        contexts=tuple(locked(context) for context in batch.contexts),
        signals={name: locked(values) for name, values in batch.signals.items()},
        values={name: locked(values) for name, values in batch.values.items()},
        target=None if batch.target is None else _locked(batch.target),
    )


def _fitting(piece: Piece, given: Any, batch: Batch) -> Array:
    """What a column gave as an array of one value a token."""
    try:
        array = given.numpy(force=True) if isinstance(given, torch.Tensor) else np.asarray(given)
    except Exception as error:  # a list of lists of several lengths, numbers that NumPy has not
        kind = f"a tensor of {given.dtype}" if isinstance(given, torch.Tensor) else "no rectangle"
        notes = (f"{kind} was given; an array of NumPy, or what becomes one, is needed",)
        raise DataError(wrong_result(piece, "gave no array", notes)) from error
    shape = batch.ids.shape
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        message = f"gave values of shape {array.shape} for a batch of {shape} tokens"
        raise DataError(wrong_result(piece, message)) from None
    return array


def _plain(values: Array, kind: str) -> Array:
    """A copy as int64, float64 or bool: the batch's own arrays are somebody's."""
    if kind == "truth":
        return values.copy()
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def by_number(piece: Piece) -> Callable[..., Array]:
    """A piece's function of tensors as one of float64 arrays."""
    function = FUNCTIONS[piece.name]

    def compute(*values: Array, **literals: Any) -> Array:
        tensors = np.broadcast_arrays(*values)
        given = [torch.from_numpy(np.array(t, np.float64)).reshape(-1) for t in tensors]
        found = function.compute(*given, **literals)
        return np.asarray(found.numpy().reshape(tensors[0].shape))

    return compute


def called_offered(
    node: ast.Call,
) -> tuple[list[ast.Expression], dict[str, float]] | None:
    """The values and the literals of a call of a piece; None of a function of HookQL's own.

    The language has looked at the call: its literals are numbers, by place or by name.
    """
    piece = PIECES.get(("function", node.function))
    if piece is None:
        return None
    offered: OfferedFunction = piece.value
    known = [parameter.name for parameter in offered.parameters]
    values = [argument.value for argument in node.arguments[: offered.values]]
    literals = {
        argument.name or known[place]: literal(argument.value) or 0
        for place, argument in enumerate(node.arguments[offered.values :])
    }
    return values, literals


def works_by_number(piece: Piece) -> bool:
    """Whether a piece's function can be had of single numbers."""
    offered: OfferedFunction = piece.value
    return offered.axes == "each"
