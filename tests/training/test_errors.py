"""What users are told, as golden texts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import pytest
from torch.utils.data import DataLoader

from hookql.training.batches import TrainingBatches
from hookql.training.entry import training_batches
from tests.exports.made import Raw, write_nc
from tests.told import Case, told
from tests.training.made import write_rows

FILE = Path("acts.nc")
LAYERS = Raw({"values": ("<f4", ("layer", "obs", "feature"))}, (3, 4))
ROLES = [
    Raw({"values": ("<f4", ("layer", "obs", "feature")), "w": ("<f8", ("obs",))}, (3, 4), "/a/h"),
    Raw({"values": ("<f4", ("obs", "feature"))}, (3, 4), "/a/h.attn"),
]


def of(*raws: Raw, **options: Any) -> Case:
    """Batches of a file of these nodes; of one layer of 100 rows where there are none."""

    def case(patch: pytest.MonkeyPatch) -> None:
        if raws:
            write_nc(FILE, list(raws))
        else:
            write_rows(FILE, 100)
        training_batches(FILE, **options)

    return case


def after(change: Callable[[], object]) -> Case:
    """Batches of a file that something was done to first."""

    def case(patch: pytest.MonkeyPatch) -> None:
        write_rows(FILE, 100)
        change()
        training_batches(FILE)

    return case


def meanwhile(change: Callable[[], object], **options: Any) -> Case:
    """A file to which something is done after its batches were made."""

    def case(patch: pytest.MonkeyPatch) -> None:
        write_rows(FILE, 100)
        batches = training_batches(FILE, **options)
        change()
        list(batches)

    return case


def state(change: Callable[[dict[str, Any]], Any], **options: Any) -> Case:
    """A changed state, loaded."""

    def case(patch: pytest.MonkeyPatch) -> None:
        write_rows(FILE, 100)
        batches = training_batches(FILE, 10, **options)
        found = batches.state_dict()
        training_batches(FILE, 10).load_state_dict(change(found))

    return case


def elsewhere(patch: pytest.MonkeyPatch) -> None:
    """The state of batches that workers of somebody else's read."""
    batches = TrainingBatches(training_batches(write_rows(FILE, 100)).stream, 0)
    list(DataLoader(batches, batch_size=None, num_workers=1))
    batches.state_dict()


def two_files(patch: pytest.MonkeyPatch) -> None:
    """Files whose rows differ."""
    training_batches([write_rows(FILE, 20), write_rows(Path("b.nc"), 20, width=3)])


def foreign() -> None:
    """A file of somebody else."""
    with netCDF4.Dataset(FILE, "a") as file:
        file.delncattr("hookql_version")


CASES: dict[str, Case] = {
    "no file": lambda patch: training_batches(FILE),
    "a folder": lambda patch: training_batches("."),
    "no name": lambda patch: training_batches(7),  # type: ignore[arg-type]
    "no names": lambda patch: training_batches([]),
    "a text": after(lambda: FILE.write_text("capture")),
    "half a file": after(lambda: FILE.write_bytes(FILE.read_bytes()[:-300])),
    "somebody else's": after(foreign),
    "statistics only": of(Raw({}, (3,))),
    "no rows": of(Raw({"values": ("<f4", ("obs", "feature"))}, (0, 0))),
    "several nodes": of(*ROLES),
    "several variables": of(*ROLES, node="a/h"),
    "several layers": of(LAYERS),
    "no such node": of(*ROLES, node="a/h.atn"),
    "no such variable": of(*ROLES, variable="value"),
    "none that fits both": of(*ROLES, node="a/h.attn", variable="w"),
    "no such layer": of(LAYERS, layer=3),
    "no layers": of(*ROLES, node="a/h.attn", layer=3),
    "one layer twice": of(LAYERS, layer=[2, 2]),
    "a layer's name": of(LAYERS, layer="2"),
    "files that differ": two_files,
    "batches of nothing": of(batch_size=0),
    "batches of true": of(batch_size=True),
    "a seed below nought": of(seed=-1),
    "half a worker": of(workers=0.5),
    "memory in words": of(memory="2 GB"),
    "little memory": of(memory=0.001),
    "little memory for two": of(memory=0.005, workers=2),
    "a rank alone": of(rank=1),
    "a rank too high": of(rank=2, world_size=2),
    "an epoch below nought": lambda patch: training_batches(write_rows(FILE, 9)).set_epoch(-1),
    "changed meanwhile": meanwhile(lambda: os.utime(FILE, (1, 1))),
    "changed meanwhile, with workers": meanwhile(lambda: os.utime(FILE, (1, 1)), workers=1),
    "gone meanwhile": meanwhile(lambda: FILE.unlink()),
    "state of nothing": state(lambda found: {"epoch": 1}),
    "state of another seed": state(lambda found: found, seed=7),
    "state of other workers": state(lambda found: found, workers=2),
    "state with a hole": state(lambda found: {**found, "settings": None}),
    "state of no number": state(lambda found: {**found, "batches": "three"}),
    "state of somebody else's workers": elsewhere,
}


def test_what_users_are_told(
    tmp_path: Path, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake has its sentence."""
    golden("training/errors.txt", told(CASES, tmp_path))


def test_what_workers_are_told(
    tmp_path: Path, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In workers of a DataLoader, torch shows the text of an error."""
    monkeypatch.chdir(tmp_path)
    write_rows(FILE, 100)
    texts = []
    for workers, before in ((1, 0), (0, 1)):
        batches = training_batches(FILE, 10, workers=workers)
        batches.load_state_dict({**batches.state_dict(), "batches": before})
        with pytest.raises(RuntimeError) as error:
            list(DataLoader(batches, batch_size=None, num_workers=1))
        texts.append(str(error.value).split("RuntimeError: \n")[-1].strip())
    golden("training/in-workers.txt", "\n\n".join(texts) + "\n")
