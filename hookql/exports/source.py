"""The raw values of a result file, opened to be read row by row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hookql.errors import Diagnostic, UsageError
from hookql.exports.faults import reading, unlike
from hookql.exports.samples import samples
from hookql.exports.tables import DTYPES, PLACES, Array, Column, Node, Source
from hookql.exports.watch import Sums, Watch, sealed, watch

CACHE = 2**28  # bytes of chunks kept at most
LABELS = 2**22  # labels of one axis; more are left out


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """A result file with raw values, open for reading.

    Raises UsageError for what is missing, no NetCDF, not HookQL's or without raw values, and
    HookQLError where these do not lie as HookQL writes them.
    """
    import netCDF4

    if not os.path.isfile(path):
        what = f"`{path}` is a folder, not a NetCDF file" if os.path.isdir(path) else None
        code = "not-netcdf" if what else "no-such-file"
        raise UsageError(Diagnostic(code, what or f"there is no file `{path}`"))
    try:
        file = netCDF4.Dataset(path, "r")
    except PermissionError as error:
        message = f"you have no permission to read `{path}`"
        raise UsageError(Diagnostic("cannot-read", message)) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            Diagnostic("not-netcdf", f"`{path}` is not a whole NetCDF file")
        ) from error
    with file:
        with reading(path):
            file.set_auto_maskandscale(False)  # nothing is a fill value
            source = Source(path, tuple(_nodes(path, file)), _attributes(file))
        if "hookql_version" not in source.attributes:
            message = f"`{path}` is a NetCDF file, but not one that HookQL wrote"
            raise UsageError(Diagnostic("not-hookql", message))
        if not source.nodes:
            message = f"`{path}` holds no raw values: none of its captures has `values`"
            advice = "statistics are small: read them with hookql.load or xarray.open_datatree"
            raise UsageError(Diagnostic("nothing-to-export", message, help=advice))
        yield source


def _nodes(path: Path, file: Any) -> Iterator[Node]:
    """The groups with raw values, parents first."""
    sums = sealed(path, file)
    waiting = [file]
    while waiting:
        group = waiting.pop(0)
        waiting += group.groups.values()
        sizes = [v for v in group.variables.values() if "sample_dimension" in v.ncattrs()]
        nodes = [_node(path, sums, group, variable) for variable in sizes]
        found = [node for node in nodes if node is not None]
        if len(found) > 1:
            raise unlike(path, f"{group.path} has several kinds of rows")
        yield from found


def _node(path: Path, sums: Sums, group: Any, sizes: Any) -> Node | None:
    """The raw part of a group whose ``row_size`` is ``sizes``; None if it has places only."""
    obs = str(sizes.getncattr("sample_dimension"))
    along = {
        name: variable
        for name, variable in group.variables.items()
        if obs in variable.dimensions and name != obs
    }
    values = [name for name in along if name not in PLACES]
    if not values:
        return None
    names = [*values, *(name for name in PLACES if name in along)]
    # They become names of files; and `sample` is worked out.
    for name in (*names, *group.path.strip("/").split("/")):
        if name.startswith(".") or set(name) & set("/\\\0") or name == "sample":
            raise unlike(path, f"{group.path} has something called {name!r}")
    columns = tuple(
        _column(watch(path, sums, group, along[name], obs), name, along[name], obs)
        for name in names
    )
    rows = along[values[0]].shape[along[values[0]].dimensions.index(obs)]
    watched = watch(path, sums, group, sizes, sizes.dimensions[0])
    dims = {dim for column in columns for dim in column.dims}
    return Node(
        name=group.path,
        rows=rows,
        samples=sizes.shape[0],
        columns=(*columns, samples(watched, group, sizes, rows)),
        coordinates=_coordinates(group, dims),
        attributes=_attributes_down_to(group),
    )


def _column(watched: Watch, name: str, variable: Any, obs: str) -> Column:
    dtype = variable.dtype.newbyteorder("<").str if isinstance(variable.dtype, np.dtype) else "text"
    at = variable.dimensions.index(obs)
    shape = (*variable.shape[:at], *variable.shape[at + 1 :])
    dims = (*variable.dimensions[:at], *variable.dimensions[at + 1 :])
    if dtype not in DTYPES or 0 in shape or obs in dims:
        raise unlike(watched.path, f"`{name}` has type {dtype} and shape {variable.shape}")
    _keep_chunks(variable, at)

    def read(start: int, stop: int) -> Array:
        with reading(watched.path):
            rows = np.asarray(variable[(slice(None),) * at + (slice(start, stop),)])
        watched.take(start, rows)
        return np.ascontiguousarray(np.moveaxis(rows, at, 0)).astype(dtype, copy=False)

    return Column(name, dtype, dims, shape, read, _attributes(variable))


def _keep_chunks(variable: Any, at: int) -> None:
    """Have room in the cache for the chunks that two slabs share, so that each is read once."""
    chunks = variable.chunking()
    if chunks == "contiguous":
        return
    size = variable.dtype.itemsize * chunks[at]
    for dim, (length, chunk) in enumerate(zip(variable.shape, chunks, strict=True)):
        size *= -(-length // chunk) * chunk if dim != at else 1
    size_now, elements, preemption = variable.get_var_chunk_cache()
    if size_now < 2 * size <= CACHE:
        variable.set_var_chunk_cache(2 * size, elements, preemption)


def _coordinates(group: Any, dims: set[str]) -> dict[str, object]:
    """The labels along the axes of rows, and the modules, which may lie along one or none."""
    found = {}
    for name, variable in group.variables.items():
        inside = set(variable.dimensions) <= dims and len(variable.dimensions) <= 1
        if inside and (name in dims or name == "module") and variable.size <= LABELS:
            found[name] = _plain(np.asarray(variable[...]))
    return found


def _attributes_down_to(group: Any) -> dict[str, object]:
    """The attributes of a group and of those above it, less the root's; nearer ones win."""
    found: dict[str, object] = {}
    while group.parent is not None:
        found = {**_attributes(group), **found}
        group = group.parent
    return found


def _attributes(thing: Any) -> dict[str, object]:
    """What says something about the numbers, and not about the file that they are in."""
    names = [name for name in thing.ncattrs() if name not in ("_FillValue", "coordinates")]
    return {name: _plain(thing.getncattr(name)) for name in names}


def _plain(value: object) -> object:
    """A value as JSON has it: a text, a finite number, or a list of such."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int) or _finite(value) else str(value)


def _finite(value: object) -> bool:
    return isinstance(value, float) and bool(np.isfinite(value))
