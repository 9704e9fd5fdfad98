"""Where an export goes: nothing is destroyed, nothing half-made is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookql.errors import HookQLError, UsageError
from hookql.exports import FORMATS, export
from hookql.exports.files import Sink
from hookql.exports.manifest import damage
from tests.exports.made import Raw, read_back, write_nc

LAYERS = Raw({"values": ("<f4", ("layer", "obs", "feature"))}, (3, 4), "/acts/h")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, hidden ones too."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A result file in a folder of its own."""
    path = tmp_path / "here" / "acts.nc"
    path.parent.mkdir()
    write_nc(path, [LAYERS])
    return path


@pytest.mark.parametrize("name", ["acts.nc", "acts", "acts.v2.nc"])
def test_the_default_lies_beside_the_file(name: str, tmp_path: Path) -> None:
    """`acts.nc` becomes `acts.npy`; other dots are kept."""
    write_nc(tmp_path / name, [LAYERS])
    expected = tmp_path / f"{name.removesuffix('.nc')}.npy"
    assert expected == export(tmp_path / name, "npy")
    assert sorted([name, expected.name]) == sorted(p.name for p in tmp_path.iterdir())


def test_an_export_is_replaced_only_when_asked(source: Path) -> None:
    """Without overwrite it stays; with it only the new one is there."""
    folder = export(source, "npy", shard_bytes=100)
    before = contents(folder)
    with pytest.raises(UsageError) as caught:
        export(source, "npy")
    assert "file-exists" == caught.value.code
    assert before == contents(folder)
    write_nc(source, [LAYERS], seed=2)
    expected = write_nc(source, [LAYERS], seed=2)["/acts/h"]["values"]
    export(source, "safetensors", folder, overwrite=True)
    assert ["_manifest.json", "acts/h/00000.safetensors"] == sorted(contents(folder))
    assert expected.tobytes() == read_back(folder)["/acts/h"]["values"].tobytes()
    assert ["acts.nc", "acts.npy"] == sorted(os.listdir(source.parent))


def own_file(folder: Path) -> None:
    """A folder of somebody else's."""
    folder.mkdir()
    (folder / "thesis.tex").write_text("years")


def own_manifest(folder: Path) -> None:
    """One with a manifest that is not ours."""
    folder.mkdir()
    (folder / "_manifest.json").write_text('{"name": "an app"}')


def added(folder: Path) -> None:
    """An export that somebody has put something into."""
    export(folder.parent / "acts.nc", "npy", folder)
    (folder / "acts" / "notes.txt").write_text("years")


def added_folder(folder: Path) -> None:
    """An export with a folder in it that is not of it."""
    export(folder.parent / "acts.nc", "npy", folder)
    (folder / "acts" / "mine").mkdir()


def added_link(folder: Path) -> None:
    """An export with a link in it."""
    export(folder.parent / "acts.nc", "npy", folder)
    (folder / "link").symlink_to(folder.parent)


def plain_file(folder: Path) -> None:
    """No folder at all."""
    folder.write_text("years")


@pytest.mark.parametrize(
    "make", [own_file, own_manifest, added, added_folder, added_link, plain_file]
)
def test_nothing_of_anybody_else_is_replaced(make: Callable[[Path], None], source: Path) -> None:
    """Overwriting takes away exports, and nothing else."""
    make(source.parent / "out")
    before = contents(source.parent)
    with pytest.raises(UsageError) as caught:
        export(source, "npy", source.parent / "out", overwrite=True)
    assert caught.value.code in ("not-an-export", "file-exists")
    assert before == contents(source.parent)


def test_a_link_stays_one(source: Path) -> None:
    """An output that is a link is written where the link leads."""
    export(source, "npy", source.parent / "real")
    (source.parent / "link").symlink_to("real")
    export(source, "parquet", source.parent / "link", overwrite=True)
    assert (source.parent / "link").is_symlink()
    assert (source.parent / "real" / "acts/h/00000.parquet").is_file()
    assert ["acts.nc", "link", "real"] == sorted(os.listdir(source.parent))


def failure(kind: int) -> BaseException:
    """A full disk, a broken disk, or Ctrl-C."""
    if kind == 0:
        return KeyboardInterrupt()
    code = (errno.ENOSPC, errno.EIO)[kind - 1]
    return OSError(code, os.strerror(code))


class Counted:
    """Whatever writes, syncs or renames, counted; the call of one number fails."""

    def __init__(self, patch: pytest.MonkeyPatch, fails: int, error: BaseException) -> None:
        self.calls = 0
        self.fails = fails
        self.error = error
        patch.setattr(os, "fsync", lambda handle: None)  # tests need no disk
        for where, name in ((os, "fsync"), (os, "rename"), (Sink, "write"), (Path, "mkdir")):
            patch.setattr(where, name, self.counting(getattr(where, name)))

    def counting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The function, but for one call."""

        def call(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], Sink) and arguments[0].closed:
                return real(*arguments, **options)  # a writer that an earlier failure left
            self.calls += 1
            if self.calls == self.fails:
                raise self.error
            return real(*arguments, **options)

        return call


def outcome(action: Callable[[], object]) -> str:
    """What an action says at its end."""
    try:
        action()
    except HookQLError as error:
        return error.message
    except KeyboardInterrupt:
        return "interrupted"
    return "done"


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("to", FORMATS)
def test_whatever_fails_leaves_what_was(to: str, there: bool, source: Path) -> None:
    """Each single write, sync and rename fails once: full disk, broken disk, Ctrl-C."""
    target = source.parent / "out"
    if there:
        export(source, "npy", target)
        write_nc(source, [LAYERS], seed=2)
    before = contents(source.parent)
    number, done = 0, False
    while not done:
        number += 1
        with pytest.MonkeyPatch.context() as patch:
            error = failure(number % 3)
            counted = Counted(patch, number, error)
            said = outcome(lambda: export(source, to, target, overwrite=there))
        done = counted.calls < number
        if not done:
            known = isinstance(error, OSError)
            message = f"cannot write `{target}`: {error.strerror}" if known else "interrupted"
            assert message == said, number
            assert before == contents(source.parent), number
            assert ["acts.nc", *(["out"] if there else [])] == sorted(os.listdir(source.parent))
    assert 10 < number
    assert [] == damage(target)
    assert ["acts.nc", "out"] == sorted(os.listdir(source.parent))


def test_too_many_files_are_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that could not be read again is not written, and no folder is left."""
    monkeypatch.setattr("hookql.exports.manifest._MOST", 2000)
    with pytest.raises(HookQLError) as caught:
        export(source, "npy", shard_bytes=1)
    assert "35 files are too many for one manifest: take larger shards" in caught.value.message
    assert ["acts.nc"] == os.listdir(source.parent)


def test_a_full_disk_is_an_error(source: Path) -> None:
    """The same with a limit that the system sets, in a process of its own."""
    code = (
        "import sys, signal, resource\n"
        "from pathlib import Path\n"
        "from hookql.exports import export\n"
        "from hookql.errors import HookQLError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try:\n"
        "    export(Path(sys.argv[1]), sys.argv[2])\n"
        "except HookQLError as error:\n"
        "    print(error.code)\n"
    )
    for to in FORMATS:
        command = [sys.executable, "-c", code, str(source), to]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ("cannot-write\n", "", 0) == (done.stdout, done.stderr, done.returncode)
        assert ["acts.nc"] == os.listdir(source.parent)


MEMORY = """
import resource, sys
from pathlib import Path
from hookql.exports import export, tables
import netCDF4, numpy, importlib
tables.SLAB = 2**21
module = importlib.import_module("hookql.exports." + sys.argv[2])
if sys.argv[2] == "parquet":
    import pyarrow.parquet
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = now + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
export(Path(sys.argv[1]), sys.argv[2])
print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs to know its memory")
@pytest.mark.parametrize("to", FORMATS)
def test_memory_does_not_grow_with_the_file(to: str, tmp_path: Path) -> None:
    """A file several times as large as the memory that the process may have is exported."""
    rows, limit = 60_000, 128 * 2**20
    path = tmp_path / "acts.nc"
    sparse_nc(path, rows)
    assert path.stat().st_size > 2 * limit
    command = [sys.executable, "-c", MEMORY, str(path), to, str(limit)]
    # Allocators reserve far more addresses than they use.
    known = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, env=known, capture_output=True, text=True, check=False)
    assert ("done\n", "") == (done.stdout, done.stderr)


def sparse_nc(path: Path, rows: int) -> None:
    """A file of two layers of 600 numbers a token, of which few were ever written."""
    import netCDF4

    with netCDF4.Dataset(path, "w") as file:
        file.hookql_version = "0.1.0"
        for name, size in {"layer": 2, "obs": rows, "feature": 600, "sample": 1}.items():
            file.createDimension(name, size)
        dims = ("layer", "obs", "feature")
        file.createVariable("values", "<f4", dims, contiguous=True, fill_value=False)[1, -1] = 5
        sizes = file.createVariable("row_size", "<i8", ("sample",))
        sizes.sample_dimension = "obs"
        sizes[:] = rows
