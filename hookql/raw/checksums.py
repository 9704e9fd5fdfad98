"""Checksums inside a result file: of raw rows block by block, of everything else once."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from hookql.raw.crc import (
    GROUP,
    ROWS,
    attributes,
    crc_of,
    crc_of_json,
    groups,
    item,
    pieces,
    read,
    shifted,
)
from hookql.raw.tables import GROWING, split_column
from hookql.results.foreign import NotReadable, declared_bytes

Key = tuple[str, str, str]  # a group, what kind of thing in it, and its name


def seal(path: Path, raw: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    """Write the checksums of a finished file into it, as group ``_checksums``.

    ``raw``: of each group ("/", "/acts/h") the columns whose checksums are known since they were
    written; all other variables, dimensions and attributes are read back. Nothing may be changed in
    the file afterwards. OSError or RuntimeError where it cannot be written.
    """
    with netCDF4.Dataset(path, "a") as file:
        found = {**dict(_facts(file, raw)), **dict(_given(file, raw))}
        index = json.dumps([[*key, len(sums)] for key, sums in found.items()]).encode()
        crc = np.concatenate([np.zeros(0, "<u4"), *(np.array(s, "<u4") for s in found.values())])
        made = file.createGroup(GROUP)
        made.setncatts({"algorithm": "CRC-32 of the little-endian bytes", "rows": ROWS})
        for name, array in (("index", np.frombuffer(index, np.uint8)), ("crc", crc)):
            made.setncattr(f"{name}_crc", zlib.crc32(array.data))
            made.createDimension(name, len(array))
            variable = made.createVariable(name, array.dtype, (name,), fill_value=False)
            variable[:] = array


def reseal(file: Any) -> None:
    """Have a sealed file's checksum of its root group right again, whose attributes were changed.

    ``file`` is open for writing. ValueError where the checksums are damaged.
    """
    made = file.groups[GROUP]
    expected = sealed(made)
    if expected is None:
        raise ValueError("the checksums are damaged")
    root, sums = next(_facts(file, {}))  # the root group comes first
    expected[root] = sums
    crc = np.concatenate([np.zeros(0, "<u4"), *(np.array(s, "<u4") for s in expected.values())])
    made.variables["crc"][:] = crc
    made.setncattr("crc_crc", zlib.crc32(crc.data))


def damage(path: Path) -> list[str]:
    """What of a file differs from what was written, as sentences; none if it is whole.

    A file without checksums cannot be judged, which is one sentence as well.
    """
    try:
        if path.exists():
            declared_bytes(path, 0)  # a damaged file can send the C library round for ever
        with netCDF4.Dataset(path) as file:
            if GROUP not in file.groups:
                return [f"`{path}` has no checksums, so nobody can tell whether it is whole"]
            return list(_differences(file))
    except NotReadable as error:
        return [f"`{path}` {error}"]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return [f"`{path}` is not a whole NetCDF file: {reason}"]


def _differences(file: Any) -> Iterator[str]:
    expected = sealed(file.groups[GROUP])
    if expected is None:
        yield "the checksums themselves are damaged, so nobody can tell what else is"
        return
    rows: dict[str, list[str]] = {}
    for group, kind, name in expected:
        if kind == "rows":
            rows.setdefault(group, []).append(name)
    for key, sums in _facts(file, rows):
        wanted = expected.pop(key, None)
        if wanted is None:
            yield f"{_named(file, key)} was not there when the file was written"
        elif wanted != sums:
            yield f"{_named(file, key)} differs from what was written"
    for (group, kind, name), wanted in expected.items():
        variable = _variable(file, group, split_column(name)[0] if kind == "rows" else name)
        if kind != "rows" or variable is None:
            yield f"{_named(file, (group, kind, name))} is missing"
        else:
            yield from _rows_that_differ(file, (group, kind, name), variable, wanted)
    yield from _miscounted(file)


def sealed(group: Any) -> dict[Key, list[int]] | None:
    """What `seal` wrote; None where that is damaged itself."""
    index, crc = (read(group.variables[name], ...) for name in ("index", "crc"))
    if [zlib.crc32(index.data), zlib.crc32(crc.data)] != [group.index_crc, group.crc_crc]:
        return None
    entries = json.loads(index.tobytes())
    ends = np.cumsum([count for *_, count in entries], dtype=np.int64).tolist()
    return {
        (group, kind, name): crc[end - count : end].tolist()
        for (group, kind, name, count), end in zip(entries, ends, strict=True)
    }


def _given(
    file: Any, raw: Mapping[str, Mapping[str, Sequence[int]]]
) -> Iterator[tuple[Key, list[int]]]:
    """The checksums of raw columns, taken while they were written; ValueError if some are not."""
    for group, columns in raw.items():
        for name, sums in columns.items():
            variable = _variable(file, group, split_column(name)[0])
            if variable is None or len(sums) != -(-_length(variable) // ROWS):
                raise ValueError(f"{len(sums)} checksums for `{name}` of `{group}`")
            yield (group, "rows", name), list(sums)


def _facts(file: Any, raw: Mapping[str, Iterable[str]]) -> Iterator[tuple[Key, list[int]]]:
    """A checksum of each group and variable, and of the values of those that are not ``raw``."""
    for group in groups(file):
        dimensions = {d.name: [d.size, d.isunlimited()] for d in group.dimensions.values()}
        children = sorted(set(group.groups) - {GROUP})
        yield (group.path, "group", ""), [crc_of_json([dimensions, attributes(group), children])]
        apart = {split_column(name)[0] for name in raw.get(group.path, ())}
        for name, variable in group.variables.items():
            told = [str(variable.dtype), variable.dimensions, variable.shape, attributes(variable)]
            yield (group.path, "variable", name), [crc_of_json(told)]
            if name not in apart:
                keys = pieces(variable.shape, item(variable))
                yield (group.path, "values", name), [crc_of(variable, keys)]


def _rows_that_differ(file: Any, key: Key, variable: Any, wanted: list[int]) -> Iterator[str]:
    """One sentence for each run of blocks of a raw column that differ."""
    _, before = split_column(key[2])
    length, shape = _length(variable), variable.shape[len(before) + 1 :]
    if len(wanted) != -(-length // ROWS):
        yield f"{_named(file, key)} has {length:,} rows, which is not what was written"
        return
    bad = []
    for block, sums in enumerate(wanted):
        first, end = block * ROWS, min((block + 1) * ROWS, length)
        inner = pieces((end - first, *shape), item(variable))
        if crc_of(variable, ((*before, *shifted(piece, first)) for piece in inner)) != sums:
            bad.append(block)
    for _, run in itertools.groupby(enumerate(bad), key=lambda item: item[1] - item[0]):
        blocks = [block for _, block in run]
        first, last = blocks[0] * ROWS, min((blocks[-1] + 1) * ROWS, length) - 1
        yield f"{_named(file, key)}: rows {first:,} to {last:,} differ from what was written"


def _miscounted(file: Any) -> Iterator[str]:
    """Ragged arrays whose samples have not as many rows as there are."""
    for group in groups(file):
        for name, variable in group.variables.items():
            along = attributes(variable).get("sample_dimension")
            if isinstance(along, str) and along in group.dimensions:
                rows, size = int(read(variable, ...).sum()), group.dimensions[along].size
                if rows != size:
                    key = (group.path, "values", name)
                    yield f"{_named(file, key)} adds up to {rows:,}, but there are {size:,} rows"


def _named(file: Any, key: Key) -> str:
    """What a key means, in words; layers by their labels."""
    group, kind, name = key
    place = "" if group == "/" else f" of `{group}`"
    if kind == "group":
        return f"what `{group}` says of itself (attributes, dimensions)"
    if kind == "variable":
        return f"what `{name}`{place} says of itself (attributes, dimensions, type)"
    if kind == "values":
        return f"`{name}`{place}"
    name, before = split_column(name)
    found = _variable(file, group, name)
    if found is None:
        return f"`{name}`{place}"
    labels = "".join(
        f", {dim} {_label(found.group(), dim, number)}"
        for dim, number in zip(found.dimensions, before, strict=False)
    )
    return f"`{name}`{place}{labels}"


def _label(group: Any, dim: str, number: int) -> str:
    """The coordinate of a place along a dimension, or which one it is."""
    found = group.variables.get(dim)
    if found is None or found.shape != (group.dimensions[dim].size,) or found.dtype is str:
        return str(number)
    return str(read(found, number).item())


def _variable(file: Any, group: str, name: str) -> Any | None:
    found = {each.path: each for each in groups(file)}.get(group)
    return None if found is None else found.variables.get(name)


def _length(variable: Any) -> int:
    """How many rows: the length along the growing dimension."""
    (length,) = (
        n for n, d in zip(variable.shape, variable.dimensions, strict=True) if d in GROWING
    )
    return int(length)
