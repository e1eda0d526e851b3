"""Signals wait for a moment that suits, and those of others are left alone."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from altgrad_core.execution.interruption import Interrupted, signals_held_back

pytestmark = pytest.mark.usefixtures("signals")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_for_the_check(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    steps = []

    def work() -> None:
        with signals_held_back() as check:
            check()
            os.kill(os.getpid(), number)
            steps.append("not cut in half")
            check()
            steps.append("never here")

    with pytest.raises(Interrupted) as caught:
        work()
    assert steps == ["not cut in half"]
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) == before


def test_a_signal_that_no_check_met_is_raised_at_the_end() -> None:
    with pytest.raises(Interrupted), signals_held_back():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_does_not_wait_and_a_third_leaves_the_cleaning_up_alone() -> None:
    steps = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("held back")
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("never here")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("cleaned up")

    with pytest.raises(Interrupted), signals_held_back():
        work()
    assert steps == ["held back", "cleaned up"]


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        with signals_held_back() as check:
            os.kill(os.getpid(), signal.SIGHUP)
            check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_touched() -> None:
    seen = []

    def work() -> None:
        with signals_held_back() as check:
            check()
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
