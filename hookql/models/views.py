"""Views: the part of a module's rows that a canonical site means, with heads as an axis.

Families keep queries, keys and values apart, one behind another, or interleaved by head or by
group of heads. Each of these is a reshape, a narrow piece of one axis, and a reshape.
"""

from __future__ import annotations

import math

from attrs import frozen
from torch import Tensor


@frozen
class View:
    """A piece of rows (n, F), or of (n, head, feature), read by head or scaled.

    ``shape`` is how the F features are laid out, ``axis`` the axis of it that is cut, ``start`` and
    ``stop`` what of that axis is kept, ``heads`` how many heads the kept piece holds; 0 where it
    has none. ``scale`` is what the model multiplies the piece by.
    """

    shape: tuple[int, ...]
    axis: int = 0
    start: int = 0
    stop: int = -1  # -1: to the end
    heads: int = 0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """How many numbers a row holds that is read through this view."""
        kept = (self.shape[self.axis] if self.stop < 0 else self.stop) - self.start
        return math.prod(self.shape) // self.shape[self.axis] * kept

    def axes(self, width: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names and sizes of the axes of a row, made from rows of ``width`` numbers.

        Raises:
            ValueError: rows of another width than the view is for.
        """
        if width != math.prod(self.shape):
            raise ValueError(f"a view of {self.shape} cannot read rows of {width}")
        if not self.heads:
            return ("feature",), (self.width,)
        return ("head", "feature"), (self.heads, self.width // self.heads)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (n, F) or (n, head, feature) as (n, heads, d), or (n, d); a view where one exists.

        A scale multiplies in the rows' own dtype, as the model does.
        """
        count = rows.shape[0]
        stop = self.shape[self.axis] if self.stop < 0 else self.stop
        cut = rows.reshape(count, *self.shape).narrow(self.axis + 1, self.start, stop - self.start)
        cut = cut.reshape(count, *self.axes(math.prod(self.shape))[1])
        return cut if self.scale == 1.0 else cut * self.scale
