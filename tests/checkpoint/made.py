"""A small run that saves itself, and a disk that fails or forgets, for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hookql.checkpoint import Checkpoint

IDENTITY = {"query": "capture mean from h[*]", "model": "demo", "batch_size": 4, "limit": None}
SAVES = 3
CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir")


def rows(number: int) -> list[tuple[str, dict[str, np.ndarray[Any, Any]]]]:
    """What is appended before that save: of the second one nothing."""
    if number == 2:
        return []
    values = np.arange(12, dtype=np.float32).reshape(4, 3) + 100 * number
    return [
        ("acts", {"values:0": values, "values:1": -values[::2], "position": np.arange(4)}),
        ("acts", {"row_size": np.array([4]), "position": np.zeros(0, np.int64)}),
        ("sample:b", {"mean": values.T.astype(np.float64)}),
    ]


def state(number: int) -> dict[str, Any]:
    """What the save of that number holds."""
    return {"number": number, "mean": torch.full((2, 3), float(number)), "seen": {1: ("a", None)}}


def go(folder: Path, checkpoint: Checkpoint) -> None:
    """Go on from wherever the checkpoint is, to the end."""
    done = 0 if checkpoint.state is None else checkpoint.state["number"]
    for number in range(done + 1, SAVES + 1):
        for table, columns in rows(number):
            checkpoint.append(table, columns)
        checkpoint.save(state(number), {"batches": number})


def plain(blocks: Any) -> list[tuple[str, str, str, Any]]:
    """Replayed or appended rows, column by column."""
    return [
        (table, name, array.dtype.str, array.tolist())
        for table, columns in blocks
        for name, array in columns.items()
    ]


def expected(saves: int) -> list[tuple[str, str, str, Any]]:
    """The rows that so many saves have."""
    return plain(block for number in range(1, saves + 1) for block in rows(number))


def check(checkpoint: Checkpoint) -> int:
    """That a checkpoint is whole and of one save; of which."""
    found = 0 if checkpoint.state is None else int(checkpoint.state["number"])
    assert ({"batches": found} if found else {}) == checkpoint.facts
    assert expected(found) == plain(checkpoint.replay())
    if checkpoint.state is not None:
        assert repr(state(found)) == repr(checkpoint.state)
    return found


class Killed(BaseException):
    """The process is no more: nothing catches this, nothing cleans up."""


class Disk:
    """Counts calls of the operating system, fails one of them, and knows what a power cut leaves.

    ``fail`` is called at call number ``at`` in place of it; after a `Killed` no call goes through.
    """

    def __init__(self, folder: Path, at: int = -1, fail: Callable[[], None] = lambda: None) -> None:
        self.folder, self.at, self.fail = folder, at, fail
        self.calls = 0
        self.dead = False
        self.synced: dict[str, bytes] = {}  # what of each file is on the disk, by its name now
        self.durable: dict[str, bytes] = {}  # the names that are, and what they had then
        self.paths: dict[int, Path] = {}
        self.real = {name: getattr(os, name) for name in CALLS}

    @contextmanager
    def __call__(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Be the operating system for a while."""
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._call(name))
            yield

    def _call(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise Killed
            self.calls += 1
            if self.calls - 1 == self.at:
                if name == "write":  # a part of it arrives
                    self.real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                self.fail()
            found = self.real[name](*args, **kwargs)
            self._note(name, args, found)
            return found

        return call

    def _note(self, name: str, args: Any, found: Any) -> None:
        if name == "open":
            self.paths[found] = Path(args[0])
        elif name == "replace":
            old, new = (Path(path).name for path in args)
            for fd, path in self.paths.items():
                if path.name == old:
                    self.paths[fd] = path.with_name(new)
            self.synced[new] = self.synced.pop(old, b"")
        elif name == "fsync":
            path = self.paths[args[0]]
            if path.name == self.folder.name:
                self.durable = {n: self.synced.get(n, b"") for n in os.listdir(self.folder)}
            elif path.is_file():
                self.synced[path.name] = path.read_bytes()

    def die(self) -> None:
        """End the process here."""
        self.dead = True
        raise Killed

    def cut_power(self, kept: str) -> None:
        """Leave what a power cut may: only what was synced, and of the new names these.

        "all", "none", or "manifest", which is the last that may be there before all others.
        """
        now = {name: self.synced.get(name, b"") for name in os.listdir(self.folder)}
        left = now if kept == "all" else dict(self.durable)
        if kept == "manifest" and "manifest.json" in now:
            left["manifest.json"] = now["manifest.json"]
        for name in os.listdir(self.folder):
            os.unlink(self.folder / name)
        for name, content in left.items():
            (self.folder / name).write_bytes(content)


def bury(checkpoint: Checkpoint | None) -> None:
    """Give back what the system takes from a dead process: its lock."""
    if checkpoint is None:
        return
    with suppress(BaseException):
        checkpoint.close()
    if checkpoint._lock is not None:
        os.close(checkpoint._lock)
