"""Mean and squared deviations of one block of rows: fast in float32, exact where that fails.

Float32 rows on a CPU are shifted by a value near their mean before anything is squared, so that a
large mean does not swallow a small spread. Three things can still go wrong in float32: numbers
that are not finite, squares that overflow or underflow, and a shift that is far from the mean.
Each shows in the sums themselves, and those columns alone are done again in float64. Elsewhere (on
a GPU looking at a value would make the host wait) everything is float64 from the start.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# The rows of a block are taken in pieces of about so many numbers: 2 MB in float32, which stay in
# the cache through the four passes.
PIECE = 1 << 19
# Each thread's place for a piece's deviations: memory of this size asked for anew in every call
# would be given back to the system and zeroed again by it each time.
_OWN = threading.local()
# Below this mean square, float32 squares (down to 1e-38) may have lost what they should count.
FAINT = 1e-30


def moments(x: Tensor, order: int, shift: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Mean and, if order is 2, sum of squared deviations of each column of x (n, columns), n > 0.

    ``shift``, float64 (columns,), is a guess of the mean; without one the mean itself is used.
    Both results are float64 (columns,) on the device of x.
    """
    import torch

    if x.dtype != torch.float32 or x.device.type != "cpu":
        return exact_moments(x, order)
    n, x = len(x), x.detach()
    start = x.mean(0) if shift is None else shift.float()
    s1 = s2 = torch.zeros(1, dtype=torch.float64)  # of one dimension, or float32 would win
    for piece in pieces(x):
        r = torch.sub(piece, start, out=_scratch(piece))
        s1 = s1 + r.sum(0)
        if order > 1:
            s2 = s2 + r.mul_(r).sum(0)
    mean = (s1 / n).add_(start)
    m2: Tensor | None = None
    if order > 1:
        # What the shift's distance from the mean adds must be the lesser part, or digits cancel.
        between = (s1 * s1).div_(n)
        good = (s2 >= between * 2) & (s2 >= FAINT * n) & (s2 < float("inf"))
        m2 = s2 - between
    else:
        good = mean - mean == 0  # which is false where it is not finite
    if not good.all():
        # Constant columns, such as dead features, look faint but are right.
        good |= (s1 == 0) & (s2 == 0) & (x.amax(0) == x.amin(0)) if order > 1 else False
        columns = (~good).nonzero().squeeze(1)
        if len(columns):
            mean[columns], again = exact_moments(x[:, columns], order)
            if m2 is not None and again is not None:
                m2[columns] = again
    return mean, m2


def _scratch(piece: Tensor) -> Tensor:
    """Uninitialised float32 memory of a piece's shape, this thread's own, valid until the next."""
    import torch

    buffer: Tensor | None = getattr(_OWN, "buffer", None)
    if buffer is None or buffer.numel() < piece.numel():
        buffer = _OWN.buffer = torch.empty(max(PIECE, piece.numel()), dtype=torch.float32)
    return buffer[: piece.numel()].view(piece.shape)


def exact_moments(x: Tensor, order: int) -> tuple[Tensor, Tensor | None]:
    """The same in float64 and in two passes, without looking at any value."""
    import torch

    mean = x.sum(0, dtype=torch.float64) / len(x)
    if order < 2:
        return mean, None
    m2 = torch.zeros_like(mean)
    for piece in pieces(x):
        m2 += (piece - mean).square().sum(0)
    return mean, m2


def squares(x: Tensor) -> Tensor:
    """The sum of squares of each column of x (n, columns), n > 0: float64 (columns,)."""
    import torch

    if x.dtype != torch.float32 or x.device.type != "cpu":
        return exact_squares(x)
    mean, m2 = moments(x, 2)
    assert m2 is not None
    total = m2 + mean.square() * len(x)
    good = total.isfinite()
    if not good.all():
        # An infinity's deviation is NaN, but its square is infinite.
        columns = (~good).nonzero().squeeze(1)
        total[columns] = exact_squares(x[:, columns])
    return total


def exact_squares(x: Tensor) -> Tensor:
    """The same in float64 and directly, without looking at any value."""
    import torch

    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for piece in pieces(x):
        total += piece.double().square().sum(0)
    return total


def pieces(x: Tensor) -> list[Tensor]:
    """The rows of x (n, columns) in runs of about PIECE numbers, as views."""
    step = max(1, PIECE // max(1, x.shape[1]))
    return [x[start : start + step] for start in range(0, len(x), step)]


def columns_of(rows: Tensor) -> Tensor:
    """Rows (n, \\*axes) as (n, columns); a view where the layout allows."""
    return rows.reshape(rows.shape[0], rows.shape[1:].numel())


def nan_like(state: Tensor | None) -> Tensor:
    """NaN in the shape of a state; one NaN where the shape never became known."""
    import torch

    if state is None:
        return torch.tensor(float("nan"), dtype=torch.float64)
    return torch.full_like(state, float("nan"), dtype=torch.float64)


def check_axes(mine: Tensor | None, theirs: Sequence[int]) -> None:
    """Refuse to join a state with one of other axes, which broadcasting would do silently."""
    if mine is not None and tuple(mine.shape) != tuple(theirs):
        raise ValueError(f"rows of axes {tuple(theirs)} do not fit axes {tuple(mine.shape)}")
