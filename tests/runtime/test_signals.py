"""Requests to stop: remembered, answered with the right code, handed back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ppo_jax.runtime import signals


@pytest.mark.parametrize(
    "name, reason, code",
    [
        ("SIGINT", "Ctrl-C", 130),
        *((name, name, 75) for name in ("SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")),
    ],
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


def test_a_hang_up_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sigterm_ends_the_process_while_its_main_thread_is_deaf() -> None:
    """The main thread waits in C, where no handler of Python runs, as in a call into XLA."""
    program = """
import ctypes, os, signal, threading, time
from ppo_jax.runtime import signals

def send_two():
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

with signals.listening():
    threading.Thread(target=send_two, daemon=True).start()
    libc = ctypes.CDLL(None)
    lock = ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)  # for ever; a signal does not interrupt it
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == signals.STOPPED


def test_two_kinds_of_request_do_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(signals, "end_process", ended.append)
    stop = signals.StopRequest()
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
        stop.on_signal(number)
    stop.on_signal(signal.SIGTERM)  # at once: the same request, sent to process and group
    assert ended == []
    monkeypatch.setattr(signals, "REPEATED_AFTER", 0.0)
    stop.on_signal(signal.SIGTERM)
    assert ended == [signals.STOPPED]


def test_a_long_step_that_saves_nothing_is_ended_by_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with signals.listening() as stop:
        signals.check()
        stop.request("SIGTERM", 75)
        signals.check()  # it has some seconds to come to its end
        monkeypatch.setattr(signals, "PATIENCE", 0.0)
        with pytest.raises(signals.Stopped, match="Stopped by SIGTERM") as raised:
            signals.check()
    assert raised.value.exit_code == 75
    signals.check()  # nobody listens any more


def test_code_that_is_free_is_left_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler runs between two operations of Python, as while a program is traced."""
    monkeypatch.setattr(signals, "PATIENCE", 0.2)
    with signals.listening():
        os.kill(os.getpid(), signal.SIGHUP)  # nothing is left outside of such code
        time.sleep(0.5)
        until = time.monotonic() + 30
        with pytest.raises(signals.Stopped, match="SIGHUP"):
            busy(until)
        assert time.monotonic() < until


def busy(until: float) -> None:
    with signals.free():
        while time.monotonic() < until:
            pass


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
    assert not stop  # nothing is done yet: a later start would stop here, too
    stop.progress()
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
            stop.progress()
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, before)]


def test_hosts_stop_together_once_they_have_agreed() -> None:
    own = [signals.StopRequest(), signals.StopRequest()]

    def exchange(value: object) -> list:
        other = [own[1].reason, own[1].exit_code, 7.0]
        return [value, other]

    stop = signals.SharedStop(own[0], exchange)
    assert list(stop.agree(3.0)) == [3.0]  # the first host's number
    assert not stop
    own[1].request("SIGTERM", signals.STOPPED)
    own[0].request("Ctrl-C", signals.INTERRUPTED)
    assert not stop  # not before the exchange, at which every host hears of it
    stop.agree(4.0)
    assert (stop.reason, stop.exit_code) == ("Ctrl-C on host 0", signals.INTERRUPTED)
    stop = signals.SharedStop(signals.StopRequest(), exchange)
    stop.agree()
    assert (stop.reason, stop.exit_code) == ("SIGTERM on host 1", signals.STOPPED)
    with pytest.raises(signals.Stopped, match="SIGTERM on host 1"):
        stop.check()


def test_a_step_of_one_of_several_hosts_is_not_left_behind() -> None:
    with signals.listening() as own:
        stop = signals.SharedStop(own, lambda value: [value])
        with stop.taking_over(), signals.listening() as inner:
            assert inner is stop
            own.request("SIGTERM", signals.STOPPED)
            stop.agree()
            stop._requested_at = 0.0
            signals.check()  # does not raise: the other hosts would wait for it
        own._requested_at = 0.0
        with pytest.raises(signals.Stopped):
            signals.check()
