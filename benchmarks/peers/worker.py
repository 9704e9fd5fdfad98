"""One contestant in its own environment: told on stdin to run a task, answers on stdout.

Lines of JSON both ways. It imports nothing of HookQL's and of the harness, so that it runs where
only the contestant is installed.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch


def resident(field: str) -> int:
    """Kilobytes of this process as Linux counts them: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise ValueError(f"no {field}")


def settle() -> int:
    """Give free memory back and begin a new peak; return what is left, in kilobytes."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def numbers(contestant: ModuleType, answer: Any, at: SimpleNamespace) -> dict[str, Any]:
    """A task's answer as NumPy arrays; of raw rows on disk, what can be compared in any order."""
    if answer is None:
        rows = contestant.stored(at.out).reshape(-1, at.width).astype(np.float64)
        return {"rows": np.array(len(rows)), "mean": rows.mean(0)[None], "std": rows.std(0)[None]}
    found = contestant.numbers(answer) if hasattr(contestant, "numbers") else answer
    return {name: np.asarray(value) for name, value in found.items()}


def main() -> None:
    """Answer every line of stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    name, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    contestant = importlib.import_module(f"benchmarks.peers.{name}")
    model, tokenizer = contestant.load(folder)
    base = settle()
    for line in sys.stdin:
        job = json.loads(line)
        at = SimpleNamespace(**job["at"], out=Path(job["out"]))
        texts = json.loads(Path(job["texts"]).read_text())[: job["limit"]]
        if job["fresh"]:
            base = settle()  # after the first tasks: weights have been read, libraries are there
        reply: dict[str, Any] = {}
        try:
            settle()
            started = time.perf_counter()
            answer = getattr(contestant, job["task"])(model, tokenizer, texts, at)
            reply["seconds"] = time.perf_counter() - started
            reply["megabytes"] = max(0, resident("VmHWM") - base) / 1024
            np.savez(at.out / "answer.npz", **numbers(contestant, answer, at))
            del answer
        except Exception as error:
            reply["error"] = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
