"""`hookql.verify` and the command: files, checkpoints, exported folders, and what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import netCDF4
import pytest

import hookql
from hookql.cli import main
from tests.running.test_long_runs import run


def changed(path: Path) -> None:
    """Change one number of a result, as a bad disk would."""
    with netCDF4.Dataset(path, "a") as file:
        file["values"].set_auto_mask(False)
        file["values"][0, 7, 3] += 1


def test_a_file_and_its_export(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    """What is whole, and what a number that changed is said to be."""
    run(tmp_path)
    path = tmp_path / "acts.nc"
    folder = hookql.export(path, "npy")
    assert [] == hookql.verify(path)
    assert [] == hookql.verify(tmp_path / "out.nc")
    assert [] == hookql.verify(folder)
    changed(path)
    with (folder / "_manifest.json").open("a") as file:
        file.write(" x")
    found = [*hookql.verify(path), *hookql.verify(folder)]
    golden("running/verify.txt", "\n".join(found).replace(f"{tmp_path}/", "") + "\n")


def test_a_finished_checkpoint(tmp_path: Path) -> None:
    """Of a run that is over, its results are what is looked at."""
    run(tmp_path, checkpoint=tmp_path / "kept")
    assert [] == hookql.verify(tmp_path / "kept")
    changed(tmp_path / "acts.nc")
    (tmp_path / "out.nc").unlink()
    found = hookql.verify(tmp_path / "kept")
    assert 2 == len(found)
    assert any("out.nc` is not there" in sentence for sentence in found)
    assert any("rows 0 to" in sentence for sentence in found)


def test_the_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    golden: Callable[[str, str], None],
) -> None:
    """It says what it found, and exits with 0, 1 or 2."""
    run(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["verify", "acts.nc"])
    assert "acts.nc: whole\n" == capsys.readouterr().out
    changed(Path("acts.nc"))
    assert 1 == main(["verify", "acts.nc"])
    assert "differ" in capsys.readouterr().err
    Path("folder").mkdir()
    assert 2 == main(["verify", "folder"])
    assert 2 == main(["verify", "nowhere"])
    golden("running/nothing_to_verify.txt", capsys.readouterr().err)
