"""A checkpoint that is not as it was written is noticed: every bit, every byte, every file."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookql.checkpoint import Checkpoint, damage
from hookql.checkpoint.manifest import read
from hookql.errors import HookQLError
from tests.checkpoint.made import IDENTITY, SAVES, check, go

ROWS, STATE, MANIFEST = "rows-000001.hookql", f"state-{SAVES:06}.hookql", "manifest.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of three saves."""
    checkpoint = Checkpoint.open(tmp_path / "run", IDENTITY, resume=False)
    go(tmp_path / "run", checkpoint)
    checkpoint.close()
    return tmp_path / "run"


def noticed(folder: Path) -> bool:
    """Whether both ways of looking at a checkpoint say that something is wrong."""
    said = damage(folder)
    code = ""
    try:
        checkpoint = Checkpoint.open(folder, IDENTITY, resume=True)
    except HookQLError as error:
        code = error.code
    else:
        assert SAVES == check(checkpoint)
        checkpoint.close()
    assert bool(said) == bool(code), (said, code)
    assert code in ("", "checkpoint-damaged", "checkpoint-differs", "no-checkpoint")
    return bool(said)


def changes(whole: bytes) -> Iterator[bytes]:
    """A file with one bit flipped, at every byte; cut off at every length; and longer."""
    for at in range(len(whole)):
        yield whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        yield whole[:at]
    yield whole + b"\0"
    yield whole + whole


@pytest.mark.parametrize("name", [ROWS, STATE])
def test_every_byte_counts(name: str, folder: Path) -> None:
    """Of the rows and of the state."""
    whole = (folder / name).read_bytes()
    for changed in changes(whole):
        (folder / name).write_bytes(changed)
        assert noticed(folder)
    (folder / name).write_bytes(whole)
    assert not noticed(folder)


def test_every_byte_of_the_manifest_counts(folder: Path) -> None:
    """But for white space: whatever it then says, it is the same or it is refused."""
    path = folder / MANIFEST
    whole, manifest = path.read_bytes(), read(folder)
    harmless = 0
    for changed in changes(whole):
        path.write_bytes(changed)
        if not noticed(folder):
            harmless += 1
            assert manifest == read(folder)
    # A bit more or less in a space or a line break makes no white space, most of the time.
    assert harmless < len(whole) // 4


@pytest.mark.parametrize("name", [ROWS, STATE, MANIFEST])
@pytest.mark.parametrize("become", ["missing", "folder", "fifo", "link"])
def test_every_file_counts(name: str, become: str, folder: Path, tmp_path: Path) -> None:
    """One that is missing, or no file at all, is noticed, and nothing waits for it."""
    path = folder / name
    path.rename(tmp_path / "moved")
    if become == "folder":
        path.mkdir()
    elif become == "fifo":
        os.mkfifo(path)
    elif become == "link":
        path.symlink_to(tmp_path / "moved")
    assert noticed(folder)


def test_files_of_another_checkpoint_do_not_pass(folder: Path, tmp_path: Path) -> None:
    """Whole as they are, they are not those that the manifest names."""
    other = tmp_path / "other"
    checkpoint = Checkpoint.open(other, IDENTITY, resume=False)
    checkpoint.save({"number": 1, "mean": 3.0}, {})
    checkpoint.close()
    shutil.copy(other / "state-000001.hookql", folder / STATE)
    assert noticed(folder)


def test_shards_that_changed_places_do_not_pass(folder: Path) -> None:
    """Each is whole, but not where it stands."""
    one, two = folder / ROWS, folder / "rows-000002.hookql"
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)
    assert noticed(folder)


def test_rows_that_are_damaged_after_opening_are_not_served(folder: Path) -> None:
    """A disk may fail between two looks: replaying looks once more."""
    checkpoint = Checkpoint.open(folder, IDENTITY, resume=True)
    path = folder / "rows-000002.hookql"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(HookQLError, match="rows of `mean` do not have their checksum"):
        list(checkpoint.replay())
    checkpoint.close()


def test_all_that_is_damaged_is_said(folder: Path) -> None:
    """Not only the first."""
    (folder / ROWS).write_bytes(b"")
    (folder / "rows-000002.hookql").unlink()
    (folder / STATE).write_bytes(b"")
    names = [ROWS, "rows-000002.hookql", STATE]
    assert 3 == len(damage(folder))
    assert all(name in said for name, said in zip(names, damage(folder), strict=True))


def signed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest and give it the right checksum, as somebody who means harm would."""
    plain = json.loads((folder / MANIFEST).read_text())
    del plain["checksum"]
    change(plain)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    plain["checksum"] = f"{zlib.crc32(text.encode()):08x}"
    (folder / MANIFEST).write_text(json.dumps(plain))


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain["shards"][0].update(number="../../x"),
        lambda plain: plain["shards"][0].update(number=-1),
        lambda plain: plain["shards"][0].update(number=2),
        lambda plain: plain["shards"][0].update(crc32="0"),
        lambda plain: plain["shards"][0].update(rows=[]),
        lambda plain: plain["shards"][0].update(more=1),
        lambda plain: plain["shards"].append(3),
        lambda plain: plain.update(shards=None),
        lambda plain: plain.update(saved=True),
        lambda plain: plain.update(saved="/etc/passwd"),
        lambda plain: plain.update(state={"bytes": 1}),
        lambda plain: plain.update(state=[]),
        lambda plain: plain.update(identity=[]),
        lambda plain: plain.update(identity={"query": {"deep": []}}),
        lambda plain: plain.update(facts=3),
        lambda plain: plain.pop("identity"),
        lambda plain: plain.update(format=3),
        lambda plain: plain.update(unknown=3),
    ],
)
def test_a_hostile_manifest_is_refused(
    change: Callable[[dict[str, Any]], None], folder: Path
) -> None:
    """Whatever it says with a checksum that is right: no file elsewhere is read or removed."""
    signed(folder, change)
    assert damage(folder)
    with pytest.raises(HookQLError) as raised:
        Checkpoint.open(folder, IDENTITY, resume=True)
    assert raised.value.code in ("checkpoint-damaged", "checkpoint-differs")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
FIELDS = ["identity", "saved", "complete", "facts", "outputs", "state", "shards", "format"]


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(FIELDS), value=JSON, whole=st.binary(max_size=20) | st.none())
def test_any_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any, whole: bytes | None
) -> None:
    """Reading one never fails in any other way."""
    folder = tmp_path_factory.getbasetemp() / "any-manifest"
    if not folder.exists():
        Checkpoint.open(folder, IDENTITY, resume=False).close()
        shutil.copy(folder / MANIFEST, folder / "kept")
    shutil.copy(folder / "kept", folder / MANIFEST)
    signed(folder, lambda plain: plain.update({field: value}))
    if whole is not None:
        (folder / MANIFEST).write_bytes(whole)
    assert all(isinstance(said, str) for said in damage(folder))
    code = ""
    try:
        Checkpoint.open(folder, IDENTITY, resume=True).close()
    except HookQLError as error:
        code = error.code
    assert code in ("", "checkpoint-damaged", "checkpoint-differs", "no-checkpoint")


def test_looking_while_a_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a save replaces while somebody looks is no damage."""
    checkpoint = Checkpoint.open(folder, IDENTITY, resume=True)
    from hookql.checkpoint import manifest as manifests

    original, saves = manifests.check_state, [1]

    def check_state(*given: Any) -> None:
        if saves.pop() if saves else None:
            checkpoint.save({"number": 4}, {})
        original(*given)

    monkeypatch.setattr(manifests, "check_state", check_state)
    assert [] == damage(folder)
    checkpoint.close()
