"""The results as tables, on the screen and as docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field

from benchmarks.peers.corpora import QUICK, SIZES
from benchmarks.peers.environments import CONTESTANTS, versions
from benchmarks.peers.models import NAMES
from benchmarks.peers.tasks import TASKS


@define
class Cell:
    """One contestant at one task: seconds and peak megabytes above the model of each round."""

    off: float | None = None
    padding: bool = False
    reason: str = ""
    lines: int = 0
    first: float | None = None
    seconds: list[float] = field(factory=list)
    megabytes: list[float] = field(factory=list)

    @property
    def median(self) -> float | None:
        """Seconds, the median of the rounds; None where the numbers are no answer."""
        return statistics.median(self.seconds) if self.seconds and not self.reason else None


Row = Mapping[str, Cell]


def table(model: str, tasks: Mapping[str, Row]) -> str:
    """What was measured of some tasks, on the screen: one line for each contestant."""
    lines = []
    for task, cells in tasks.items():
        lines.append(f"\n{model}: {TASKS[task].title}")
        ours = cells["with_hookql"].median if "with_hookql" in cells else None
        for name, cell in cells.items():
            if cell.median is None:
                lines.append(f"  {CONTESTANTS[name]:<16} -  {cell.reason}")
                continue
            ratio = f"{cell.median / ours:8.2f} x" if ours else ""
            note = f"  counts padding: off by {cell.off:.2g} std" if cell.padding else ""
            lines.append(
                f"  {CONTESTANTS[name]:<16} {cell.median:8.3f} s {ratio}  "
                f"{max(cell.megabytes):6.0f} MB  {cell.lines:3d} lines  "
                f"{len(cell.seconds)} rounds{note}"
            )
    return "\n".join(lines)


def grid(tasks: Mapping[str, Row], shown: Callable[[Cell, Row], str]) -> str:
    """A Markdown table: a row for each task, a column for each contestant."""
    names = [name for name in CONTESTANTS if any(name in cells for cells in tasks.values())]
    head = ["task", *(CONTESTANTS[name] for name in names)]
    rows = [head, ["---"] + ["---:"] * len(names)]
    for task, cells in tasks.items():
        rows.append([TASKS[task].title, *(shown(cells[n], cells) for n in names if n in cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def times(cell: Cell, row: Row) -> str:
    """How many times HookQL's time; HookQL's own, in seconds; * where padding was counted."""
    ours = row["with_hookql"].median if "with_hookql" in row else None
    if cell.median is None:
        return "-"
    if cell is row.get("with_hookql") or ours is None:
        return f"{cell.median:.3g} s"
    return f"{cell.median / ours:.3g}{'*' if cell.padding else ''}"


def memory(cell: Cell, _: Row) -> str:
    """Peak megabytes above the model."""
    return f"{max(cell.megabytes):,.0f}" if cell.median is not None else "-"


def lines(cell: Cell, _: Row) -> str:
    """Lines that the user wrote."""
    return str(cell.lines) if cell.median is not None else "-"


def wrongness(cell: Cell, _: Row) -> str:
    """How far the worst number is off, in standard deviations, where padding was counted."""
    if cell.median is None or cell.off is None:
        return "-"
    return f"{cell.off:.2g}" if cell.padding else "exact"


def machine(threads: int) -> str:
    """CPU and versions, in words."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = [x for x in information.read_text().splitlines() if x.startswith("model name")]
        cpu = found[0].split(":")[1].strip() if found else cpu
    ours = ("hookql", "torch", "transformers", "numpy")
    installed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ours)
    return (
        f"{cpu}, {os.cpu_count()} cores, {threads} threads, Python {platform.python_version()}, "
        f"{installed}"
    )


QUICKLY = """> **A quick run**, on few texts and a busy machine, to show that everything works: its
> ratios are not to be quoted. `python -m benchmarks.peers` writes this page anew.

"""


def markdown(
    results: Mapping[str, Mapping[str, Row]], options: argparse.Namespace, minutes: float
) -> str:
    """docs/benchmarks.md."""
    sizes = QUICK if options.quick else SIZES
    rounds = {len(c.seconds) for t in results.values() for r in t.values() for c in r.values()}
    rounds.discard(0)
    parts = [
        "# Benchmarks against peers\n\nWritten by `python -m benchmarks.peers`"
        f"{' --quick' if options.quick else ''}: one run, {minutes:.0f} minutes. "
        "Each contestant does each task in turn with the others; medians of "
        f"{min(rounds, default=0)} to {max(rounds, default=0)} rounds.\n\n"
        f"{QUICKLY if options.quick else ''}"
        "![How many times as long as HookQL](benchmarks.svg)\n",
        f"Machine: {machine(options.threads)}.\n",
        "Contestants in environments of their own: "
        + "; ".join(filter(None, (versions(name) for name in options.contestants)))
        + ". HookQL and hooks by hand run in the one above.\n",
        f"Texts: English, {sizes['plain']} of 8 to 200 tokens (median 36); {sizes['rare']:,} of 5 "
        f"to 25 tokens for the rare word; {sizes['positions']} of 200 tokens; {sizes['header']} "
        "that share 200 tokens and have 20 of their own.\n",
    ]
    for model, tasks in results.items():
        parts += [
            f"## {NAMES[model]}\n",
            "Time, as a multiple of HookQL's (which is given in seconds). `*`: padding was "
            "counted, so the numbers are not those asked for.\n",
            grid(tasks, times) + "\n",
            "Peak memory above the model, in MB:\n",
            grid(tasks, memory) + "\n",
            "The largest error, in standard deviations of the feature (`exact`: within a "
            "thousandth of the reference in float64):\n",
            grid(tasks, wrongness) + "\n",
        ]
    first = next(iter(results.values()), {})
    parts += [
        "## Lines of code\n",
        "What a user writes for each task:\n",
        grid(first, lines) + "\n",
    ]
    parts += reasons(results)
    parts.append(HOW)
    return "\n".join(parts)


def reasons(results: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """Why there is no number where there is none."""
    told = {
        f"- {CONTESTANTS[name]}, {TASKS[task].title}: {cell.reason}."
        for tasks in results.values()
        for task, cells in tasks.items()
        for name, cell in cells.items()
        if cell.reason
    }
    return ["Where there is a `-`:\n", "\n".join(sorted(told)) + "\n"] if told else []


HOW = """## How it is measured

- The contestants are the files of [benchmarks/peers](../benchmarks/peers), written as their own
  documentation has it: nnsight traces batches of 16 texts and stops the trace (`tracer.stop()`),
  TransformerLens caches the sites it is asked for (`names_filter`, `stop_at_layer`), mi-crow saves
  activations to its store (which stops by itself) and reads them from there. Plain hooks store
  every token's rows and compute at the end. The expert sorts by length, stops the pass after the
  last hook, keeps running sums, and filters or cuts the texts first.
- A model is loaded before the clock starts. Everything else counts: tokenising, HookQL's looking at
  the model, writing files.
- The second run of the first query is timed alone. Only HookQL can keep an answer (`store=`).
- Both models have SmolLM2's tokenizer; the model of GPT-2's size has random weights. 3,072 neurons
  are one layer of it, and two of SmolLM2.
- The numbers of every first run are held against a reference: float64 weights, texts of one length
  together, so no padding. Where they differ the task is done again with one text at a time. If it
  is right then, padding was the reason; if not, the command fails.
- Where a peer shows no mask on the way from texts to activations, its user's code has none. Left
  padding, positions that count it and pads that are attended to come on top: all of it is in the
  error.
- Memory is the peak of the process above what it held after loading and a first small task.
- Lines are those of a task's function and of the helpers in its file that it needs, without blank
  lines, comments, imports and loading.
"""
