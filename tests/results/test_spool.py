"""Numbers on disk: they come back in order, leave no file behind, and a full disk is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hookql.errors import HookQLError
from hookql.results.spool import Spool, check_room, folder_of, mapped

Golden = Callable[[str, str], None]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_rows_come_back_in_order(tmp_path: Path, dtype: Any) -> None:
    """Whatever the pieces, and also where they do not lie in one piece of memory."""
    rows = np.arange(60, dtype=dtype).reshape(10, 2, 3)
    spool = Spool(tmp_path)
    for piece in (rows[:3], rows[3:3], np.asfortranarray(rows[3:4]), rows[4:]):
        spool.append(piece)
    back = spool.close()
    np.testing.assert_array_equal(back, rows)
    assert back.dtype == dtype
    assert folder_of(back.reshape(5, -1)[1:]) == tmp_path


def test_no_file_is_left(tmp_path: Path) -> None:
    """The file has no name from the start: nothing to clean up after a crash."""
    spool = Spool(tmp_path)
    assert os.listdir(tmp_path) == []
    spool.append(np.ones((2, 2)))
    back = spool.close()
    assert os.listdir(tmp_path) == []
    assert back.tolist() == [[1, 1], [1, 1]]


def test_nothing_to_map(tmp_path: Path) -> None:
    """No rows, or rows of no numbers, are arrays of size 0 of the right shape."""
    spool = Spool(tmp_path)
    spool.append(np.empty((0, 4), np.int64))
    back = spool.close()
    assert (back.shape, back.dtype) == ((0, 4), np.int64)
    assert Spool(tmp_path).close().shape == (0,)


def test_other_rows_are_refused(tmp_path: Path) -> None:
    """A row of another width or dtype would shift all that follow."""
    spool = Spool(tmp_path)
    spool.append(np.ones((2, 3)))
    for wrong in (np.ones((2, 4)), np.ones((2, 3), np.float32)):
        with pytest.raises(ValueError, match="rows of"):
            spool.append(wrong)
    spool.abandon()


def test_what_is_mapped(tmp_path: Path) -> None:
    """Views and plain arrays made of a mapped one lie on disk too, copies do not."""
    spool = Spool(tmp_path)
    spool.append(np.ones((4, 3)))
    back = spool.close()
    for view in (back, back[1:], np.asarray(back), np.asarray(back).reshape(2, 6).T):
        assert mapped(view) is not None
    for copy in (np.array(back), np.ones(3), np.ones((4, 3))[1:]):
        assert mapped(copy) is None


def written(spool: Spool, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows through a spool."""
    spool.append(rows)
    return spool.close()


def test_full_disk(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, but what to do about it: at writing, at the end, and foreseen."""
    monkeypatch.chdir(tmp_path)

    def full(size: int) -> str:
        spool = Spool(Path())
        spool.abandon()
        spool._file = open("/dev/full", "r+b")  # noqa: SIM115
        with pytest.raises(HookQLError) as caught:
            written(spool, np.ones(size))
        return str(caught.value)

    assert full(1_000_000) == full(1)
    golden("results/cannot-spool.txt", full(1) + "\n")
    usage = shutil.disk_usage(tmp_path)._replace(free=7_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    check_room(Path(), 7_500_000_000, "`mean`")
    with pytest.raises(HookQLError) as caught:
        check_room(Path(), 8_000_000_000, "`mean`")
    golden("results/result-too-large.txt", str(caught.value) + "\n")


def test_missing_folder(tmp_path: Path) -> None:
    """A folder that is not there is a mistake of the user's."""
    with pytest.raises(HookQLError) as caught:
        Spool(tmp_path / "none")
    assert caught.value.code == "cannot-spool"
