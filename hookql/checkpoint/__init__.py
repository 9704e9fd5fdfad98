"""Checkpoints: what a run has so far, on disk, so that nothing but the last minute can be lost.

A folder holds the rows that have been written, in shards, the state of everything else as it was
when the last shard ended, and a manifest that names both. The manifest is replaced last, in one
step: whenever the machine stops, the folder is what it was before a save, or what it is after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import evolve

from hookql.checkpoint.files import damaged, temporary, writing
from hookql.checkpoint.folder import begin, begun, lock, resumed
from hookql.checkpoint.manifest import (
    Identity,
    Manifest,
    damage,
    remove_strays,
    save,
    state_name,
)
from hookql.checkpoint.shards import ShardWriter, blocks, name_of
from hookql.checkpoint.state import dump, load
from hookql.errors import Diagnostic, HookQLError
from hookql.raw.tables import Columns

__all__ = ["Checkpoint", "begun", "damage"]


class Checkpoint:
    """A folder that a run is saved in, and continued from: a `Tables`.

    ``state`` is what the last save was given, None before the first; ``facts`` likewise;
    ``complete`` says that the run's outputs have been written.
    """

    def __init__(self, folder: Path, held: int, manifest: Manifest, every: float) -> None:
        """``held`` is the lock's file descriptor; see `open`."""
        self.folder = folder.absolute()  # the run may go to another folder
        self.state: dict[str, Any] | None = None
        self._shown = folder
        self._lock: int | None = held
        self._manifest = manifest
        self._every, self._last = every, time.monotonic()
        self._writer: ShardWriter | None = None
        self._failed = False

    @classmethod
    def open(
        cls, folder: Path, identity: Identity, *, resume: bool, every: float = 60.0
    ) -> Checkpoint:
        """Begin a checkpoint in a folder that is absent or empty, or take one up again.

        ``identity`` says which run it is; ``every`` how many seconds lie between two saves.

        Raises:
            UsageError: where there is something already, or nothing to resume, or what is there is
                of another run, or another process is at work on it.
            HookQLError: where a file is damaged, or the folder cannot be written to.
        """
        with writing(folder):
            held = lock(folder, resume)
        try:
            with writing(folder):
                manifest = resumed(folder, identity) if resume else begin(folder, identity)
            checkpoint = cls(folder, held, manifest, every)
            if manifest.state is not None:
                checkpoint.state = load(checkpoint.folder / state_name(manifest.saved))
        except BaseException:
            os.close(held)
            raise
        return checkpoint

    @property
    def complete(self) -> bool:
        """Whether the run's outputs have been written."""
        return self._manifest.complete

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the last save said of the run."""
        return self._manifest.facts

    @property
    def outputs(self) -> Mapping[str, str]:
        """What `finish` was given."""
        return self._manifest.outputs

    def append(self, table: str, columns: Columns) -> None:
        """Add rows (n, ...) to columns of a table. They count once they have been saved.

        A thread writes them; this waits while more than 64 MB are waiting for it. Raises
        HookQLError where the disk is full, or the thread died.
        """
        with self._writing():
            if self._writer is None:
                self._writer = ShardWriter(self.folder, len(self._manifest.shards) + 1)
            self._writer.append(table, columns)

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Have all rows so far, and this state of everything else, survive whatever comes.

        ``facts`` are plain values, which a reader of the manifest sees. Raises HookQLError where
        that is not possible; then what was saved before is still there, whole.
        """
        with self._writing():
            old = self._manifest
            number = old.saved + 1
            path = self.folder / state_name(number)
            try:
                written = dump(temporary(path), dict(state))
            except BaseException:
                with suppress(OSError):  # a full disk needs its room
                    temporary(path).unlink(missing_ok=True)
                raise
            shards = old.shards
            if self._writer is not None:
                shards = (*shards, self._writer.commit())
                self._writer = None
            os.replace(temporary(path), path)
            new = Manifest(old.identity, number, False, dict(facts), {}, written, shards)
            self._put(new)
            self._last = time.monotonic()

    def replay(self) -> Iterator[tuple[str, Columns]]:
        """The rows that have been saved, in order, each block of one column checked once more.

        Raises HookQLError at the first that is damaged.
        """
        for shard in self._manifest.shards:
            try:
                yield from blocks(self.folder, shard)
            except (OSError, ValueError) as error:
                raise damaged(self.folder / name_of(shard.number), error) from error

    def finish(self, outputs: Mapping[str, str]) -> None:
        """Note that all is done, and remove what is not needed any more; the manifest stays."""
        with self._writing():
            self._abandon()
            done = evolve(
                self._manifest, complete=True, outputs=dict(outputs), state=None, shards=()
            )
            self._put(done)

    def close(self) -> None:
        """Let go of the folder; rows that have not been saved are lost."""
        with suppress(OSError):
            self._abandon()
        if self._lock is not None:
            held, self._lock = self._lock, None
            os.close(held)

    def _put(self, manifest: Manifest) -> None:
        """Have the manifest say so, for good, and remove what it does not name any more."""
        save(self.folder, manifest)
        self._manifest = manifest
        remove_strays(self.folder, manifest)

    def _abandon(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abandon()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write nothing more once something failed: what came between would be missing."""
        if self._failed or self._lock is None:
            message = f"cannot write `{self._shown}`: an earlier write to it failed"
            raise HookQLError(Diagnostic("cannot-write", message))
        self._failed = True
        with writing(self._shown):
            yield
        self._failed = False
