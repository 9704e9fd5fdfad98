"""Output files: which captures go where, checked before the model runs, written after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray
from attrs import frozen

from hookql.errors import Diagnostic, UsageError
from hookql.language.query import Query
from hookql.results.captured import CaptureResult
from hookql.results.netcdf import check_target, save
from hookql.results.tree import build_tree


@frozen(eq=False)
class Outputs:
    """The main file, if any, and the `into` file of each capture, if it has one."""

    main: Path | None
    into: tuple[Path | None, ...]
    overwrite: bool

    def write(
        self,
        results: Sequence[CaptureResult],
        attributes: Mapping[str, str | int | float],
        remaining: xarray.DataTree | None,
    ) -> tuple[Path, ...]:
        """Write every file, each whole or not at all; the paths written."""
        files: dict[Path, list[CaptureResult]] = {}
        for result, path in zip(results, self.into, strict=True):
            if path is not None:
                files.setdefault(path, []).append(result)
        trees = {path: build_tree(members, attributes) for path, members in files.items()}
        if self.main is not None and remaining is not None:
            trees[self.main] = remaining
        for path, tree in trees.items():
            save(tree, path, overwrite=self.overwrite)
        return tuple(trees)


def plan_outputs(query: Query, main: Path | None, overwrite: bool) -> Outputs:
    """Where the captures will go; `into` files lie beside the main one.

    Raises UsageError for a file that exists (without overwrite), cannot be written or does not
    end in `.nc`, and where an `into` names the main file.
    """
    # What `into` names was looked at with the query.
    if main is not None and main.suffix != ".nc" and not main.is_dir():
        message = f"the output `{main}` does not end in `.nc`: results are NetCDF files"
        advice = f"write `{main.with_suffix('.nc')}`"
        raise UsageError(Diagnostic("bad-file", message, help=advice))
    folder = main.parent if main is not None else Path()
    into = tuple(None if c.into is None else folder / c.into for c in query.captures)
    if main is not None and main in into:
        message = f"`into` and the output both name `{main}`"
        raise UsageError(Diagnostic("same-output", message, help="give one of them another name"))
    outputs = Outputs(main, into, overwrite)
    needs_main = main is not None and None in into
    for path in {*(p for p in into if p), *([main] if main is not None and needs_main else [])}:
        check_target(path, overwrite=overwrite)
    return outputs
