"""`python -m benchmarks.peers`: the comparison, its check of the numbers, and docs/benchmarks.md.

Every contestant keeps a process of its own and does each task in turn with the others, several
times over; medians are printed. Only ratios mean anything, and only of one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import transformers

from benchmarks.peers import models
from benchmarks.peers.agreement import AGREES, deviation
from benchmarks.peers.chart import chart
from benchmarks.peers.corpora import QUICK, SIZES, corpora
from benchmarks.peers.environments import CONTESTANTS, HERE, Worker, python_of
from benchmarks.peers.lines import lines_written
from benchmarks.peers.reference import reference
from benchmarks.peers.report import Cell, markdown, table
from benchmarks.peers.tasks import TASKS

ROOT = HERE.parent.parent


class Comparison:
    """One model's contestants at their tasks."""

    def __init__(self, name: str, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder, self.name = options, folder, name
        where = str(models.folder(name, ROOT / ".cache" / "peers"))
        texts = corpora(
            transformers.AutoTokenizer.from_pretrained(where), QUICK if options.quick else SIZES
        )
        words = {key: texts.pop(key) for key in ("word", "word_id")}
        self.at = {**models.names(name), **words, "batch": 16}
        for corpus, lines in texts.items():
            (folder / f"{corpus}.json").write_text(json.dumps(lines))
        wanted = {corpus: texts[corpus] for corpus in {TASKS[t].corpus for t in options.tasks}}
        wanted["plain"] = texts["plain"]
        print(f"{models.NAMES[name]}: the reference in float64 ...", flush=True)
        at = SimpleNamespace(**self.at)
        self.truth = reference(where, wanted, at)
        self.short = reference(where, {"plain": texts["plain"][:8]}, at)
        self.workers: dict[str, Worker] = {}
        self.missing: dict[str, str] = {}
        for contestant in options.contestants:
            try:
                python_of(contestant, ROOT / ".cache" / "peers")
            except subprocess.CalledProcessError as error:
                reason = (str(error.stderr).strip().splitlines() or ["it could not be installed"])[
                    -1
                ]
                self.missing[contestant] = f"not installed: {reason}"
                continue
            cache = ROOT / ".cache" / "peers"
            self.workers[contestant] = Worker(contestant, where, options.threads, cache)

    def ask(self, contestant: str, task: str, **changes: Any) -> tuple[dict[str, Any], Any]:
        """One run of a task, in a folder of its own: what was measured, and the numbers."""
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            job = {
                "task": task,
                "texts": str(self.folder / f"{TASKS[task].corpus}.json"),
                "at": self.at,
                "out": out,
                "limit": None,
                "fresh": False,
                **changes,
            }
            told = self.workers[contestant].ask(job)
            if task == "again" and "error" not in told:
                told = self.workers[contestant].ask(job)  # the second time is what counts
            if "error" in told:
                return told, None
            with np.load(Path(out) / "answer.npz") as answer:
                return told, dict(answer)

    def judged(self, contestant: str, task: str, answer: Any) -> Cell:
        """What the numbers of a first run say: right, padding counted, or wrong."""
        off = deviation(answer, self.truth[task])
        if off <= AGREES:
            return Cell(off=off)
        if (
            TASKS[task].corpus == "plain"
        ):  # texts of many lengths: one at a time there is no padding
            at = {**self.at, "batch": 1}
            _, alone = self.ask(contestant, task, at=at, limit=8)
            if alone is not None and deviation(alone, self.short[task]) <= AGREES:
                return Cell(off=off, padding=True)
        return Cell(off=off, reason="other numbers than the reference")

    def run(self, task: str) -> dict[str, Cell]:
        """All contestants at one task: a round to judge, then the rounds that are measured."""
        cells: dict[str, Cell] = {}
        for contestant in self.workers:
            source = (HERE / f"{contestant}.py").read_text(encoding="utf-8")
            if f"def {task}(" not in source:
                cells[contestant] = Cell(reason="no way of its own")
                continue
            # The first round is measured too where there is time for one only.
            told, answer = self.ask(contestant, task)
            cell = Cell(reason=told["error"]) if answer is None else None
            cell = cell or self.judged(contestant, task, answer)
            cell.lines = lines_written(source, task)
            cells[contestant] = cell
            if "seconds" in told:
                cell.first = told["seconds"]
                cell.megabytes.append(told["megabytes"])
        running = [name for name, cell in cells.items() if cell.first]
        round_seconds = sum(cells[name].first or 0 for name in running)
        rounds = self.options.repeats
        if round_seconds * rounds > self.options.seconds:
            rounds = int(self.options.seconds // max(round_seconds, 1e-9))
        for number in range(rounds):
            for name in running if number % 2 else running[::-1]:
                told, _ = self.ask(name, task)
                if "seconds" in told:
                    cells[name].seconds.append(told["seconds"])
                    cells[name].megabytes.append(told["megabytes"])
        for name in running:
            cells[name].seconds = cells[name].seconds or [cells[name].first or 0.0]
        for contestant, reason in self.missing.items():
            cells[contestant] = Cell(reason=reason)
        return cells

    def warm(self) -> None:
        """Every contestant once at little, so that weights are read and libraries are there."""
        for contestant in list(self.workers):
            told, _ = self.ask(contestant, "card", limit=2)
            if "error" in told:
                self.missing[contestant] = told["error"]
                self.workers.pop(contestant).close()
            else:
                self.ask(contestant, "card", limit=2, fresh=True)


def main() -> int:
    """The command line; 1 where numbers are wrong that are not a matter of padding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few texts, to see that all works")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120, help="enough for a task's rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=models.NAMES, default=list(models.NAMES))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where to write the page")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    started = time.perf_counter()
    results: dict[str, dict[str, dict[str, Cell]]] = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            comparison = Comparison(name, options, Path(folder))
            try:
                comparison.warm()
                results[name] = {}
                for task in options.tasks:
                    cells = comparison.run(task)
                    results[name][task] = cells
                    print(table(models.NAMES[name], {task: cells}), flush=True)
            finally:
                for worker in comparison.workers.values():
                    worker.close()
    minutes = (time.perf_counter() - started) / 60
    page = markdown(results, options, minutes)
    (options.docs / "benchmarks.md").write_text(page, encoding="utf-8")
    (options.docs / "benchmarks.svg").write_text(chart(results), encoding="utf-8")
    cells = [c for tasks in results.values() for row in tasks.values() for c in row.values()]
    wrong = [cell for cell in cells if cell.off is not None and cell.reason]
    print(f"{minutes:.1f} minutes; {len(wrong)} answers are wrong without padding, too")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
