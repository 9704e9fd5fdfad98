"""Sums over one block of rows: fast in float32, in float64 where that fails.

Rows are shifted by a value near their mean before anything is squared, so that a large mean does
not swallow a small spread. On a CPU float32 rows are summed in float32. Three things can go wrong
there: numbers that are not finite, squares that overflow or underflow, and a shift that is far from
the mean. Each shows in the sums themselves, and those columns alone are done again in float64.
Elsewhere (on a GPU looking at a value would make the host wait) everything is float64.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The rows of a block are taken in pieces of about so many numbers: 2 MB in float32, which stay in
# the cache through the passes.
PIECE = 1 << 19
# Memory for more numbers than these is not kept for the next time.
KEPT = 1 << 23
# Each thread's memory for deviations: asked for anew in every call it would be given back to the
# system and zeroed again by it each time.
_OWN = threading.local()
# Below this mean square, float32 squares (down to 1e-38) may have lost what they should count.
FAINT = 1e-30
# So few rows say little about their own spread, and cost nothing in float64.
FEW = 4


def shift_for(x: Tensor) -> Tensor:
    """A value near the mean of each column of x (n, columns), n > 0, in the sums' precision.

    Exactly the column's value where it is constant, and always finite.
    """
    import torch

    exact = x.dtype != torch.float32 or x.device.type != "cpu"
    x = x.double() if exact else x
    mean = x.mean(0)
    constant = (mean - x[0]).abs() <= x[0].abs() * (1e-14 if exact else 1e-6)
    return torch.where(constant, x[0], mean).nan_to_num_(0.0, 0.0, 0.0)


def anchored(rows: Tensor) -> Tensor:
    """Rows to shift others by, float64; 0 where a number is not finite or near overflow.

    A column that is constant has deviations from its own row of exactly 0, and so have blocks of
    it from each other: no rounding is mistaken for a spread.
    """
    rows = rows.double()
    return rows.where(rows.abs() < 1e307, 0.0)


def mean_along(x: Tensor, axis: int) -> Tensor:
    """The mean along an axis, float64; of equal numbers exactly that number."""
    if not x.shape[axis]:
        return x.mean(axis)
    at = anchored(x.select(axis, 0))
    return at + (x - at.unsqueeze(axis)).mean(axis)


@frozen(eq=False)
class Left:
    """Rows of a block that do not count: few, so that adding up zeros costs less than a copy.

    ``dropped`` and ``kept`` are all its rows between them, int64, each in order, on the CPU.
    """

    dropped: Tensor
    kept: Tensor


@frozen(eq=False)
class SoFar:
    """What other blocks came to, float64 (columns,): by the same shift, and before it.

    ``settled`` rows before it had ``m2``, their sum of squared deviations from their own mean.
    """

    rows: int
    s1: Tensor | None
    s2: Tensor | None
    settled: int
    m2: Tensor | None


def shifted_sums(
    x: Tensor, shift: Tensor, order: int, before: SoFar | None = None, left: Left | None = None
) -> tuple[Tensor, Tensor | None, bool]:
    """Sums of (x - shift) and, if order is 2, of its squares, down the columns of x (n, columns).

    The third result is whether all of x is known to be finite, for which no GPU is asked. ``shift``
    (columns,) is float32 where x is and stands on a CPU, and float64 elsewhere. What is wanted is
    exact beside what was ``before``, which these sums will be added to.
    """
    n = len(x) if left is None else len(left.kept)
    if not x.shape[1] or n <= FEW or not is_quick(x):
        s1, s2 = _exact_sums(_kept(x, left), shift, order)
        return s1, s2, x.device.type == "cpu" and bool(s1.isfinite().all())
    s1, s2 = _sums(x, shift, order, left)
    if s2 is None:
        if math.isfinite(float(s1.sum())):
            return s1, None, True
        bad = ~s1.isfinite()
    else:
        spread, faint = _spread(s1, s2, n, before)
        low, high = spread.aminmax()
        if float(low) >= faint and float(high) < math.inf:
            return s1, s2, True
        good = (spread >= faint) & (spread < math.inf)
        if before is not None:  # a column that an earlier block has spoilt
            spread, faint = _spread(s1, s2, n, None)
            good |= (spread >= faint) & (spread < math.inf)
        bad = ~good
    columns = bad.nonzero().squeeze(1)
    wrong = _kept(x[:, columns], left)
    if s2 is not None:
        # Constant columns, such as dead features, look faint but are right.
        at = shift[columns]
        moving = (wrong.amax(0) != at) | (wrong.amin(0) != at)
        columns, wrong = columns[moving], wrong[:, moving]
    if not len(columns):
        return s1, s2, True
    again, squares_again = _exact_sums(wrong, shift[columns], order)
    s1 = s1.double().index_copy_(0, columns, again)
    if s2 is not None and squares_again is not None:
        s2 = s2.double().index_copy_(0, columns, squares_again)
    return s1, s2, bool(again.isfinite().all())


def is_quick(x: Tensor) -> bool:
    """Whether rows are summed in float32: their own dtype, on a CPU."""
    import torch

    return x.dtype == torch.float32 and x.is_cpu


def _spread(s1: Tensor, s2: Tensor, n: int, before: SoFar | None) -> tuple[Tensor, float]:
    """What tells whether float32 squares will do, for each column, and what it must reach.

    The squares' rounding must be small beside the squared deviations from the mean of all rows so
    far, which further rows can only add to: the shift's distance from the mean must be the lesser
    part. That is so where this is not negative, which a block of few rows, whose own mean lies far
    from the mean of all, would seldom be by itself.
    """
    import torch

    if before is None or before.s1 is None or before.s2 is None:
        before_m2 = None if before is None else before.m2
    else:
        n, before_m2 = n + before.rows, before.m2
        s1, s2 = before.s1 + s1, before.s2 + s2
    if before_m2 is not None:
        assert before is not None
        s2 = torch.add(s2, before_m2, alpha=2)
    settled = 0 if before is None else before.settled
    return torch.addcmul(s2, s1, s1, value=-2 / n), FAINT * (n + settled)


def _kept(x: Tensor, left: Left | None) -> Tensor:
    return x if left is None else x.index_select(0, left.kept)


def _sums(
    x: Tensor, shift: Tensor, order: int, left: Left | None = None
) -> tuple[Tensor, Tensor | None]:
    import torch

    s1: Tensor | None = None
    s2: Tensor | None = None
    start = 0
    for piece in pieces(x):
        r = torch.sub(piece, shift, out=scratch(piece, piece.dtype))
        if left is not None and (dropped := _within(left.dropped, start, len(piece))) is not None:
            r.index_fill_(0, dropped, 0.0)
        start += len(piece)
        sum1 = r.sum(0)
        sum2 = r.mul_(r).sum(0) if order > 1 else None
        # A block of several pieces is added up in float64.
        s1 = sum1 if s1 is None else s1.double() + sum1
        if sum2 is not None:
            s2 = sum2 if s2 is None else s2.double() + sum2
    assert s1 is not None
    return s1, s2


def _within(rows: Tensor, start: int, count: int) -> Tensor | None:
    """Those of the rows, in order, that lie in a piece, counted from its start; None for none."""
    numbers = rows.numpy()
    first, last = numbers.searchsorted([start, start + count])
    if first == last:
        return None
    found = rows[first:last]
    return found - start if start else found


def _exact_sums(x: Tensor, shift: Tensor, order: int) -> tuple[Tensor, Tensor | None]:
    """The same in float64, without looking at any value."""
    import torch

    s1 = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    s2 = torch.zeros_like(s1) if order > 1 else None
    for piece in pieces(x):
        r = piece.double() - shift
        s1 += r.sum(0)
        if s2 is not None:
            s2 += r.square_().sum(0)
    return s1, s2


def squares(x: Tensor) -> Tensor:
    """The sum of squares of each column of x (n, columns), n > 0: float64 (columns,)."""
    import torch

    zero = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return _squares(_exact_sums(x, zero, 2))
    shift = shift_for(x)
    s1, s2, _ = shifted_sums(x, shift, 2)
    at = shift.double()
    total = _squares((s1, s2)) + at * 2 * s1 + at.square() * len(x)
    bad = ~total.isfinite()
    if bad.any():
        # An infinity's deviation is NaN, but its square is infinite.
        columns = bad.nonzero().squeeze(1)
        total[columns] = _squares(_exact_sums(x[:, columns], zero[columns], 2))
    return total


def _squares(sums: tuple[Tensor, Tensor | None]) -> Tensor:
    assert sums[1] is not None
    return sums[1].double()


def scratch(like: Tensor, dtype: torch.dtype, name: str = "") -> Tensor:
    """Uninitialised memory of a shape on the CPU, this thread's own.

    It is valid until the next call with that dtype and name.
    """
    return kept_memory(like.shape, dtype, name)


def kept_memory(shape: Sequence[int], dtype: torch.dtype, name: str) -> Tensor:
    """The same for a shape: memory as large as the largest so far is kept, up to ``KEPT``."""
    import torch

    numbers = math.prod(shape)
    if numbers > KEPT:
        return torch.empty(shape, dtype=dtype)
    buffers: dict[object, Tensor] = _OWN.__dict__.setdefault("buffers", {})
    buffer = buffers.get((name, dtype))
    if buffer is None or buffer.numel() < numbers:
        buffer = buffers[name, dtype] = torch.empty(max(PIECE, numbers), dtype=dtype)
    return buffer[:numbers].view(shape)


def pieces(x: Tensor) -> list[Tensor]:
    """The rows of x (n, columns) in runs of about PIECE numbers, as views."""
    step = max(1, PIECE // max(1, x.shape[1]))
    return [x] if len(x) <= step else [x[start : start + step] for start in range(0, len(x), step)]


def columns_of(rows: Tensor) -> Tensor:
    """Rows (n, \\*axes) as (n, columns); a view where the layout allows."""
    return rows.reshape(rows.shape[0], rows.shape[1:].numel())


def nan_like(state: Tensor | None) -> Tensor:
    """NaN in the shape of a state; one NaN where the shape never became known."""
    import torch

    if state is None:
        return torch.tensor(float("nan"), dtype=torch.float64)
    return torch.full_like(state, float("nan"), dtype=torch.float64)
