"""Kept rows read back: those of a batch, by the places in the data that they are of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from hookql.detectors import Place
from hookql.errors import Diagnostic
from hookql.raw.ragged import ALONE
from hookql.selection import SPAN, Scene
from hookql.stored.described import Values, exact

Ints = npt.NDArray[np.int64]


class NotAsKept(Exception):
    """Kept rows are not what their answer says of them: the model has to run."""


def not_as_kept(error: NotAsKept) -> Diagnostic:
    """The warning about values that were found out while they were read."""
    message = f"stored values are damaged: {error}"
    help = "the model ran in their place"
    return Diagnostic("damaged-store", message, help=help, severity="warning")


@frozen(eq=False)
class _Table:
    """The labels of the rows of one node: their places in the data, in order, and their tokens."""

    order: Ints
    tokens: Ints


class Rows:
    """The rows of several places, read a batch at a time; closed with its stack."""

    def __init__(
        self,
        values: Mapping[Place, tuple[Path, Values]],
        viewed: frozenset[Place],
        width: int,
        device: torch.device,
        stack: contextlib.ExitStack,
    ) -> None:
        """``width`` is what a chunk's positions are counted in, as of an Outcome.

        Raises NotAsKept where a file does not hold what is said of it.
        """
        self.viewed = viewed
        self._device = device
        self._tables: dict[tuple[Path, str], _Table] = {}
        self._sources: dict[Place, tuple[tuple[Path, str], Any, Values]] = {}
        self._found: tuple[Scene, dict[tuple[Path, str], Ints]] | None = None
        files: dict[Path, Any] = {}
        with _reading():
            for place, (path, each) in values.items():
                if path not in files:
                    files[path] = netCDF4.Dataset(path)
                    stack.callback(_close, files[path])
                    files[path].set_auto_maskandscale(False)
                node = files[path] if each.group == "/" else files[path][each.group]
                table = path, each.group
                if table not in self._tables:
                    self._tables[table] = _labels(node, width)
                variable = node.variables[each.variable]
                leading = 0 if each.layer is None else 1
                rows = len(self._tables[table].order)
                if not np.can_cast(exact(each.seen.dtype), variable.dtype):
                    raise NotAsKept(f"`{each.variable}` is {variable.dtype}")
                if variable.shape[leading:] != (rows, *each.shape):
                    raise NotAsKept(f"`{each.variable}` has the shape {variable.shape}")
                self._sources[place] = table, variable, each

    def __call__(self, place: Place, scene: Scene, wanted: Ints) -> Tensor:
        """The rows (B * S, *axes) of a place, in the dtype that the model gave them; 0 elsewhere.

        Raises NotAsKept where a wanted row is not there.
        """
        table, variable, each = self._sources[place]
        places = self._places(table, scene)[wanted]
        if len(places) and places.min() < 0:
            raise NotAsKept(f"a row of `{place}` is missing")
        size = len(scene.order)
        if not len(places):
            made = np.zeros((size, *each.shape), variable.dtype)
        else:
            first, last = int(places.min()), int(places.max()) + 1
            with _reading():
                part = slice(first, last)
                read = variable[part] if each.layer is None else variable[each.layer, part]
            if len(places) == last - first == size:
                made = read
            else:
                made = np.zeros((size, *each.shape), read.dtype)
                made[wanted] = read if len(places) == last - first else read[places - first]
        return self._as_given(torch.from_numpy(made), each)

    def _as_given(self, rows: Tensor, each: Values) -> Tensor:
        dtype = each.seen.dtype
        given = rows.to(dtype)
        if dtype != rows.dtype and not torch.equal(
            given.to(rows.dtype).nan_to_num(0.0), rows.nan_to_num(0.0)
        ):
            raise NotAsKept(f"`{each.place}` has rows that are no {dtype}")
        return given.to(self._device)

    def _places(self, table: tuple[Path, str], scene: Scene) -> Ints:
        """Which row of a table is each token's of a batch, int64 (B * S,); -1: none."""
        if self._found is None or self._found[0] is not scene:
            self._found = scene, {}
        known = self._found[1]
        if table not in known:
            labels = self._tables[table]
            index = np.searchsorted(labels.order, scene.order)
            index = np.minimum(index, max(0, len(labels.order) - 1))
            here = scene.batch.rows.reshape(-1).copy()
            if len(labels.order):
                here &= labels.order[index] == scene.order
                if (labels.tokens[index] != scene.tokens)[here].any():
                    raise NotAsKept("its tokens are others")
            else:
                here[:] = False
            known[table] = np.where(here, index, -1)
        return known[table]


def _close(file: Any) -> None:
    with ALONE:
        file.close()


def _labels(node: Any, width: int) -> _Table:
    """The labels of a node's rows. Raises NotAsKept unless each place stands there once."""
    of = {n: node.variables[n][:].astype(np.int64) for n in ("position", "chunk", "token_id")}
    sizes = node.variables["row_size"][:].astype(np.int64)
    sample = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    if len(sample) != len(of["position"]):
        raise NotAsKept("its samples have other sizes")
    order = sample * SPAN + of["chunk"] * width + of["position"]
    if (np.diff(order) <= 0).any():
        raise NotAsKept("its rows are not in order")
    return _Table(order, of["token_id"])


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Whatever goes wrong while a file is read means that it is not what it should be.

    Another thread may be writing rows: the C library bears one at a time.
    """
    try:
        with ALONE:
            yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise NotAsKept(f"it cannot be read: {error}") from error
