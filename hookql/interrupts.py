"""Interrupts: asked to stop once, a run finishes its batch; asked twice, it stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from attrs import define

# SIGHUP, of a connection that was lost, is not there on every system.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


@define(eq=False)
class Stop:
    """Whether a run was asked to stop: call it. ``signal`` is the first that asked, or None."""

    signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def interruptible(say: Callable[[str], None]) -> Iterator[Stop]:
    """Let Ctrl-C, SIGTERM and SIGHUP ask to stop, inside this context, instead of stopping.

    The first one sets the yielded `Stop` and tells ``say`` so in one line; the second raises
    KeyboardInterrupt. Handlers are as before afterwards. A signal that the process ignores stays
    ignored, and outside the main thread, where Python allows no handlers, nothing changes.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop():
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number)
        # It may come in the middle of another print, which Python refuses; the run is worth more.
        with contextlib.suppress(Exception):
            say("finishing the batch; again to stop now")

    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                old = signal.getsignal(number)
                # Of a handler that is not Python's own nothing is known: it could not be put back.
                if old not in (None, signal.SIG_IGN):
                    before[number] = old
                    signal.signal(number, handle)
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)
