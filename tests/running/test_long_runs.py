"""Checkpoints, interruptions, disks and data that change: the whole run, as a user has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray

import hookql
from hookql import execute as execution
from hookql.api import parse_query
from hookql.errors import Interrupted
from hookql.options import RunOptions
from hookql.running.disk import Disk
from tests.crash.kill import content
from tests.tiny import tiny

TEXTS = [f"sample {n} " + "lorem ipsum dolor " * (n % 4) for n in range(60)]
QUERY = """
capture mean, std, quantile(x, 0.5) as mid from h[*] by position as moments
capture mean from h[1] by sample as each
capture values, sum from h[1:3] where position > 1 into "acts.nc" as acts
"""


class Stopped(Exception):
    """What ends a run in these tests."""


def run(folder: Path, query: str = QUERY, **options: Any) -> Any:
    """The run of these tests, writing into a folder."""
    model, tokenizer, _ = tiny("gpt2")
    given = {"model": model, "tokenizer": tokenizer, "texts": TEXTS, "tokens_per_batch": 64}
    folder.mkdir(exist_ok=True)
    return hookql.run(query, output=folder / "out.nc", **{**given, **options})


def crashed(
    monkeypatch: pytest.MonkeyPatch, batches: int, folder: Path, query: str = QUERY, **options: Any
) -> None:
    """Run and let the run's sink raise after some batches, as a crash would end it."""
    whole, seen = Disk.__call__, 0

    def sink(self: Disk, outcome: Any, batch: Any) -> None:
        nonlocal seen
        whole(self, outcome, batch)
        seen += 1
        if seen == batches:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "__call__", sink)
        with pytest.raises(Stopped):
            run(folder, query, checkpoint_every=1e-9, **options)


@pytest.mark.parametrize("batches", [1, 2, 7, 15])
def test_resumed_is_bit_for_bit_the_same(
    batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended anywhere and was resumed gives the files of one that was left alone."""
    run(tmp_path / "alone")
    folder = tmp_path / "broken"
    crashed(monkeypatch, batches, folder, checkpoint=folder / "kept")
    assert ["kept"] == [path.name for path in folder.iterdir()]
    result = run(folder, checkpoint=folder / "kept", checkpoint_every=1e-9, resume=True)
    for name in ("out.nc", "acts.nc"):
        assert content(tmp_path / "alone" / name) == content(folder / name)
        assert [] == hookql.verify(folder / name)
    assert [] == hookql.verify(folder / "kept")
    assert result["acts/transformer.h"]["values"].sizes["obs"] > 0
    assert {"manifest.json", "lock"} == {path.name for path in (folder / "kept").iterdir()}


def test_no_checkpoint_and_one_that_is_new_write_the_same(tmp_path: Path) -> None:
    """A checkpoint changes nothing in the files."""
    run(tmp_path / "without")
    run(tmp_path / "with", checkpoint=tmp_path / "kept", checkpoint_every=1e-9)
    for name in ("out.nc", "acts.nc"):
        assert content(tmp_path / "without" / name) == content(tmp_path / "with" / name)


def test_rows_of_unknown_number_resume_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows depend on the values, nobody knows how many will come."""
    query = "capture values from h[0:2] where x[0] > 0 as big"
    run(tmp_path / "alone", query)
    folder = tmp_path / "broken"
    crashed(monkeypatch, 5, folder, query, checkpoint=tmp_path / "kept")
    run(folder, query, checkpoint=tmp_path / "kept", resume=True)
    assert content(tmp_path / "alone" / "out.nc") == content(folder / "out.nc")


def said(run: Callable[[], object]) -> str:
    """What a run that must fail says."""
    with pytest.raises(hookql.HookQLError) as caught:
        run()
    return str(caught.value)


def finished_and_resumed() -> None:
    """Resume what is over."""
    kept = {"checkpoint": "over", "checkpoint_every": 1e-9}
    run(Path("finished"), **kept)
    run(Path("finished"), resume=True, **kept)


def test_what_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    golden: Callable[[str, str], None],
) -> None:
    """Checkpoints of other runs, options without one, data read once, and disks too small."""
    monkeypatch.chdir(tmp_path)
    crashed(monkeypatch, 3, Path("one"), checkpoint="kept")
    again: dict[str, Any] = {"checkpoint": "kept", "resume": True}
    texts = {
        "the folder has a checkpoint": said(lambda: run(Path("one"), checkpoint="kept")),
        "another query": said(lambda: run(Path("one"), "capture mean from h[0]", **again)),
        "other data": said(lambda: run(Path("one"), **{**again, "texts": TEXTS[:-1]})),
        "other batches": said(lambda: run(Path("one"), **{**again, "tokens_per_batch": 65})),
        "resume without a checkpoint": said(lambda: run(Path("one"), resume=True)),
        "an interval that is none": said(lambda: run(Path("one"), checkpoint_every="5", **again)),
        "data read once": said(
            lambda: run(Path("one"), checkpoint="k", texts=(), data=iter(TEXTS))
        ),
        "a finished run": said(lambda: finished_and_resumed()),
        "an unknown compression": said(lambda: run(Path("one"), compress="gzip")),
    }
    blocks = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_blocks, f_bfree, f_frsize = 1, 1, 1, 1000

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    texts["no room"] = said(lambda: run(Path("two")))
    texts = {what: text.replace(str(tmp_path), "…") for what, text in texts.items()}
    assert blocks.f_bavail > 1
    golden(
        "running/refused.txt", "".join(f"--- {what}\n{text}\n\n" for what, text in texts.items())
    )
    assert not list(Path("two").iterdir())
    run(Path("two"), force=True)


def test_a_begun_checkpoint_needs_no_other_command(tmp_path: Path) -> None:
    """`resume` where there is nothing yet begins: the same command serves from the start."""
    run(tmp_path / "a", checkpoint=tmp_path / "kept", resume=True)
    run(tmp_path / "b")
    assert content(tmp_path / "a" / "acts.nc") == content(tmp_path / "b" / "acts.nc")


@pytest.mark.parametrize("more", ["another sample\n", "x\n" * 500])
def test_data_that_change(
    more: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    golden: Callable[[str, str], None],
) -> None:
    """Data that are others when they are run than when they were counted write nothing."""
    data, whole = tmp_path / "data.txt", execution.prepare
    data.write_text("\n".join(TEXTS) + "\n")

    def prepared(*given: Any) -> Any:
        found = whole(*given)
        data.write_text(data.read_text() + more)
        return found

    monkeypatch.setattr(execution, "prepare", prepared)
    message = said(lambda: run(tmp_path / "one", texts=(), data=data))
    golden("running/data_changed.txt", message + "\n")
    assert [] == list((tmp_path / "one").iterdir())


def test_a_file_that_is_written_to(tmp_path: Path) -> None:
    """Of statistics alone the result says what was read, with a warning."""
    data = tmp_path / "data.txt"
    data.write_text("\n".join(TEXTS))
    model, tokenizer, _ = tiny("gpt2")

    def touch(*_: Any) -> None:
        data.write_text("\n".join([*TEXTS, "one more"]))

    handle = model.register_forward_pre_hook(touch)
    with pytest.warns(hookql.HookQLWarning, match="data-changed"):
        hookql.run("capture mean from h[0]", model=model, tokenizer=tokenizer, data=data)
    handle.remove()


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Interrupted:
    """A run that gets a signal after some batches."""
    whole = Disk.__call__

    def sink(self: Disk, outcome: Any, batch: Any) -> None:
        whole(self, outcome, batch)
        if outcome.done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    model, tokenizer, _ = tiny("gpt2")
    folder.mkdir(exist_ok=True)
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "texts": TEXTS}
    given |= {"output": folder / "out.nc", "say": lambda line: None}
    given["options"] = RunOptions(tokens_per_batch=64, **options)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "__call__", sink)
        with pytest.raises(Interrupted) as caught:
            execution.execute(parse_query(QUERY), **given)
    return caught.value


def test_a_signal_saves_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    """What ran is in files of other names, its rows those of the whole run's samples."""
    error = interrupted(tmp_path, monkeypatch)
    golden("running/interrupted.txt", str(error).replace(f"{tmp_path}/", "") + "\n")
    assert 130 == error.exit_code
    names = {"out.partial.nc", "acts.partial.nc"}
    assert names == {path.name for path in tmp_path.iterdir()}
    assert all(name in str(error) for name in names)
    whole = run(tmp_path / "whole")["acts/transformer.h"]
    for name in names:
        assert [] == hookql.verify(tmp_path / name)
    part = xarray.open_dataset(tmp_path / "acts.partial.nc")
    rows = {}
    for data in (whole, part):
        sample = [s for s, n in enumerate(data["row_size"].values) for _ in range(n)]
        places = zip(sample, data["position"].values.tolist(), strict=True)
        of = data["values"].transpose("obs", "layer", "feature").values
        rows[id(data)] = dict(zip(places, (row.tobytes() for row in of), strict=True))
    found = rows[id(part)]
    assert 0 < len(found) < len(rows[id(whole)])
    assert {place: rows[id(whole)][place] for place in found} == found


def test_a_signal_with_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint has all of it, and the resumed run is the whole."""
    error = interrupted(tmp_path / "a", monkeypatch, checkpoint=tmp_path / "kept")
    assert "--resume" in str(error.help)
    assert [] == list((tmp_path / "a").iterdir())
    run(tmp_path / "a", checkpoint=tmp_path / "kept", resume=True)
    run(tmp_path / "b")
    assert content(tmp_path / "a" / "acts.nc") == content(tmp_path / "b" / "acts.nc")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_on_the_command_line(number: int, tmp_path: Path) -> None:
    """The command finishes its batch, saves, and exits with 130."""
    data = tmp_path / "data.txt"
    data.write_text("In the beginning God created the heaven and the earth.\n" * 200_000)
    command = [sys.executable, "-m", "hookql", "run", "-q", "capture values from h[0]"]
    process = subprocess.Popen(
        [*command, "--data", str(data), "-o", "a.nc", "--limit", "30000", "--force"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    while not line.startswith("values:"):
        assert line, "the run ended before it began"
        line = process.stderr.readline()
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert 130 == process.returncode, errors
    assert "Traceback" not in errors
    assert "a.partial.nc" in errors
    assert {"a.partial.nc", "data.txt"} == {path.name for path in tmp_path.iterdir()}
    assert [] == hookql.verify(tmp_path / "a.partial.nc")
