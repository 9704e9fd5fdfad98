"""Each contestant's environment: made by the command, with the versions of requirements/NAME.txt.

HookQL and hooks by hand run in the environment of the command itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONTESTANTS = {
    "with_hookql": "HookQL",
    "by_expert": "hooks, expert",
    "by_hand": "hooks, plain",
    "with_nnsight": "nnsight",
    "with_transformer_lens": "TransformerLens",
    "with_mi_crow": "mi-crow",
}


def python_of(contestant: str, cache: Path) -> Path:
    """The interpreter of a contestant; its environment is made if it is not there as pinned.

    Raises subprocess.CalledProcessError with pip's words where it cannot be installed.
    """
    name = contestant.removeprefix("with_")
    wanted = HERE / "requirements" / f"{name}.txt"
    if not wanted.exists():
        return Path(sys.executable)
    folder = cache / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {CONTESTANTS[contestant]} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--requirement", str(wanted)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        stamp.write_text(digest)
    return python


def versions(contestant: str) -> str:
    """What of it is pinned, in words; empty for what runs in the command's own environment."""
    wanted = HERE / "requirements" / f"{contestant.removeprefix('with_')}.txt"
    if not wanted.exists():
        return ""
    pins = dict(line.split("==") for line in wanted.read_text().split())
    names = (contestant.removeprefix("with_").replace("_", "-"), "torch", "transformers", "numpy")
    return ", ".join(f"{name} {pins[name]}" for name in names)


class Worker:
    """A contestant with one model loaded, in a process of its own that waits for tasks."""

    def __init__(self, contestant: str, folder: str, threads: int, cache: Path) -> None:
        command = [str(python_of(contestant, cache)), "-m", "benchmarks.peers.worker"]
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        root = HERE.parent.parent
        self.log = cache / f"{contestant}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, contestant, folder, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=root,
                env={
                    **os.environ,
                    **quiet,
                    "PYTHONPATH": str(root),
                    "OMP_NUM_THREADS": str(threads),
                },
            )

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run one task; `error` in the answer where it failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            return {"error": f"its process ended: {' '.join(last)}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
