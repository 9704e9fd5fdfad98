"""Ctrl-C and SIGTERM: once asks a run to stop, twice stops it."""

from __future__ import annotations

import signal
import threading

import pytest

from hookql.interrupts import interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def handlers() -> list[object]:
    """What both signals do."""
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_once_asks_and_is_told_so(number: signal.Signals) -> None:
    """Nothing is raised; the line says what a second one does."""
    before, said = handlers(), []
    with interruptible(said.append) as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        assert number == stop.signal
        assert before != handlers()
    assert ["finishing the batch; again to stop now"] == said
    assert before == handlers()


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_twice_stops_at_once(first: signal.Signals, second: signal.Signals) -> None:
    """Whichever they are; the first is the one that counts, and the handlers come back."""
    before, said = handlers(), []
    with interruptible(said.append) as stop:
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
    assert first == stop.signal
    assert 1 == len(said)
    assert before == handlers()


def test_a_word_that_cannot_be_said_stops_nothing() -> None:
    """Python refuses a print in the middle of a print; a closed stderr refuses every one."""

    def refused(line: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    with interruptible(refused) as stop:
        signal.raise_signal(signal.SIGINT)
    assert stop()


def test_a_second_signal_while_the_word_is_said() -> None:
    """It stops at once all the same."""

    def say(line: str) -> None:
        signal.raise_signal(signal.SIGTERM)

    with interruptible(say) as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.SIGINT == stop.signal


def test_ignored_signals_stay_ignored() -> None:
    """What `nohup` and shells in the background ask for."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible(print) as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop()
        assert signal.SIG_IGN == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, old)


def test_another_thread_changes_nothing() -> None:
    """Python allows handlers in the main thread alone: elsewhere a run just cannot be asked."""
    found: list[bool] = []
    before = handlers()

    def work() -> None:
        with interruptible(print) as stop:
            found.append(stop() or handlers() != before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [False] == found


def test_an_error_inside_comes_out() -> None:
    """And the handlers are put back."""
    before = handlers()
    with pytest.raises(ValueError, match="mine"), interruptible(print):
        raise ValueError("mine")
    assert before == handlers()
