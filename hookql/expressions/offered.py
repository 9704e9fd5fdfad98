"""Functions of other people: what they are given, and what is said of what they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hookql.errors import ModelError
from hookql.language.pieces import Piece, failed, wrong_result

if TYPE_CHECKING:
    from hookql.extending import OfferedFunction


def guarded(piece: Piece) -> Callable[..., Tensor]:
    """A piece's function, with a look at each result: its shape, its dtype, its inputs untouched.

    The first result of several rows is also compared with those of the first and the last row
    alone, or of one number of each where the function is said to work number by number.
    """
    offered: OfferedFunction = piece.value
    alone: list[bool] = []

    def compute(*values: Tensor, **literals: Any) -> Tensor:
        found = _call(piece, offered, values, literals)
        if not alone and _rows(values) > 1:
            for end in (slice(0, 1), slice(-1, None)):
                given = tuple(_row(value, offered, end) for value in values)
                single = _call(piece, offered, given, literals)
                _same_alone(piece, _row(found, offered, end), single)
            alone.append(True)
        return found

    return compute


def _rows(values: tuple[Tensor, ...]) -> int:
    """How many rows tensors have; 0 of single numbers."""
    return max((len(value) for value in values if value.dim()), default=0)


def _row(values: Tensor, offered: OfferedFunction, end: slice) -> Tensor:
    """A row at one end, or the number at its same end where each is worked out by itself."""
    if not values.dim():
        return values
    by_number = offered.axes == "each" and values.dim() > 1
    return values[end, ..., end] if by_number else values[end]


def _call(
    piece: Piece, offered: OfferedFunction, values: tuple[Tensor, ...], literals: dict[str, Any]
) -> Tensor:
    shapes = [tuple(value.shape) for value in values]
    # The same rows go to others, and a function of someone else's may write into what it is given.
    given = [value.clone() for value in values]
    versions = [None if g.is_inference() else g._version for g in given]
    try:
        found = offered.compute(*given, **literals)
    except MemoryError:
        raise
    except Exception as error:
        if "memory" in str(error).lower() and isinstance(error, RuntimeError):
            raise
        doing = f"on values of shape {' and '.join(map(str, shapes))}"
        raise ModelError(failed(piece, doing, error)) from error
    if versions != [None if g.is_inference() else g._version for g in given]:
        message = "changed the values that it was given"
        raise ModelError(wrong_result(piece, message, ("work on a copy: `x.clone()`",)))
    whole = np.broadcast_shapes(*shapes)
    wanted = whole[:-1] if offered.axes == "last" else whole
    if not isinstance(found, Tensor):
        message = "gave no tensor"
        raise ModelError(wrong_result(piece, message, (f"it gave a `{type(found).__name__}`",)))
    if tuple(found.shape) != wanted:
        message = f"gave numbers of shape {tuple(found.shape)} for {' and '.join(map(str, shapes))}"
        notes = (f'with `axes="{offered.axes}"` they are {wanted}',)
        raise ModelError(wrong_result(piece, message, notes))
    if found.is_complex():
        raise ModelError(wrong_result(piece, "gave complex numbers"))
    return found.detach().double()


def _same_alone(piece: Piece, beside: Tensor, alone: Tensor) -> None:
    """Raise ModelError where a row's result depends on the rows beside it."""
    scale = float(alone.nan_to_num(0, 0, 0).abs().max()) if alone.numel() else 0.0
    if torch.allclose(beside, alone, rtol=1e-4, atol=1e-6 * scale, equal_nan=True):
        return
    message = "gave another result where other rows, or numbers, stood beside"
    notes = (
        "the first axis of what it is given are rows, each to be worked out by itself",
        'one that looks at a whole row says so: `axes="last"` or `axes="along"`',
    )
    raise ModelError(wrong_result(piece, message, notes))
