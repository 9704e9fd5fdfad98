"""A result file looked into by a process of its own, which says what rows there are.

The library behind NetCDF was not written for hostile files (results/foreign.py says more), and
crashes where one and the same file is opened again and again while somebody has it open, as whoever
looks at a result with xarray has. So the process that trains does not open it, if it can help it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from attrs import asdict

from hookql.errors import DataError, Diagnostic, HookQLError, UsageError
from hookql.results.foreign import NotReadable, declared_bytes
from hookql.results.netcdf import LARGE
from hookql.training.finding import Choice, find
from hookql.training.library import command
from hookql.training.rows import Column, Rows

_ERRORS = {kind.__name__: kind for kind in (HookQLError, UsageError, DataError)}


def look(path: Path, choice: Choice, labels: bool) -> Rows:
    """The rows of a file that are asked for, and with ``labels`` where they are from.

    Raises what `find` raises, and UsageError for a file that the library cannot read.
    """
    if path.is_file():
        try:
            declared_bytes(path, LARGE)
        except NotReadable as error:
            raise _foreign(path, str(error)) from None
    asked = json.dumps([str(path), asdict(choice), labels])
    done = subprocess.run(
        command("hookql.training.looking", asked),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise _foreign(path, "makes the NetCDF library crash") from None
    if "error" in said:
        found = [Diagnostic(**{**d, "notes": tuple(d["notes"])}) for d in said["diagnostics"]]
        raise _ERRORS[said["error"]](found)
    return _rows(said)


def _foreign(path: Path, what: str) -> UsageError:
    return UsageError(Diagnostic("not-netcdf", f"`{path}` {what}"))


def _rows(said: dict[str, Any]) -> Rows:
    """A description as JSON made one again."""
    lists = ("dims", "shape", "layers", "samples", "stamp")
    tuples = {name: None if said[name] is None else tuple(said[name]) for name in lists}
    columns = {
        name: Column(**{**column, "shape": tuple(column["shape"])})
        for name, column in said["columns"].items()
    }
    return Rows(**{**said, **tuples, "columns": columns, "path": Path(said["path"])})


def main(asked: str) -> None:
    """What the process does: prints a description, or what is wrong, as JSON."""
    path, choice, labels = json.loads(asked)
    layer = choice["layer"]
    choice["layer"] = tuple(layer) if isinstance(layer, list) else layer
    try:
        found = asdict(find(Path(path), Choice(**choice), labels))
        said = {**found, "path": path}
    except HookQLError as error:
        kind = next(name for name, each in _ERRORS.items() if type(error) is each)
        shown = ("code", "message", "help", "notes")
        told = [{name: getattr(d, name) for name in shown} for d in error.diagnostics]
        said = {"error": kind, "diagnostics": told}
    print(json.dumps(said))
