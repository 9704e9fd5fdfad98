"""Groups as dimensions: a flat list of groups becomes the product of its keys' values."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import xarray
from attrs import frozen

from hookql.language.names import KEYS, OFFERED, TEXTS
from hookql.results.attributes import plain_text
from hookql.results.captured import GroupAxis
from hookql.results.spool import PIECE, Spool, check_room, folder_of, mapped

Array = np.ndarray[Any, Any]
IN_MEMORY = 2**31  # bytes of one variable


@frozen(eq=False)
class Product:
    """The product of keys' values, of which G groups occur.

    ``source`` (P,) is the group of each of the P cells, -1 where nothing fell. ``coordinates`` are
    those of the dimensions ``dims``.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    source: Array
    coordinates: Mapping[str, xarray.Variable]

    @property
    def whole(self) -> bool:
        """Whether the cells are the groups, one by one in their order."""
        return bool(np.array_equal(self.source, np.arange(len(self.source))))


def product(
    keys: Sequence[GroupAxis],
    token_text: Callable[[Sequence[int]], list[str]] | None,
    taken: Collection[str] = frozenset(),
) -> Product:
    """The product of keys that are all G long; numbers ascend, texts are in alphabetical order.

    No coordinate beside the keys' own gets a name of ``taken``.
    """
    levels, places = zip(*(_levels(_typed(key)) for key in keys), strict=True)
    shape = tuple(len(values) for values in levels)
    source = np.full(math.prod(shape), -1, np.int64)
    cells = np.ravel_multi_index(places, shape) if source.size else np.empty(0, np.int64)
    source[cells] = np.arange(len(cells))
    if len(cells) != np.count_nonzero(source >= 0):
        raise ValueError(f"two groups have the same {', '.join(key.name for key in keys)}")
    coordinates: dict[str, xarray.Variable] = {}
    used = {*taken, *(key.name for key in keys)}
    for key, values, place in zip(keys, levels, places, strict=True):
        attributes = {"long_name": key.long_name or key.name}
        coordinates[key.name] = xarray.Variable(key.name, _storable(values), attributes)
        if (texts := _texts(key, values, place, token_text)) is not None:
            attributes = {"long_name": f"text of {key.name}"}
            name = _text_name(key.name, used)
            used.add(name)
            coordinates[name] = xarray.Variable(key.name, texts, attributes)
    return Product(tuple(key.name for key in keys), shape, source, coordinates)


def _text_name(key: str, used: Collection[str]) -> str:
    """What the coordinate is called that says what a key's tokens spell: ``token_text``."""
    name = f"{key}_text"
    return next(free for n in count(1) if (free := name if n == 1 else f"{name}_{n}") not in used)


def _typed(key: GroupAxis) -> Array:
    """A key's values; of a column of the data that no row was kept of, text, as nobody knows."""
    values = np.asarray(key.values)
    unknown = not len(values) and values.dtype.kind in "iu" and key.name not in (*KEYS, *OFFERED)
    return values.astype(object) if unknown else values


def _levels(values: Array) -> tuple[Array, Array]:
    """The values that occur, in order, and which of them each group has."""
    values = np.asarray(values)
    if values.dtype.kind not in "OUS":
        levels, places = np.unique(values, return_inverse=True)
        return levels, places.reshape(-1)
    # NumPy's own texts would lose what ends in NUL.
    listed = [str(value) for value in values.tolist()]
    order = {text: number for number, text in enumerate(sorted(set(listed)))}
    texts = np.empty(len(order), object)
    texts[:] = list(order)
    return texts, np.array([order[text] for text in listed], np.int64)


def _storable(values: Array) -> Array:
    """Values as a file can hold them: int64, float64, bool or text without NUL."""
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        return values.astype(np.float64)
    return texts_array([plain_text(text) for text in values.tolist()])


def texts_array(texts: Sequence[str]) -> Array:
    """Texts as an array, also where there are none."""
    return np.array(list(texts), dtype=None if len(texts) else "U1")


def _texts(
    key: GroupAxis,
    values: Array,
    places: Array,
    token_text: Callable[[Sequence[int]], list[str]] | None,
) -> Array | None:
    """What the tokens of a key spell, a text for each of its values; None for other keys."""
    if key.texts is not None:
        first = np.zeros(len(values), np.int64)
        first[places[::-1]] = np.arange(len(places))[::-1]
        return texts_array([plain_text(str(text)) for text in np.asarray(key.texts)[first]])
    if key.name in TEXTS and token_text is not None and values.dtype.kind in "iu":
        return texts_array([plain_text(text) for text in token_text(values.tolist())])
    return None


def assembled(
    arrays: Sequence[Array],
    *,
    layered: bool,
    calls: bool,
    groups: Product | None,
    fill: float | int,
    name: str,
) -> Array:
    """The arrays ([calls,] [G,] ...) of a variable's sites as ([layer,] [call,] [keys,] ...).

    A single array that needs no reordering is passed on as it is. What is memory-mapped, or larger
    than ``IN_MEMORY``, goes through a file on disk, piece by piece. Raises UsageError where that
    has no room.
    """
    first = arrays[0]
    if not layered and len(arrays) != 1:
        raise ValueError(f"{len(arrays)} sites without a layer in one dataset")
    lead = first.shape[: int(calls)]
    behind = first.shape[len(lead) + (groups is not None) :]
    middle = groups.shape if groups is not None else ()
    shape = ((len(arrays),) if layered else ()) + lead + middle + behind
    on_disk = any(mapped(array) is not None for array in arrays)
    # Without copying; but files are written from what lies in one piece.
    in_place = len(arrays) == 1 and (groups is None or groups.whole)
    if in_place and (first.flags.c_contiguous or not on_disk):
        return first.reshape(shape)
    groups_each = first.shape[len(lead)] if groups is not None else 1
    source = groups.source if groups is not None else np.zeros(1, np.int64)
    rows = len(arrays) * math.prod(lead) * len(source)
    size = math.prod(shape) * first.dtype.itemsize
    pieces = (
        piece
        for array in arrays
        for call in array.reshape(math.prod(lead), groups_each, *behind)
        for piece in _pieces(call, source, fill)
    )
    if size > IN_MEMORY or on_disk:
        return _on_disk(arrays, pieces, size, name).reshape(shape)
    whole = np.empty((rows, *behind), first.dtype)
    done = 0
    for piece in pieces:
        whole[done : done + len(piece)] = piece
        done += len(piece)
    return whole.reshape(shape)


def _on_disk(arrays: Sequence[Array], pieces: Iterator[Array], size: int, name: str) -> Array:
    """The pieces as one mapped array, beside the file that the first mapped one came from."""
    folder = next((found for a in arrays if (found := folder_of(a)) is not None), None)
    spool = Spool(folder)
    check_room(spool.folder, size, f"`{name}`")
    for piece in pieces:
        spool.append(piece)
    return spool.close()


def _pieces(groups: Array, source: Array, fill: float | int) -> Iterator[Array]:
    """The groups (G, ...) put into cells, a few megabytes at a time; empty ones hold ``fill``."""
    bytes_each = math.prod(groups.shape[1:]) * groups.dtype.itemsize
    step = max(1, PIECE // max(1, bytes_each))
    for start in range(0, len(source), step):
        wanted = source[start : start + step]
        piece = np.asarray(groups[np.maximum(wanted, 0)])
        piece[wanted < 0] = fill
        yield piece
