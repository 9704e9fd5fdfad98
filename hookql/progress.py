"""A progress bar on stderr for runs that last: samples, tokens a second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hookql.data.batches import Batch

# A bar for what is over in a blink is noise.
_QUIET_SECONDS = 2.0
_LINE_SECONDS = 30.0


class Tick(Protocol):
    """Called after each batch."""

    def __call__(self, batch: Batch, /) -> None: ...


@contextmanager
def progress(total: int | None, *, show: bool | None = None) -> Iterator[Tick]:
    """A callback that keeps the bar up to date; total is the number of samples, where known.

    A terminal gets a bar after two seconds, anything else a line each half minute. ``show=False``
    says nothing.
    """
    if show is False:
        yield lambda batch: None
        return
    if show or sys.stderr.isatty():
        with _bar(total) as tick:
            yield tick
    else:
        yield _lines(total)


class _Count:
    """What has been run so far."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.samples = 0
        self.tokens = 0

    def add(self, batch: Batch) -> None:
        # A sample is counted with its first chunk.
        if batch.feeding is None or batch.fed is None or batch.feeding.start:
            self.samples += sum(len(c.samples) for c in batch.contexts if c.chunk == 0)
        self.tokens += int(batch.rows.sum())

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def speed(self) -> str:
        return f"{self.tokens / max(self.seconds, 1e-9):,.0f} tokens/s"


@contextmanager
def _bar(total: int | None) -> Iterator[Tick]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    count = _Count()
    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("samples, {task.fields[speed]}")]
    bar = Progress(*columns, TimeLeft(), console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=total, speed="")
    running = False

    def tick(batch: Batch) -> None:
        nonlocal running
        count.add(batch)
        if not running and count.seconds > _QUIET_SECONDS:
            bar.start()
            running = True
        bar.update(task, completed=count.samples, speed=count.speed)

    try:
        yield tick
    finally:
        if running:
            bar.stop()


def _lines(total: int | None) -> Tick:
    count = _Count()
    said = count.started

    def tick(batch: Batch) -> None:
        nonlocal said
        count.add(batch)
        if time.perf_counter() - said > _LINE_SECONDS:
            said = time.perf_counter()
            left = ""
            if total and count.samples:
                rest = count.seconds * (total - count.samples) / count.samples
                left = f" of {total:,}, {rest:,.0f} s left"
            print(f"{count.samples:,} samples{left}, {count.speed}", file=sys.stderr, flush=True)

    return tick
