"""What raw rows will come: how many, how large, and whether the disk has room for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.progress import progress as progress_bar
from hookql.raw.room import amount, bytes_of, free_bytes
from hookql.raw.schema import Sizes, shelves, templates
from hookql.raw.shelf import Shelf
from hookql.raw.survey import Survey, survey
from hookql.raw.tables import RawTable
from hookql.results.outputs import Outputs
from hookql.work import Source


@frozen
class Outlook:
    """The raw rows of one file; ``rows`` and ``size``, in bytes, are None where nobody can know.

    Where they are not ``exact``, at most so many will come.
    """

    path: Path
    rows: int | None
    size: int | None
    exact: bool
    free: int  # bytes on the disk

    def __str__(self) -> str:
        free = f"into {self.path} ({amount(self.free)} free)"
        if self.rows is None or self.size is None:
            return f"as many rows as come, {free}"
        bound = "" if self.exact else "at most "
        return f"{bound}{self.rows:,} rows, {amount(self.size)} {free}"


def counted(plan: Plan, source: Source, progress: bool | None) -> Survey | None:
    """What the data holds; None where it can be read only once."""
    if not source.reads_again:
        return None
    with progress_bar(source.total, show=progress) as tick:
        found = survey(plan, source.work(plan).batches, source.facts, tick)
    if plan.query.generation is not None:  # nobody knows yet how much the model will write
        new = int(plan.query.generation.arguments["max_new_tokens"])
        most = found.tokens + found.samples * new
        found = evolve(found, rows=(most,) * len(found.rows), exact=(False,) * len(found.exact))
    return found


def file_shelves(
    plan: Plan, source: Source, outputs: Outputs, options: RunOptions, found: Survey | None
) -> dict[Path, list[Shelf]]:
    """The shelves of each file that has raw rows, their sizes known as far as they can be."""
    rows: dict[int, int | None] = dict.fromkeys(range(len(plan.selectors)))
    if found is not None and options.get("on_error") != "skip":
        rows = {n: found.rows[n] if found.exact[n] else None for n in rows}
    sizes = Sizes(rows, None if found is None else found.samples)
    members = outputs.members(templates(plan, source.width))
    made = {
        path: shelves(plan, results, sizes, source.width, options.get("store_dtype"))
        for path, results in members.items()
    }
    return {path: of_file for path, of_file in made.items() if of_file}


def outlooks(on_shelves: Mapping[Path, Sequence[Shelf]], found: Survey | None) -> list[Outlook]:
    """What will come into each file."""
    return [
        Outlook(
            path,
            None if found is None else max(_rows(shelf, found) for shelf in of_file),
            None if found is None else bytes_of(_most(shelf, found) for shelf in of_file),
            all(None not in shelf.table.sizes.values() for shelf in of_file),
            free_bytes(path.absolute().parent),
        )
        for path, of_file in on_shelves.items()
    ]


def _rows(shelf: Shelf, found: Survey) -> int:
    return found.rows[shelf.columns[0].selector]


def _most(shelf: Shelf, found: Survey) -> RawTable:
    """A shelf's table with the most rows that can come."""
    sizes = {**shelf.table.sizes, "obs": _rows(shelf, found), "sample": found.samples}
    return evolve(shelf.table, sizes=sizes)
