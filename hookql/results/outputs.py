"""Output files: which captures go where, checked before the model runs, written after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from hookql.data.tokens import Skipped
from hookql.engines.outcome import Generated
from hookql.errors import Diagnostic, UsageError
from hookql.language.query import Query
from hookql.raw.files import Begun
from hookql.results.captured import CaptureResult
from hookql.results.netcdf import check_target, save
from hookql.results.tree import build_tree


@frozen(eq=False)
class Outputs:
    """The main file, if any, and the `into` file of each capture, if it has one."""

    main: Path | None
    into: tuple[Path | None, ...]
    overwrite: bool

    def check(self, mine: Callable[[Path], bool] | None = None) -> None:
        """Raise UsageError unless each file could be written, or is there already and ``mine``."""
        needs_main = self.main is not None and None in self.into
        wanted = {path for path in self.into if path is not None}
        wanted |= {self.main} if self.main is not None and needs_main else set()
        for path in wanted:
            ours = mine is not None and path.exists() and mine(path)
            check_target(path, overwrite=self.overwrite or ours)

    @property
    def has_all(self) -> bool:
        """Whether every capture has a file."""
        return self.main is not None or None not in self.into

    def write(
        self,
        results: Sequence[CaptureResult],
        attributes: Mapping[str, str | int | float],
        skipped: Sequence[Skipped],
        begun: Mapping[Path, Begun],
        token: str | None = None,
        generated: Sequence[Generated] = (),
    ) -> tuple[Path, ...]:
        """Write every file, each whole or not at all; the paths written, the main one last.

        ``begun`` are files that have their raw rows already; ``token`` as of `temporary_beside`.
        """
        members = self.members(results)
        for path in (ordered := sorted(members, key=lambda path: path == self.main)):
            tree = build_tree(members[path], attributes, skipped, generated)
            save(tree, path, self.overwrite, begun.get(path), token)
        return tuple(ordered)

    def renamed(self, names: Mapping[Path, Path]) -> Outputs:
        """The same outputs under other names, where nothing is."""
        into = tuple(None if path is None else names[path] for path in self.into)
        main = None if self.main is None else names.get(self.main, self.main)
        return Outputs(main, into, overwrite=False)

    def members(self, results: Sequence[CaptureResult]) -> dict[Path, list[CaptureResult]]:
        """What goes into each file."""
        files: dict[Path, list[CaptureResult]] = {}
        for result, into in zip(results, self.into, strict=True):
            path = self.main if into is None else into
            if path is not None:
                files.setdefault(path, []).append(result)
        return files


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
    files = [path.resolve() for path in (main, *into) if path is not None]
    if len(set(files)) < len(files) and main not in into:
        message = "two of the outputs are the same file, by a link"
        raise UsageError(Diagnostic("same-output", message, help="give one of them another name"))
    if main is not None and main in into:
        message = f"`into` and the output both name `{main}`"
        raise UsageError(Diagnostic("same-output", message, help="give one of them another name"))
    outputs = Outputs(main, into, overwrite)
    outputs.check()
    return outputs
