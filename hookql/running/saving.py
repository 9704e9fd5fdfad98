"""After the run: results into files, and raw rows read from them as they are looked at."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import netCDF4
import xarray

from hookql.data.tokens import Skipped
from hookql.engines.outcome import Generated
from hookql.plan import Plan
from hookql.raw.survey import Survey
from hookql.results.attributes import clean
from hookql.results.captured import CaptureResult
from hookql.results.dataset import has_raw
from hookql.results.netcdf import LARGE, open_lazily
from hookql.results.outputs import Outputs
from hookql.results.rows import raw_variables
from hookql.results.tree import Node, build_tree, nodes
from hookql.running.disk import Written

_SCRATCH: set[Path] = set()  # folders that are removed when the process ends


def save_all(
    results: Sequence[CaptureResult],
    attributes: Mapping[str, str | int | float],
    skipped: Sequence[Skipped],
    outputs: Outputs,
    written: Written,
    interrupted: str | None,
    token: str | None = None,
    generated: Sequence[Generated] = (),
) -> tuple[xarray.DataTree, tuple[Path, ...]]:
    """Write every file; the whole tree, and the paths written.

    What a run has that was ``interrupted``, which says when, goes into files of other names, which
    nobody takes for the whole.
    """
    begun = dict(written.files)
    if interrupted:
        attributes = {**attributes, "interrupted": interrupted}
        names = {path: partial_name(path) for path in outputs.members(results)}
        begun = {names[path]: file for path, file in begun.items()}
        outputs = outputs.renamed(names)
    files = outputs.write(results, attributes, skipped, begun, token, generated)
    tree = build_tree(results, attributes, skipped, generated)
    return tree if interrupted else _with_rows(tree, results, outputs), files


def partial_name(path: Path) -> Path:
    """``acts.partial.nc`` for ``acts.nc``, with a number where there is one already."""
    names = (f"{path.stem}.partial{f'-{n}' if n > 1 else ''}{path.suffix}" for n in count(1))
    return next(free for name in names if not os.path.lexists(free := path.with_name(name)))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for rows that nobody gave a file; it stays while a large result reads from it."""
    folder = Path(tempfile.mkdtemp(prefix="hookql-"))
    if not _SCRATCH:
        atexit.register(_clear)
    _SCRATCH.add(folder)
    try:
        yield folder
    finally:
        if not any(path.stat().st_size > LARGE for path in folder.glob("*.nc")):
            shutil.rmtree(folder, ignore_errors=True)
            _SCRATCH.discard(folder)


def written_by(plan: Plan, survey: Survey | None, path: Path) -> bool:
    """Whether a file is of this query and these data: an ended run may have left it."""
    try:
        with netCDF4.Dataset(path) as file:
            said = {name: file.getncattr(name) for name in file.ncattrs()}
    except (OSError, RuntimeError, ValueError):
        return False
    same = said.get("query_canonical") == clean({"": plan.query.canonical})[""]
    return same and survey is not None and said.get("data_fingerprint") == survey.fingerprint


def _clear() -> None:
    for folder in _SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)


def _with_rows(
    tree: xarray.DataTree, results: Sequence[CaptureResult], outputs: Outputs
) -> xarray.DataTree:
    """The tree with the raw rows of its files in it, of a large one read as they are used."""
    if not any(map(has_raw, results)):
        return tree
    places = {_key(node): node.path for node in nodes(results)}
    for path, members in outputs.members(results).items():
        if not any(map(has_raw, members)):
            continue
        file = open_lazily(path)
        for node in nodes(members):
            if has_raw(node.capture):
                mine = _node(tree, places[_key(node)])
                rows = _node(file, node.path).to_dataset(inherit=False)
                data = mine.to_dataset(inherit=False)
                labels = [str(name) for name, at in data.coords.items() if "obs" in at.dims]
                names = [*raw_variables(data), *labels]
                mine.dataset = data.assign({name: rows[name] for name in names})
    return tree


def _node(tree: xarray.DataTree, path: str) -> xarray.DataTree:
    found = tree[path]
    assert isinstance(found, xarray.DataTree)
    return found


def _key(node: Node) -> tuple[str, str, str]:
    site = node.sites[0]
    return node.capture.name, site.role, str(site.module)
