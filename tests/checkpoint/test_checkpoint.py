"""Checkpoints: what is saved comes back, and what does not belong together is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hookql.checkpoint import Checkpoint, begun, damage
from hookql.errors import HookQLError, UsageError
from tests.checkpoint.made import IDENTITY, SAVES, check, expected, go, plain, rows, state


def begin(folder: Path) -> Checkpoint:
    """A new checkpoint."""
    return Checkpoint.open(folder, IDENTITY, resume=False)


def resume(folder: Path, **changed: Any) -> Checkpoint:
    """The same one taken up, perhaps by another run."""
    return Checkpoint.open(folder, IDENTITY | changed, resume=True)


def refused(call: Callable[..., Any], *given: Any, **more: Any) -> HookQLError:
    """The error of a call."""
    with pytest.raises(HookQLError) as raised:
        call(*given, **more)
    return raised.value


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """State, facts and rows, column by column, in order; rows after the last save do not count."""
    checkpoint = begin(tmp_path / "run")
    assert (None, {}, False) == (checkpoint.state, checkpoint.facts, checkpoint.complete)
    assert [] == list(checkpoint.replay())
    go(tmp_path / "run", checkpoint)
    checkpoint.append(*rows(1)[0])
    assert expected(SAVES) == plain(checkpoint.replay())
    checkpoint.close()
    again = resume(tmp_path / "run")
    assert SAVES == check(again)
    assert [] == damage(tmp_path / "run")
    again.close()


def test_a_run_may_be_resumed_before_its_first_save(tmp_path: Path) -> None:
    """From the moment on that it has begun, and again and again."""
    for again in (False, True, True):
        checkpoint = Checkpoint.open(tmp_path / "run", IDENTITY, resume=again)
        checkpoint.append(*rows(1)[0])
        assert 0 == check(checkpoint)
        checkpoint.close()
    assert {"lock", "manifest.json"} == set(os.listdir(tmp_path / "run"))


def test_rows_may_be_of_any_shape(tmp_path: Path) -> None:
    """Strided, reversed, empty, of one number; dtypes stay."""
    checkpoint = begin(tmp_path / "run")
    wide = np.arange(60, dtype=np.float64).reshape(5, 3, 4)
    columns = {
        "turned": wide.transpose(2, 0, 1), "reversed": wide[::-1], "empty": np.zeros((0, 7), "<f4"),
        "thin": wide[:, :0], "one": np.array([7]), "large": np.ones((1000, 1000), np.float32),
    }  # fmt: skip
    checkpoint.append("t", columns)
    checkpoint.save({}, {})
    assert plain([("t", columns)]) == plain(checkpoint.replay())
    checkpoint.close()


def test_a_finished_run_leaves_its_manifest(tmp_path: Path) -> None:
    """Shards are removed; that it is complete, and with which outputs, stays."""
    checkpoint = begin(tmp_path / "run")
    go(tmp_path / "run", checkpoint)
    checkpoint.append(*rows(1)[0])
    checkpoint.finish({"acts.nc": "1234"})
    assert checkpoint.complete
    checkpoint.close()
    assert {"lock", "manifest.json"} == set(os.listdir(tmp_path / "run"))
    again = resume(tmp_path / "run")
    assert (True, {"acts.nc": "1234"}, None) == (again.complete, again.outputs, again.state)
    assert {"batches": SAVES} == again.facts
    again.close()


def test_a_finished_run_that_goes_on_is_not_complete(tmp_path: Path) -> None:
    """Saved anew, its outputs are no longer those that were written."""
    checkpoint = begin(tmp_path / "run")
    checkpoint.finish({"acts.nc": "1234"})
    checkpoint.save(state(1), {"batches": 1})
    checkpoint.close()
    again = resume(tmp_path / "run")
    assert (False, {}, 1) == (again.complete, again.outputs, (again.state or {})["number"])
    again.close()


def test_whether_a_run_has_begun(tmp_path: Path) -> None:
    """Not before its manifest stands; a folder of something else is for `open` to refuse."""
    run = tmp_path / "run"
    assert not begun(run)
    run.mkdir()
    assert not begun(run)
    (run / "lock").touch()
    (run / "manifest.json.tmp").write_text('{"form')
    assert not begun(run)
    begin(run).close()
    assert begun(run)
    assert begun(run / "lock")


def test_saving_is_due_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many seconds after the beginning, and after each save."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    checkpoint = Checkpoint.open(tmp_path / "run", IDENTITY, resume=False, every=30)
    found = []
    for seconds in (0, 29, 1, 100):
        now[0] += seconds
        found.append(checkpoint.due())
    checkpoint.save({}, {})
    found.append(checkpoint.due())
    assert [False, False, True, True, False] == found
    checkpoint.close()


def test_a_relative_folder_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given as `run` stays where it was when the run goes to another folder."""
    monkeypatch.chdir(tmp_path)
    checkpoint = begin(Path("run"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    go(Path("run"), checkpoint)
    assert expected(SAVES) == plain(checkpoint.replay())
    checkpoint.close()
    assert [] == os.listdir(elsewhere)
    again = resume(tmp_path / "run")
    assert SAVES == check(again)
    again.close()


def test_nothing_of_somebody_else_is_removed(tmp_path: Path) -> None:
    """A folder with other files is refused; those that come later stay, whatever their names."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert "checkpoint-exists" == refused(begin, folder).code
    assert ["notes.txt"] == os.listdir(folder)
    (folder / "notes.txt").unlink()
    checkpoint = begin(folder)
    theirs = {"notes.txt", "rows.hookql", "rows-000001.hookql.bak", "state-x.hookql", "out.nc.tmp"}
    for name in theirs:
        (folder / name).write_text("mine")
    (folder / "rows-000099.hookql").mkdir()
    (folder / "state-000099.hookql").write_text("left by a save that was killed")
    go(folder, checkpoint)
    checkpoint.finish({})
    checkpoint.close()
    resume(folder).close()
    assert {*theirs, "rows-000099.hookql", "lock", "manifest.json"} == set(os.listdir(folder))
    assert {"mine"} == {(folder / name).read_text() for name in theirs}


def test_somebody_elses_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    """A `manifest.json` of another program is neither resumed from nor written over."""
    (tmp_path / "manifest.json").write_text('{"name": "my page", "icons": []}')
    assert "no-checkpoint" == refused(resume, tmp_path).code
    assert "checkpoint-exists" == refused(begin, tmp_path).code
    assert [f"`{tmp_path}` has no manifest of a checkpoint"] == damage(tmp_path)
    assert ["manifest.json"] == os.listdir(tmp_path)


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Not as the lock, nor under a temporary name: a file elsewhere is never written to."""
    (tmp_path / "mine").write_text("mine")
    checkpoint = begin(tmp_path / "run")
    for name in ("state-000001.hookql.tmp", "rows-000001.hookql.tmp", "manifest.json.tmp"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    go(tmp_path / "run", checkpoint)
    checkpoint.close()
    (tmp_path / "run" / "lock").unlink()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "mine")
    assert "cannot-write" == refused(resume, tmp_path / "run").code
    assert "mine" == (tmp_path / "mine").read_text()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    """Not while the first is alive; a killed one leaves no lock behind."""
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            begin(tmp_path / "run")
            os.write(told, b"!")
            os.read(os.pipe()[0], 1)  # for ever
        finally:
            os._exit(1)
    assert b"!" == os.read(ready, 1)
    code = refused(resume, tmp_path / "run").code
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert "checkpoint-busy" == code
    resume(tmp_path / "run").close()


DIFFERENT: list[tuple[dict[str, Any], list[str]]] = [
    ({"query": "capture std from h[*]"}, ["query"]),
    ({"limit": 10}, ["limit"]),
    ({"limit": 0}, ["limit"]),
    ({"batch_size": 5, "model": "other"}, ["model", "batch_size"]),
    ({"batch_size": None}, ["batch_size"]),
    ({"new": "option"}, ["new"]),
    ({"new": False}, ["new"]),
    ({"batch_size": "4"}, ["batch_size"]),
]


@pytest.mark.parametrize(("changed", "keys"), DIFFERENT)
def test_another_run_is_refused(changed: dict[str, Any], keys: list[str], tmp_path: Path) -> None:
    """With each key that differs and both values, and the checkpoint is left as it was."""
    checkpoint = begin(tmp_path / "run")
    go(tmp_path / "run", checkpoint)
    checkpoint.close()
    before = sorted(os.listdir(tmp_path / "run"))
    error = refused(resume, tmp_path / "run", **changed)
    assert ("checkpoint-differs", UsageError) == (error.code, type(error))
    assert keys == [note.partition(":")[0] for note in error.notes]
    for key, note in zip(keys, error.notes, strict=True):
        for value in (IDENTITY.get(key), changed[key]):
            assert f"`{'nothing' if value is None else value}`" in note
    assert before == sorted(os.listdir(tmp_path / "run"))
    resume(tmp_path / "run").close()


def test_long_values_are_shown_where_they_differ(tmp_path: Path) -> None:
    """And nothing in them is obeyed by a terminal."""
    long = "capture mean from h[*] where position > 1 " * 30
    Checkpoint.open(tmp_path / "a", {"query": long + "one\x1b[31m"}, resume=False).close()
    given = {"query": long + "other\u202e"}
    error = refused(Checkpoint.open, tmp_path / "a", given, resume=True)
    (note,) = error.notes
    before = "`…where position > 1 "
    assert f"query: {before}one�[31m` in the checkpoint, {before}other�` now" == note


def test_the_manifest_can_be_read(tmp_path: Path) -> None:
    """It is JSON, with the facts and the counts that a reader asks for."""
    checkpoint = begin(tmp_path / "run")
    go(tmp_path / "run", checkpoint)
    checkpoint.close()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "hookql-checkpoint-1" == manifest["format"]
    assert manifest["identity"] == IDENTITY
    assert {"batches": SAVES} == manifest["facts"]
    acts = {"values:0": 4, "values:1": 2, "position": 4, "row_size": 1}
    counted = [shard["rows"] for shard in manifest["shards"]]
    assert [{"acts": acts, "sample:b": {"mean": 3}}] * 2 == counted


def test_a_folder_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """An odd path is a usage error with words, too."""
    (tmp_path / "file").write_text("")
    missing = [tmp_path / "no" / "such", tmp_path / "file" / "in", Path("a\0b")]
    assert ["no-such-folder"] * 3 == [refused(begin, folder).code for folder in missing]
    assert ["no-checkpoint"] * 3 == [refused(resume, folder).code for folder in missing]
    assert "checkpoint-exists" == refused(begin, tmp_path / "file").code
    assert "no-checkpoint" == refused(resume, tmp_path / "file").code
    assert "cannot-write" == refused(begin, tmp_path / ("x" * 300)).code


def test_every_diagnostic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    """What a user reads, as it is."""
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    Path("notes/mine.txt").write_text("")
    errors = [refused(begin, Path("no/such")), refused(begin, Path("notes"))]
    errors.append(refused(resume, Path("run")))
    checkpoint = begin(Path("run"))
    errors += [refused(begin, Path("run")), refused(resume, Path("run"))]
    go(Path("run"), checkpoint)
    errors.append(refused(checkpoint.save, {"f": {"x": [1, object()]}}, {}))
    errors.append(refused(checkpoint.save, state(1), {}))
    checkpoint.close()
    errors.append(refused(resume, Path("run"), limit=100, query="capture max from h[*]"))
    errors.append(refused(resume, Path("run"), model="gpt2"))
    Path("run/rows-000002.hookql").unlink()
    errors.append(refused(resume, Path("run")))
    Path("run/rows-000001.hookql").write_bytes(b"short")
    errors.append(refused(resume, Path("run")))
    errors_of_verify = damage(Path("run"))
    Path("run/manifest.json").write_text('{"format": "hookql-checkpoint-9"}')
    errors.append(refused(resume, Path("run")))
    golden("checkpoint/errors.txt", "\n\n".join([*map(str, errors), *errors_of_verify]) + "\n")
