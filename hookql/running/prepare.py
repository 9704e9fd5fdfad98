"""Before the model runs: what will come is counted, room is made, a checkpoint opened."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from hookql.checkpoint import Checkpoint, begun
from hookql.errors import AlreadyDone, Diagnostic, HookQLError, UsageError
from hookql.options import RunOptions
from hookql.plan import Plan
from hookql.raw.room import check_room
from hookql.raw.schema import keeps_rows
from hookql.raw.shelf import Shelf
from hookql.raw.survey import Survey
from hookql.results.outputs import Outputs
from hookql.running.disk import Disk, size_of
from hookql.running.identity import identity
from hookql.running.outlook import Outlook, counted, file_shelves, outlooks
from hookql.work import Source

Say = Callable[[str], None]


def prepare(
    plan: Plan,
    source: Source,
    outputs: Outputs,
    options: RunOptions,
    say: Say,
    progress: bool | None,
    found: Survey | None = None,
) -> Disk:
    """Everything that a run writes to, checked and made; ``found`` is what the data hold, if known.

    Raises UsageError where there is no room, where a checkpoint is of another run, or where data
    that can be read only once should go with one; AlreadyDone where the run is finished.
    """
    raw, folder = keeps_rows(plan), options.get("checkpoint")
    if folder is not None and not options.get("resume") and begun(Path(folder)):
        # Said before the data is counted.
        Checkpoint.open(Path(folder), {}, resume=False)
    if found is None and (raw or folder is not None):
        found = counted(plan, source, progress)
        if found is None and folder is not None:
            message = "a checkpoint needs data that can be read again, and stdin cannot"
            advice = "write the data into a file, and give that"
            raise UsageError(Diagnostic("checkpoint-reads-once", message, help=advice))
    on_shelves: dict[Path, list[Shelf]] = {}
    if raw:
        on_shelves = file_shelves(plan, source, outputs, options, found)
        _check_room(outlooks(on_shelves, found), options, say)
    checkpoint = None
    if folder is not None:
        assert found is not None
        resume, every = bool(options.get("resume")), options.get("checkpoint_every")
        if resume and not begun(Path(folder)):
            # A run that was stopped before its first batch left nothing: its restart begins.
            say(f"there is no checkpoint in `{folder}` yet: beginning one")
            resume = False
        checkpoint = Checkpoint.open(
            Path(folder),
            identity(plan, source, options, outputs, found),
            resume=resume,
            every=float(60 if every is None else every),
        )
        if checkpoint.complete:
            checkpoint.close()
            raise _complete(checkpoint)
    main = outputs.main
    where = None if main is None else main.absolute().parent
    disk = Disk(plan, on_shelves, where, options.get("compress") or "none", checkpoint, found)
    disk.begin()
    return disk


def _check_room(coming: Sequence[Outlook], options: RunOptions, say: Say) -> None:
    """Say how much will come, and refuse what cannot fit; a checkpoint has the rows once more."""
    needed: dict[Path, int] = {}
    folder = options.get("checkpoint")
    for each in coming:
        say(f"values: {each}")
        for place in (each.path.absolute().parent, *([Path(folder)] if folder else [])):
            needed[place] = needed.get(place, 0) + (each.size or 0)
    if folder and Path(folder) in needed:  # what a run that is resumed has written is there
        needed[Path(folder)] = max(0, needed[Path(folder)] - _held(Path(folder)))
    check_room(needed, bool(options.get("force")))


def _held(folder: Path) -> int:
    """The bytes of the files in a folder."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return 0


def _complete(checkpoint: Checkpoint) -> HookQLError:
    """What is said of a finished run: its results are there, or they are lost."""
    where = f"the run of `{checkpoint.folder}` is finished"
    lost = [path for path, size in checkpoint.outputs.items() if size_of(Path(path)) != size]
    if lost:
        notes = tuple(f"`{path}` is not there any more, or was changed" for path in lost)
        message = f"{where}, and its result is lost: the checkpoint has nothing more of it"
        help = "run again, with another folder"
        return UsageError(Diagnostic("checkpoint-complete", message, help=help, notes=notes))
    notes = tuple(f"its result is in `{path}`" for path in checkpoint.outputs)
    message = f"{where}: there is nothing to resume"
    help = "to run again, give another folder"
    return AlreadyDone(
        Diagnostic("checkpoint-complete", message, None, None, help, notes, severity="warning")
    )
