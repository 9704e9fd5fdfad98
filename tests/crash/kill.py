"""Kill runs with SIGKILL at random moments, resume them, and compare with a run left alone.

    python -m tests.crash.kill 50

Each run is a process of its own, forked from this one, which has the model and runs nothing itself.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import netCDF4

import hookql
from hookql.errors import AlreadyDone

QUERY = """
capture mean, std, quantile(x, 0.1, 0.9) as spread, top(x, k=3) as fires
  from h[0:4]
  where position > 0
  as moments
capture mean, hist(x, bins=8, lo=-4, hi=4) as bars from h[2].mlp by position, row.kind as grouped
capture mean, count from h[1] by sample as each
capture values, values(norm(x)) as size, sum from h[1:3] where random(0.7, seed=3) into "acts.nc"
capture values from h[3] where norm(x) > 3 as large into "large.nc"
"""
FILES = ("out.nc", "acts.nc", "large.nc")
# What differs from run to run.
MOMENTS = ("started", "ended", "seconds", "history")
WORDS = "In the beginning God created the heaven and the earth and the evening and the morning"


def samples() -> list[dict[str, str]]:
    """Texts of many lengths, made of the same words."""
    draw, words = random.Random(1), WORDS.split()
    return [
        {
            "text": " ".join(draw.choice(words) for _ in range(draw.randint(1, 60))),
            "kind": draw.choice(["a", "b", "c"]),
        }
        for _ in range(120)
    ]


def run(folder: Path, model: Any, resume: bool) -> None:
    """The run that is killed, in this process."""
    hookql.run(
        QUERY,
        model=model,
        data=samples(),
        output=folder / "out.nc",
        checkpoint=folder / "checkpoint",
        checkpoint_every=0.02,
        resume=resume,
        tokens_per_batch=256,
    )


def forked(folder: Path, model: Any, resume: bool) -> int:
    """The number of a new process that does the run."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        run(folder, model, resume)
        code = 0
    except AlreadyDone:
        code = 0  # killed after its last word was written
    except BaseException as error:
        print(error, file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def finished(number: int) -> None:
    """Wait for a process that must succeed."""
    _, status = os.waitpid(number, 0)
    if status != 0:
        raise SystemExit(f"a run that nobody killed failed: {status}")


def content(path: Path) -> dict[str, bytes]:
    """Everything in a file but the moments: bytes of variables, texts of attributes."""
    found: dict[str, bytes] = {}

    def read(group: Any, name: str) -> None:
        for key in group.ncattrs():
            if key not in MOMENTS and name != "/_checksums":
                found[f"{name}@{key}"] = repr(group.getncattr(key)).encode()
        for key, variable in group.variables.items():
            if name == "/_checksums":
                continue  # of the moments as well
            variable.set_auto_maskandscale(False)
            values = variable[...]
            raw = repr(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes()
            found[f"{name}/{key}"] = repr((values.shape, values.dtype.str)).encode() + raw
        for key, inner in group.groups.items():
            read(inner, f"{name.rstrip('/')}/{key}")

    with netCDF4.Dataset(path) as file:
        read(file, "/")
    return found


def everything(folder: Path) -> Mapping[str, dict[str, bytes]]:
    """The contents of all files that the run writes."""
    return {name: content(folder / name) for name in FILES}


def main(number: int, seed: int = 0, kills: int = 2) -> int:
    """Kill that many runs, each up to ``kills`` times; how many came out as the one left alone."""
    draw = random.Random(seed)
    model = hookql.load_model("demo")
    same = moments = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        alone = root / "alone"
        alone.mkdir()
        started = time.perf_counter()
        finished(forked(alone, model, False))
        seconds = time.perf_counter() - started
        expected = everything(alone)
        for trial in range(number):
            folder = root / f"run{trial}"
            folder.mkdir()
            resume, report = False, []
            for _ in range(draw.randint(1, kills)):
                process = forked(folder, model, resume)
                wait = draw.uniform(0, seconds)
                time.sleep(wait)
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
                killed = os.WIFSIGNALED(status)
                moments += killed
                left = sorted(p.name for p in folder.glob("checkpoint/*"))
                report.append(f"{wait:.2f} s{'' if killed else ' (over)'}, {len(left)} files")
                resume = True
                if not killed:
                    break
            finished(forked(folder, model, True))
            strays = [p.name for p in folder.iterdir() if p.name not in (*FILES, "checkpoint")]
            actual = everything(folder)
            whole = [d for file in FILES for d in hookql.verify(folder / file)]
            fine = actual == expected and not whole
            same += fine
            print(f"{trial + 1}: {'; '.join(report)}: {'same' if fine else 'DIFFERENT'} {strays}")
            shutil.rmtree(folder)
    print(f"{same} of {number} runs, killed at {moments} moments, came out bit for bit the same")
    return same


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    sys.exit(0 if main(wanted, int(sys.argv[2]) if len(sys.argv) > 2 else 0) == wanted else 1)
