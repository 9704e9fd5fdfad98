"""Room on the disk, before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from hookql.errors import UsageError
from hookql.raw import room
from hookql.raw.room import amount, bytes_of, check_room
from tests.raw.made import table


@pytest.fixture
def four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk has so much room for who is not root."""
    disk = SimpleNamespace(f_bavail=1_000_000, f_bfree=9_000_000, f_blocks=9_000_000, f_frsize=4000)
    monkeypatch.setattr(os, "statvfs", lambda folder: disk)


def test_what_tables_take(tmp_path: Path) -> None:
    """The bytes of their numbers; rows whose number is not known count nothing."""
    values, position, row_size = 2 * 10 * 3 * 4, 10 * 4, 5 * 8
    assert bytes_of([table(rows=10)]) == values + position + row_size
    assert bytes_of([table(rows=10), table(rows=None)]) == values + position + 2 * row_size
    assert bytes_of([table(rows=10, dtype="<f8")]) == 2 * values + position + row_size


@pytest.mark.usefixtures("four_gigabytes")
def test_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Callable[[str, str], None]
) -> None:
    """Refused with what is needed and what there is, unless it is forced."""
    monkeypatch.chdir(tmp_path)
    check_room({Path("out"): 4_000_000_000}, force=False)
    with pytest.raises(UsageError) as caught:
        check_room({Path("out"): 4_000_000_001}, force=False)
    golden("raw/no-room.txt", f"{caught.value}\n")
    check_room({Path("out"): 4_000_000_001}, force=True)


@pytest.mark.usefixtures("four_gigabytes")
def test_folders_of_one_disk_share_its_room(tmp_path: Path) -> None:
    """Those that are not there yet as well."""
    (tmp_path / "a").mkdir()
    check_room({tmp_path / "a": 3_000_000_000}, force=False)
    with pytest.raises(UsageError, match=r"take 6.0 GB"):
        check_room({tmp_path / "a": 3_000_000_000, tmp_path / "b" / "c": 3_000_000_000}, False)


def test_a_real_disk(tmp_path: Path) -> None:
    """No disk has an exabyte."""
    check_room({tmp_path: 1}, force=False)
    with pytest.raises(UsageError) as caught:
        check_room({tmp_path: 10**18}, force=False)
    assert caught.value.code == "no-room"


def test_amounts() -> None:
    """Bytes as people say them."""
    found = [amount(size) for size in (0, 999, 1500, 2_500_000, 1_234_567_890_123)]
    assert found == ["0 bytes", "999 bytes", "1.5 kB", "2.5 MB", "1,234.6 GB"]
    assert room.amount(10**9) == "1.0 GB"
