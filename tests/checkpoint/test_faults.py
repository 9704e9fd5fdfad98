"""Whatever fails, and whenever the machine stops: the older state or the newer one, whole."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hookql.checkpoint import Checkpoint, damage
from hookql.checkpoint import shards as shards_file
from hookql.checkpoint.manifest import read
from hookql.errors import HookQLError
from tests.checkpoint.made import (
    IDENTITY,
    SAVES,
    Disk,
    Killed,
    bury,
    check,
    expected,
    go,
    plain,
    rows,
    state,
)

LEFT = {"lock", "manifest.json"}


def whole_run(folder: Path) -> None:
    """Begin, go to the end, write the outputs."""
    checkpoint = Checkpoint.open(folder, IDENTITY, resume=False)
    go(folder, checkpoint)
    checkpoint.finish({"out.nc": "abc"})
    checkpoint.close()


def count_calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many calls a run makes that nothing fails in."""
    disk = Disk(folder)
    with disk(monkeypatch):
        whole_run(folder)
    return disk.calls


def attempt(folder: Path) -> tuple[Checkpoint | None, int, BaseException | None]:
    """A run that may fail; what it is left with, how many saves came back, and what was raised."""
    checkpoint, saved = None, 0
    try:
        checkpoint = Checkpoint.open(folder, IDENTITY, resume=False)
        for number in range(1, SAVES + 1):
            for table, columns in rows(number):
                checkpoint.append(table, columns)
            checkpoint.save(state(number), {"batches": number})
            saved = number
        checkpoint.finish({"out.nc": "abc"})
    except (HookQLError, Killed) as error:
        return checkpoint, saved, error
    return checkpoint, saved, None


def carry_on(folder: Path, saved: int) -> None:
    """Take the run up again: nothing that was saved is lost, and the end is what it would be."""
    begun = (folder / "manifest.json").exists()
    assert begun or not saved
    checkpoint = Checkpoint.open(folder, IDENTITY, resume=begun)
    assert [] == damage(folder)
    if not checkpoint.complete:
        assert check(checkpoint) in (saved, saved + 1)
        go(folder, checkpoint)
        assert expected(SAVES) == plain(checkpoint.replay())
        checkpoint.finish({"out.nc": "abc"})
    else:
        assert SAVES == saved
    assert {"out.nc": "abc"} == checkpoint.outputs
    checkpoint.close()
    assert set(os.listdir(folder)) == LEFT


@pytest.fixture
def quick_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the order of calls matters, do not wait for the real disk."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.usefixtures("quick_sync")
@pytest.mark.parametrize("cut", ["kill", "all", "none", "manifest"])
def test_a_run_that_dies_at_any_call_goes_on(
    cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each call of the system in turn, or the power cut: what was not synced is lost."""
    number = count_calls(tmp_path / "counted", monkeypatch)
    assert number > 60
    for at in range(number):
        folder = tmp_path / f"run{at}"
        disk = Disk(folder, at)
        disk.fail = disk.die
        with disk(monkeypatch):
            checkpoint, saved, error = attempt(folder)
            bury(checkpoint)
        assert disk.dead
        assert error is not None
        if cut != "kill" and folder.exists():
            disk.cut_power(cut)
        carry_on(folder, saved)


@pytest.mark.usefixtures("quick_sync")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["disk full", "broken disk"])
def test_any_call_may_fail(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write, a sync, a rename that fails is said, nothing is written after it, nothing lost."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    for at in range(count_calls(tmp_path / "counted", monkeypatch)):
        folder = tmp_path / f"run{at}"
        disk = Disk(folder, at, fail)
        with disk(monkeypatch):
            checkpoint, saved, error = attempt(folder)
            assert isinstance(error, HookQLError)
            assert "cannot-write" == error.code
            assert os.strerror(number) in error.message
            if checkpoint is not None:
                with pytest.raises(HookQLError, match="an earlier write"):
                    checkpoint.save(state(9), {})
                checkpoint.close()
        if folder.exists():
            assert not [name for name in os.listdir(folder) if name.startswith("rows-999")]
        carry_on(folder, saved)


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    """The system itself refuses to write more: as much as was saved is still there."""
    checkpoint = Checkpoint.open(tmp_path / "run", IDENTITY, resume=False)
    checkpoint.save(state(1), {"batches": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        checkpoint.append("acts", {"values": np.zeros((1000, 30))})
        with pytest.raises(HookQLError, match=r"cannot write .*: File too large"):
            checkpoint.save(state(2), {"batches": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    checkpoint.close()
    assert [] == damage(tmp_path / "run")
    again = Checkpoint.open(tmp_path / "run", IDENTITY, resume=True)
    assert {"batches": 1} == again.facts
    again.close()


def test_a_thread_that_dies_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the thread ends with, neither append nor save waits for ever."""

    def die(self: object, table: str, columns: object) -> None:
        raise SystemExit("the thread was ended")

    monkeypatch.setattr(shards_file.ShardWriter, "_write", die)
    checkpoint = Checkpoint.open(tmp_path / "run", IDENTITY, resume=False)
    with pytest.raises(HookQLError, match=r"the thread that writes .* died") as raised:
        _append_much(checkpoint)
    assert ("SystemExit: the thread was ended",) == raised.value.notes
    checkpoint.close()
    assert LEFT == set(os.listdir(tmp_path / "run"))


def _append_much(checkpoint: Checkpoint) -> None:
    for _ in range(100):
        checkpoint.append("acts", {"values": np.zeros(1_000_000)})


def test_what_waits_for_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk makes append wait, not the memory grow; one append may be larger than that."""
    held: list[int] = []
    release = threading.Event()
    original = shards_file.ShardWriter._write

    def write(self: shards_file.ShardWriter, table: str, columns: object) -> None:
        held.append(self._held)
        release.wait(0.02)
        original(self, table, columns)  # type: ignore[arg-type]

    monkeypatch.setattr(shards_file.ShardWriter, "_write", write)
    writer = shards_file.ShardWriter(tmp_path, 1, queue=1000)
    for size in (50, 50, 500, 10, 60, 60, 3):
        writer.append("t", {"x": np.zeros(size)})
    shard = writer.commit()
    assert {"t": {"x": 733}} == shard.rows
    assert 7 == len(held)
    assert max(held) == 4000  # the one that is larger, by itself


def test_killed_for_real(tmp_path: Path) -> None:
    """A process that saves all the time, ended by SIGKILL at random moments, again and again."""
    folder, generator = tmp_path / "run", random.Random(7)
    last = 0
    for turn in range(20):
        child = os.fork()
        if not child:
            _save_for_ever(folder, resume=turn > 0)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            manifest = read(folder)
            # Every second one may be killed before it has saved anything.
            if manifest is not None and (turn % 2 or manifest.saved > last):
                break
            time.sleep(0.001)
        time.sleep(generator.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        checkpoint = Checkpoint.open(folder, IDENTITY, resume=True)
        number = 0 if checkpoint.state is None else checkpoint.state["number"]
        assert number >= last
        values = [float(c["x"][0, 0]) for _, c in checkpoint.replay()]
        assert [float(n) for n in range(1, number + 1)] == values
        last = number
        checkpoint.close()
    assert last >= 10


def _save_for_ever(folder: Path, resume: bool) -> None:
    """The child: save one block after the other until it is killed."""
    try:
        checkpoint = Checkpoint.open(folder, IDENTITY, resume=resume)
        number = 0 if checkpoint.state is None else checkpoint.state["number"]
        while True:
            number += 1
            checkpoint.append("t", {"x": np.full((500, 20), float(number))})
            checkpoint.save({"number": number, "more": np.zeros(1000)}, {})
    finally:
        os._exit(1)
