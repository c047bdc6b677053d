"""Requests to stop: remembered, answered with the right code, handed back."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ppo_jax.runtime import signals


@pytest.mark.parametrize(
    "name, reason, code",
    [("SIGINT", "Ctrl-C", 130), ("SIGTERM", "SIGTERM", 75), ("SIGUSR1", "SIGUSR1", 75)],
)
def test_a_signal_is_remembered_with_its_exit_code_and_told(
    name: str, reason: str, code: int
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    told: list[str] = []
    with signals.listening() as stop:
        stop.tell = told.append
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert (stop.reason, stop.exit_code) == (reason, code)
    assert signal.getsignal(number) is before
    assert len(told) == 1
    assert told[0].startswith(f"{reason}: stopping")


def test_the_first_reason_counts_and_ctrl_c_after_it_means_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = signals.StopRequest()

    def insist() -> None:
        with signals.listening() as stop:
            for number in (signal.SIGTERM, signal.SIGUSR1):
                os.kill(os.getpid(), number)
            assert (stop.reason, stop.exit_code) == ("SIGTERM", 75)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        insist()
    assert signal.getsignal(signal.SIGINT) is before
    assert not stop


def test_a_display_that_fails_does_not_break_the_handler() -> None:
    def broken(text: str) -> None:
        raise RuntimeError("reentrant call")

    with signals.listening() as stop:
        stop.tell = broken
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"


def test_nested_listening_is_the_outer_request() -> None:
    with signals.listening() as outer:
        with signals.listening() as inner:
            assert inner is outer
        os.kill(os.getpid(), signal.SIGTERM)
        assert outer
    with signals.listening() as later:
        assert not later


def test_a_time_limit_is_a_request_of_its_own() -> None:
    stop = signals.StopRequest()
    stop.limit(3600.0)
    assert not stop
    stop.limit(0.01)
    time.sleep(0.02)
    assert stop
    assert (stop.reason, stop.exit_code) == ("the time limit of 0.01 seconds", 75)


def test_a_limit_that_nobody_asked_about_does_not_change_the_exit_code() -> None:
    stop = signals.StopRequest()
    stop.limit(1e-9)
    assert stop.exit_code is None


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with signals.listening() as stop:
            stop.limit(1e-9)
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, before)]
