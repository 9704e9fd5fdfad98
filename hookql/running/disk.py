"""What a run writes while it runs: raw rows and finished samples, straight or by a checkpoint."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from hookql.checkpoint import Checkpoint
from hookql.checkpoint.outcome import restore, state_of
from hookql.data.batches import EVERYTHING, Batch
from hookql.engines.local import Outcome
from hookql.errors import DataError, Diagnostic
from hookql.plan import Plan
from hookql.raw.files import Begun, begun, remove, temporary_beside
from hookql.raw.partial import cut_short
from hookql.raw.shelf import Shelf
from hookql.raw.survey import Survey
from hookql.raw.tables import Columns, Tables
from hookql.raw.writer import Writer
from hookql.results.spool import Spools
from hookql.results.stream import Finished, Stream


@frozen(eq=False)
class Written:
    """What lies on the disk when a run is over: samples in spools, and files that are begun."""

    streamed: Finished
    files: Mapping[Path, Begun]  # by the file that each is to become
    infinite: int = 0  # finite numbers too large for the dtype that was asked for


@define(eq=False)
class Disk:
    """Takes what is complete out of a run after each batch, and puts it on the disk."""

    plan: Plan
    shelves: Mapping[Path, Sequence[Shelf]]  # by the file that their rows go into
    folder: Path | None  # on whose disk samples wait
    compress: str
    checkpoint: Checkpoint | None
    survey: Survey | None = None
    stream: Stream = field(init=False)
    _spools: Spools = field(init=False)
    _writer: Writer | None = field(default=None, init=False)
    _temporary: dict[Path, Path] = field(factory=dict, init=False)
    _halved: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.stream = Stream(self.plan)
        self._spools = Spools(self.folder)

    @property
    def token(self) -> str | None:
        """What unfinished files have in their names, if a run may be resumed that left some."""
        if self.checkpoint is None:
            return None
        return f"{zlib.crc32(os.fsencode(self.checkpoint.folder)):08x}"

    def resume(self, outcome: Outcome) -> None:
        """Put everything back as the checkpoint has it, or begin it.

        What cannot be resumed is said now, and not at the first save.
        """
        if self.checkpoint is None:
            return
        if self.checkpoint.state is None:
            self.save(outcome)
            return
        state = self.checkpoint.state
        restore(outcome, state["outcome"])
        for shelf in self._every_shelf():
            shelf.restore(state["shelves"][shelf.table.name])
        self.checkpoint.state = None  # its memory is needed
        self._halved = outcome.halved

    def __call__(self, outcome: Outcome, batch: Batch) -> None:
        """Take in a batch's rows, and write what is complete; the engine's sink."""
        if self.shelves:
            self._take(outcome)
        if 0 < batch.complete < EVERYTHING:
            self._complete(outcome, batch.complete)
        # A batch that had to be halved is pinned at once: a resumed run must not try it whole.
        halved, self._halved = outcome.halved > self._halved, outcome.halved
        if self.checkpoint is not None and (halved or self.checkpoint.due()):
            self.save(outcome)

    def save(self, outcome: Outcome, *, ended: bool = False) -> None:
        """End a shard of the checkpoint here; ``ended``: nothing is left but to write the results.

        From then on they may be in their files already when the run is resumed.
        """
        assert self.checkpoint is not None
        state = {
            "outcome": state_of(outcome),
            "shelves": {shelf.table.name: shelf.state() for shelf in self._every_shelf()},
        }
        facts = {"batches": outcome.done, "tokens": outcome.tokens, "halved": outcome.halved}
        facts["ended"] = ended
        self.checkpoint.save(state, facts)

    def drain(self) -> None:
        """Wait until the thread that writes rests, so that others may use netCDF."""
        if self._writer is not None:
            self._writer.drain()

    def finish(self, outcome: Outcome, samples: int) -> Written:
        """Write the rest of a run of so many samples; of one left early what there is."""
        self._complete(outcome, EVERYTHING)
        for shelf in self._every_shelf():
            rest = shelf.rest(None if outcome.interrupted else samples)
            self._tables().append(shelf.table.name, rest)
        if self.checkpoint is not None:
            self.save(outcome, ended=True)
            straight = self._straight()
            for table, columns in self.checkpoint.replay():
                straight.append(table, columns)
        files = self._finished_files(outcome)
        infinite = sum(shelf.infinite for shelf in self._every_shelf())
        return Written(self.stream.finished(outcome, self._spools), files, infinite)

    def check_data(self, outcome: Outcome, facts: Mapping[str, str | int]) -> None:
        """Raise DataError unless the data that ran are those that were counted."""
        if self.survey is None or outcome.interrupted:
            return
        if str(facts["data_fingerprint"]) != self.survey.fingerprint:
            raise data_changed()

    def saved(self, files: Sequence[Path]) -> None:
        """Say that the results are in their files: a checkpoint of them is not needed any more."""
        if self.checkpoint is not None:
            self.checkpoint.finish({str(path.absolute()): size_of(path) for path in files})

    def close(self) -> None:
        """Let go of everything, and remove what is not finished; called however a run ends."""
        if self._writer is not None:
            with contextlib.suppress(Exception):
                self._writer.abandon()
        remove(list(self._temporary.values()))
        if self.checkpoint is not None:
            self.checkpoint.close()

    def begin(self) -> None:
        """Make the files, so that what is wrong with them is said before the model runs."""
        if self.checkpoint is None:
            self._straight()

    def _every_shelf(self) -> list[Shelf]:
        return [shelf for shelves in self.shelves.values() for shelf in shelves]

    def _take(self, outcome: Outcome) -> None:
        for shelf in self._every_shelf():
            shelf.take(outcome)
        for detector in outcome.detectors.values():
            for job in detector.jobs.values():
                job.pieces.clear()

    def _complete(self, outcome: Outcome, complete: int) -> None:
        tables = self._tables()
        for shelf in self._every_shelf():
            known = shelf.table.sizes["obs"]
            for columns in shelf.give(complete):
                if known is not None and shelf.given > known:
                    raise data_changed()
                tables.append(shelf.table.name, columns)
        if self.plan.streams:
            self.stream.write(outcome, complete, tables)

    def _tables(self) -> Tables:
        return self._straight() if self.checkpoint is None else self.checkpoint

    def _straight(self) -> Tables:
        """Where rows end up: begun files and spools."""
        if self._writer is None and self.shelves:
            self._temporary = {
                target: temporary_beside(target, self.token) for target in self.shelves
            }
            files = {
                self._temporary[target]: [shelf.table for shelf in shelves]
                for target, shelves in self.shelves.items()
            }
            self._writer = Writer(files, self.compress)
        return _Straight(self._writer, self._spools)

    def _finished_files(self, outcome: Outcome) -> dict[Path, Begun]:
        if self._writer is None:
            return {}
        checksums = self._writer.finish(whole=not outcome.interrupted)
        self._writer = None
        found = {}
        for target, shelves in self.shelves.items():
            tables = [shelf.table for shelf in shelves]
            if outcome.interrupted:
                cut = [shelf.cut() for shelf in shelves]
                cut_short(self._temporary[target], tables, cut, self.compress)
                tables = cut
            found[target] = begun(self._temporary[target], tables, checksums)
        return found


@frozen(eq=False)
class _Straight:
    """Raw rows into files, samples into spools."""

    writer: Writer | None
    spools: Spools

    def append(self, table: str, columns: Columns) -> None:
        """Put rows where they belong."""
        if table.startswith("sample:"):
            self.spools.append(table, columns)
        else:
            assert self.writer is not None
            self.writer.append(table, columns)


def size_of(path: Path) -> str:
    """A file's size as a manifest has it; "none" of one that is not there."""
    return f"{path.stat().st_size} bytes" if path.is_file() else "none"


def data_changed() -> DataError:
    """The error for data that is not what it was when it was counted."""
    message = "the data changed while it was run: it is not what it was at the beginning"
    return DataError(Diagnostic("data-changed", message, help="run again, on data that stays"))
