"""The rows of a site's tensor that stand for tokens, without padding."""

from __future__ import annotations

import torch
from torch import Tensor

from hookql.attached.detector import Call


class Unfit(Exception):
    """A call of which a ready-made detector can make nothing; becomes its `detector-failed`."""

    def __init__(self, reason: str, help: str | None = None) -> None:
        super().__init__(reason)
        self.help = help


def same_axes(rows: Tensor, known: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes of these rows, which must be those known so far. Raises Unfit for others."""
    axes = tuple(rows.shape[1:])
    if known is not None and axes != known:
        raise Unfit(f"rows of shape {axes} came after rows of shape {known}")
    return axes


def token_rows(call: Call) -> Tensor:
    """The rows (n, \\*axes) of a call's tensor, one for each token that is no padding, detached.

    The first two axes must be (samples, positions). Of a model that takes no tokens the first axis
    is the samples, and each is a row. Raises Unfit where the rows cannot be told.
    """
    tensor, mask = call.tensor.detach(), call.mask
    if call.point.side == "pattern":
        raise _no_rows("attention weights have no row for each token")
    if mask is None:
        if call.tokens.unclear is not None:
            raise _no_rows(f"what is padding is not known: {call.tokens.unclear}")
        if tensor.ndim < 1:
            raise _no_rows("it is a single number")
        return tensor
    if tuple(tensor.shape[:2]) == tuple(mask.shape):
        return tensor[mask.to(tensor.device)]
    # Tokens one behind another: in whatever order, as long as all of them are meant.
    if tensor.ndim > 1 and tensor.shape[0] == mask.numel() and bool(mask.all()):
        return tensor
    shapes = f"{tuple(tensor.shape)}, and the tokens are {tuple(mask.shape)}"
    raise _no_rows(f"its first axes are not (samples, positions): it is {shapes}")


def reducible(rows: Tensor) -> Tensor:
    """Rows in a dtype that holds them exactly and can be summed: float32, else float64."""
    if rows.dtype in (torch.float32, torch.float64):
        return rows
    small = rows.dtype in (torch.bfloat16, torch.float16)
    return rows.to(torch.float32 if small else torch.float64)


def _no_rows(reason: str) -> Unfit:
    return Unfit(f"the tensor has no rows of tokens: {reason}")
