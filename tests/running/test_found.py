"""What reviewers found: each once wrong, and refused, said or cleaned up now."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hookql
from hookql import execute as execution
from hookql.api import parse_query
from hookql.cli import main
from hookql.errors import Interrupted
from hookql.options import RunOptions
from hookql.raw.shelf import Shelf
from hookql.results.netcdf import save
from tests.crash.kill import content
from tests.running.test_long_runs import (
    QUERY,
    TEXTS,
    Stopped,
    crashed,
    interrupted,
    run,
    said,
)
from tests.tiny import tiny


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was killed after some batches, its output beside it."""
    crashed(monkeypatch, 5, tmp_path, checkpoint=tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("change", ["epsilon", "tokenizer"])
def test_another_model_of_the_same_weights_is_not_resumed(change: str, kept: Path) -> None:
    """What a model computes depends on its configuration too, and on the tokenizer's words."""
    model, tokenizer, _ = tiny("gpt2")
    if change == "epsilon":
        model.config.layer_norm_epsilon = 0.1
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 0.1
    else:
        tokenizer.add_tokens(["zz"])
    again: dict[str, Any] = {"checkpoint": kept, "resume": True}
    message = said(lambda: run(kept.parent, model=model, tokenizer=tokenizer, **again))
    assert "checkpoint-differs" in message
    assert ("model config" if change == "epsilon" else "tokenizer") in message


def test_what_a_killed_run_left_is_removed(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unfinished files beside the output go when the run is resumed."""

    def killed(*given: Any, **more: Any) -> None:
        raise Stopped

    again: dict[str, Any] = {"checkpoint": kept, "resume": True, "checkpoint_every": 1e-9}
    with monkeypatch.context() as patch:
        # As SIGKILL has it: nothing is cleaned up.
        patch.setattr("hookql.results.outputs.save", killed)
        patch.setattr("hookql.running.disk.remove", lambda paths: None)
        with pytest.raises(Stopped):
            run(kept.parent, **again)
    assert [".acts.nc"] == [p.name[:8] for p in kept.parent.glob(".*.tmp")]
    run(kept.parent, **again)
    assert {"kept", "out.nc", "acts.nc"} == {path.name for path in kept.parent.iterdir()}


def test_a_stranger_s_file_is_kept(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that appeared meanwhile is not the run's own, and needs `overwrite`."""
    again: dict[str, Any] = {"checkpoint": kept, "resume": True, "checkpoint_every": 1e-9}

    def killed(*given: Any, **more: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("hookql.results.outputs.save", killed)
        with pytest.raises(Stopped):
            run(kept.parent, **again)
    precious = kept.parent / "acts.nc"
    precious.write_text("precious")
    assert "file-exists" in said(lambda: run(kept.parent, **again))
    assert "precious" == precious.read_text()
    precious.unlink()
    run(kept.parent, **again)
    assert [] == hookql.verify(precious)


def test_its_own_first_file_is_not_in_the_way(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two files, the run writes both when it is resumed."""
    again: dict[str, Any] = {"checkpoint": kept, "resume": True, "checkpoint_every": 1e-9}
    saved = []

    def once(*given: Any, **more: Any) -> None:
        if saved:
            raise Stopped
        saved.append(given[1])
        save(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr("hookql.results.outputs.save", once)
        with pytest.raises(Stopped):
            run(kept.parent, **again)
    run(kept.parent, **again)
    run(kept.parent / "alone")
    for name in ("acts.nc", "out.nc"):
        assert content(kept.parent / "alone" / name) == content(kept.parent / name)


def test_room_that_the_checkpoint_takes_already(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before is not asked for once more."""
    needed = []

    def asked(folders: dict[Path, int], force: bool) -> None:
        needed.append(dict(folders))

    monkeypatch.setattr("hookql.running.prepare.check_room", asked)
    run(kept.parent / "new", checkpoint=kept.parent / "other")
    held = sum(path.stat().st_size for path in kept.iterdir())
    run(kept.parent, checkpoint=kept, resume=True)
    first, again = needed
    assert 0 < held
    assert max(0, first[kept.parent / "other"] - held) == again[kept]


def test_partial_files_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second interrupted run leaves the first one's files as they are."""
    interrupted(tmp_path, monkeypatch)
    before = (tmp_path / "acts.partial.nc").read_bytes()
    interrupted(tmp_path, monkeypatch)
    assert before == (tmp_path / "acts.partial.nc").read_bytes()
    assert (tmp_path / "acts.partial-2.nc").exists()


def test_names_that_no_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names too long or not of UTF-8, and two names of one file, are usage errors beforehand."""
    monkeypatch.chdir(tmp_path)
    long = "a" * 300 + ".nc"
    query = ["run", "-q", "capture mean from h[0]", "--text", "abc", "-o"]
    assert 2 == main([*query, long])
    assert 2 == main([*query, "bad\udcff.nc"])
    assert 2 == main(["run", "-q", f'capture mean from h[0] into "{long}"', "--text", "abc"])
    for command in (["show"], ["verify"], ["export", "--to", "npy"]):
        assert main([*command, long]) in (1, 2)
    Path("link.nc").symlink_to("out.nc")
    both = 'capture mean from h[0] into "link.nc" capture std from h[0]'
    assert 2 == main(["run", "-q", both, "--text", "abc", "-o", "out.nc", "--overwrite"])
    assert "Traceback" not in capsys.readouterr().err
    assert ["link.nc"] == [path.name for path in tmp_path.iterdir()]


def test_verify_prints_nothing_that_steers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a hostile file is called by is printed without escapes."""
    evil = "\x1b[31mEVIL\x07"
    monkeypatch.setattr(hookql, "verify", lambda path: [f"`{evil}` is missing"])
    (tmp_path / "a.nc").touch()
    assert 1 == main(["verify", str(tmp_path / "a.nc")])
    assert "\x1b" not in capsys.readouterr().err


def test_numbers_too_large_for_the_dtype_asked_for(golden: Callable[[str, str], None]) -> None:
    """They become infinite, which is said."""
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "texts": TEXTS[:3]}
    query = "capture values(exp(100 + abs(x))) as large from h[0]"
    with pytest.warns(hookql.HookQLWarning, match="stored-infinite") as caught:
        result = hookql.run(query, store_dtype="float32", **given)
    wide = hookql.run(query, **given)
    assert np.isfinite(wide["large"]).all()
    number = int(np.isinf(result["large"]).sum())
    (said,) = [str(w.message) for w in caught if "stored-infinite" in str(w.message)]
    assert f"{number:,} values" in said
    golden("running/stored_infinite.txt", said + "\n")


def test_every_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows may come from any of several devices."""
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    shelf = object.__new__(Shelf)
    shelf._done, shelf.given, shelf.infinite, shelf._pieces = 0, 0, 0, {}
    shelf.state()
    assert [0, 1, 2] == waited


def test_an_exported_folder_is_read_whole(tmp_path: Path) -> None:
    """pyarrow and pandas take the folder of a Parquet export as one table."""
    import pyarrow.parquet

    run(tmp_path)
    rows = hookql.load(tmp_path / "acts.nc").sizes["obs"]
    folder = hookql.export(tmp_path / "acts.nc", "parquet", shard_bytes=100_000)
    assert 1 < len(list(folder.glob("*.parquet")))
    assert rows == pyarrow.parquet.read_table(folder).num_rows


def test_an_error_of_the_disk_is_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    """A result file on a full disk says that it is full, whatever netCDF calls it."""
    monkeypatch.setattr("hookql.results.netcdf.full", lambda folder: True)

    def fails(*_: Any) -> None:
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr("hookql.results.netcdf.seal", fails)
    message = said(lambda: run(tmp_path, QUERY))
    golden("running/full_disk.txt", message.replace(f"{tmp_path}/", "") + "\n")
    assert [] == list(tmp_path.iterdir())


def test_a_finished_run_whose_result_is_gone(tmp_path: Path) -> None:
    """There is nothing to resume either way; only one of them is a success."""
    again: dict[str, Any] = {"checkpoint": tmp_path / "kept", "resume": True}
    run(tmp_path, **again)
    with pytest.raises(hookql.AlreadyDone) as caught:
        run(tmp_path, **again)
    assert 0 == caught.value.exit_code
    with (tmp_path / "acts.nc").open("ab") as file:
        file.write(b"x")
    (tmp_path / "out.nc").unlink()
    with pytest.raises(hookql.UsageError, match="lost") as lost:
        run(tmp_path, **again)
    assert 2 == len(lost.value.notes)


def test_a_result_in_memory_is_no_file() -> None:
    """`verify` and `export` of what `run` returned say what is meant."""
    model, tokenizer, _ = tiny("gpt2")
    result: Any = hookql.run(
        "capture values from h[0]", model=model, tokenizer=tokenizer, texts=TEXTS[:2]
    )
    for call in (hookql.verify, lambda tree: hookql.export(tree, "npy")):
        with pytest.raises(hookql.UsageError, match="path of its file"):
            call(result)


def test_a_resumed_saving_that_is_interrupted_can_be_resumed(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first file is its own still, after a signal while the batches done are read again."""
    saved: list[object] = []

    def once(*given: Any, **more: Any) -> None:
        if saved:
            raise Stopped
        saved.append(given)
        save(*given, **more)

    again: dict[str, Any] = {"checkpoint": kept, "resume": True, "checkpoint_every": 1e-9}
    with monkeypatch.context() as patch:
        patch.setattr("hookql.results.outputs.save", once)
        with pytest.raises(Stopped):
            run(kept.parent, **again)
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "texts": TEXTS}
    given |= {"output": kept.parent / "out.nc", "say": lambda line: None}
    given["options"] = RunOptions(tokens_per_batch=64, checkpoint=kept, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "interruptible", lambda say: nullcontext(lambda: True))
        with pytest.raises(Interrupted):
            execution.execute(parse_query(QUERY), **given)
    run(kept.parent, **again)
    run(kept.parent / "alone")
    for name in ("acts.nc", "out.nc"):
        assert content(kept.parent / "alone" / name) == content(kept.parent / name)


def test_a_checkpoint_of_rows_needs_a_file_for_them(
    tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    """Rows that nobody gave a file lie in a folder of the process's own: nothing to resume into."""
    model, tokenizer, _ = tiny("gpt2")
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "texts": TEXTS[:2]}
    query = "capture values from h[0]"
    message = said(lambda: hookql.run(query, checkpoint=tmp_path / "kept", **given))
    golden("running/no_output.txt", message + "\n")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**400])
@pytest.mark.parametrize("query", ["values(row.id) as id", "mean(row.id)", "mean(x * row.id)"])
def test_whole_numbers_that_would_become_others(
    number: int, query: str, golden: Callable[[str, str], None]
) -> None:
    """What no float64 holds is an error that names the sample, not another number."""
    model, tokenizer, _ = tiny("gpt2")
    data = [{"text": "abc", "id": 2**53}, {"text": "abcd", "id": number}]
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer}
    message = said(
        lambda: hookql.run(f"capture {query} from h[0] where row.id != none", data=data, **given)
    )
    assert message.startswith("error[not-exact]")
    if number == 2**53 + 1 and query.startswith("values"):
        golden("running/not_exact.txt", message + "\n")
    fine: Any = hookql.run(
        "capture values(row.id) as id from h[0] where row.id != none", data=data[:1], **given
    )
    assert {2.0**53} == set(fine["id"].values.ravel().tolist())
    same = f"capture count from h[0] where row.id == {2**53}"
    assert 3 == int(hookql.run(same, data=data, **given)["count"])
