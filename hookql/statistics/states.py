"""The tensors of a state, one row for each group: growing, choosing and counting them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hookql.statistics.groups import Groups

Layout = Mapping[str, tuple[Sequence[int], "torch.dtype", float]]


class States:
    """Named tensors (number, ...) and how many rows each group has had; one group if ungrouped.

    Numbers of rows stay on the host, where they are known, and the tensors on the rows' device.
    """

    def __init__(self, grouped: bool) -> None:
        import torch

        self.grouped = grouped
        self.axes: tuple[int, ...] | None = None  # of a row; None until rows came
        self.count = torch.zeros(0 if grouped else 1, dtype=torch.int64)
        self._fills: dict[str, float] = {}
        self._tensors: dict[str, Tensor] = {}  # with room for groups to come

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name][: len(self.count)]

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._tensors[name] = tensor

    def prepare(self, axes: Sequence[int], device: Any, layout: Layout, number: int) -> None:
        """Have tensors of this layout, name to (shape of one, dtype, first value), for ``number``.

        Raises ValueError where the axes are not those so far: broadcasting would join them.
        """
        import torch

        if self.axes is None:
            self.axes = tuple(axes)
            for name, (shape, dtype, fill) in layout.items():
                size = (len(self.count), *shape)
                self._tensors[name] = torch.full(size, fill, dtype=dtype, device=device)
                self._fills[name] = fill
        elif self.axes != tuple(axes):
            raise ValueError(f"rows of axes {tuple(axes)} do not fit axes {self.axes}")
        self.grow(number)

    def rows(self, rows: Tensor, groups: Groups | None, layout: Layout) -> Tensor | None:
        """Prepare for and count rows (n, \\*axes); their groups on their device, if grouped."""
        number = 1 if groups is None else groups.number
        self.prepare(rows.shape[1:], rows.device, layout, number)
        if groups is None:
            self.count[0] += len(rows)
            return None
        self.count[groups.present_on(self.count.device)] += groups.counts_on(self.count.device)
        return groups.on(rows.device)

    def match(self, other: States) -> bool:
        """Be ready to take in another; False where that one has seen no shape yet.

        The caller joins the tensors, whose first len(other.count) groups are the other's.
        """
        self.grow(len(other.count))
        if other.axes is None:
            return False
        layout = {
            name: (tensor.shape[1:], tensor.dtype, other._fills[name])
            for name, tensor in other._tensors.items()
        }
        device = next(iter(other._tensors.values())).device
        self.prepare(other.axes, device, layout, len(other.count))
        return True

    def grow(self, number: int) -> None:
        """Know at least so many groups."""
        import torch

        more = number - len(self.count)
        if more <= 0:
            return
        self.count = torch.cat([self.count, self.count.new_zeros(more)])
        for name, tensor in self._tensors.items():
            if len(tensor) < number:
                # Half as many again, so that growing a group at a time does not copy each time.
                room = tensor.new_full(
                    (len(tensor) // 2 + more, *tensor.shape[1:]), self._fills[name]
                )
                self._tensors[name] = torch.cat([tensor, room])

    def select(self, index: Tensor) -> Self:
        """Copies of those groups alone, int64 (g,)."""
        chosen = self.without({})
        chosen.axes, chosen._fills = self.axes, dict(self._fills)
        chosen.count = self.count[index.to(self.count.device)]
        for name in self._tensors:
            chosen._tensors[name] = self[name][index.to(self[name].device)]
        return chosen

    def without(self, tensors: Mapping[str, Tensor], axis: int | None = None) -> Self:
        """The same groups with other tensors (number, ...), an axis of the rows being gone.

        Each number along that axis counts as one more row.
        """
        made = type(self)(self.grouped)
        made.count = self.count.clone()
        if axis is not None and self.axes is not None:
            made.count *= self.axes[axis]
            made.axes = self.axes[:axis] + self.axes[axis + 1 :]
        made._fills = dict(self._fills)
        made._tensors = dict(tensors)
        return made

    def result(self, tensor: Tensor) -> Tensor:
        """(number, ...) as a statistic hands it over: without the leading axis if ungrouped."""
        return tensor if self.grouped else tensor[0]

    def nothing(self) -> Tensor:
        """NaN for each group, or one, where the axes never became known."""
        import torch

        return self.result(torch.full((len(self.count),), float("nan"), dtype=torch.float64))

    def counts(self, like: Tensor) -> Tensor:
        """The number of rows as float64 (number, 1, ...) beside a tensor (number, ...)."""
        count = self.count.to(like.device).double()
        return count.reshape(-1, *[1] * (like.dim() - 1))

    @property
    def nbytes(self) -> int:
        """The memory that the tensors take."""
        return sum(t.numel() * t.element_size() for t in (self.count, *self._tensors.values()))
