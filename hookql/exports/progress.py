"""A progress bar on stderr for exports that last: bytes, bytes a second, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hookql.exports.files import Tick

# A bar for what is over in a blink is noise.
_QUIET_SECONDS = 2.0
_LINE_SECONDS = 30.0


@contextmanager
def bar(total: int, show: bool | None = None) -> Iterator[Tick]:
    """A callback that is told of bytes as they are written, out of ``total``.

    A terminal gets a bar after two seconds, anything else a line each half minute. ``show=False``
    says nothing.
    """
    if show is False:
        yield lambda count: None
    elif show or sys.stderr.isatty():
        with _bar(total) as tick:
            yield tick
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Tick]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeLeft()]
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    task = shown.add_task("", total=total)
    started = time.perf_counter()
    running = False

    def tick(count: int) -> None:
        nonlocal running
        if not running and time.perf_counter() - started > _QUIET_SECONDS:
            shown.start()
            running = True
        shown.update(task, advance=count)

    try:
        yield tick
    finally:
        if running:
            shown.stop()


def _lines(total: int) -> Tick:
    started = said = time.perf_counter()
    done = 0

    def tick(count: int) -> None:
        nonlocal said, done
        done += count
        now = time.perf_counter()
        if now - said > _LINE_SECONDS:
            said = now
            left = (now - started) * max(0, total - done) / max(done, 1)
            line = f"{done / 1e9:,.1f} of {total / 1e9:,.1f} GB, {left:,.0f} s left"
            print(line, file=sys.stderr, flush=True)

    return tick
