"""Work on a thread: in order, one piece at a time, and no failure is silent."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from ppo_jax.runtime import signals
from ppo_jax.runtime.background import Aside, Background, compiled


def test_a_call_aside_gives_its_result_or_its_error() -> None:
    assert Aside(lambda: 7).result() == 7
    with pytest.raises(ZeroDivisionError):
        Aside(lambda: 1 // 0).result()


def test_a_call_aside_is_left_behind_by_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE", 0.0)
    released = threading.Event()
    with signals.listening() as stop:
        call = Aside(lambda: released.wait(30))
        stop.request("SIGHUP", signals.STOPPED)
        with pytest.raises(signals.Stopped):
            call.result()
    released.set()
    assert call.result() is True  # nobody asks for a stop any more


def test_a_program_is_compiled_at_the_priority_of_the_process() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert compiled(SimpleNamespace(compile=priority)) == priority()


def test_work_goes_on_while_the_caller_does() -> None:
    released, done = threading.Event(), []
    background = Background()
    background.start(lambda: (released.wait(30), done.append(1)))
    assert done == []
    background.check()
    released.set()
    background.wait()
    assert done == [1]


def test_a_second_piece_begins_when_the_first_is_done() -> None:
    order, released = [], threading.Event()
    background = Background()
    background.start(lambda: (released.wait(30), order.append("first")))
    threading.Timer(0.05, released.set).start()
    background.start(lambda: order.append("second"))  # waits for the first
    assert order[0] == "first"
    background.wait()
    assert order == ["first", "second"]


@pytest.mark.parametrize("ask", [Background.wait, lambda b: b.start(lambda: None)])
def test_what_the_work_raises_is_raised_to_whoever_asks_next_and_once(ask) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    background = Background()
    background.start(fail)
    with pytest.raises(OSError, match="No space left"):
        ask(background)
    background.wait()
    background.check()


def test_a_failure_is_seen_without_waiting() -> None:
    background, begun = Background(), threading.Event()

    def fail() -> None:
        begun.set()
        raise OSError(5, "Input/output error")

    background.start(fail)
    begun.wait(30)

    def look_until_told() -> None:
        for _ in range(10_000):
            threading.Event().wait(0.001)
            background.check()

    with pytest.raises(OSError, match="Input/output"):
        look_until_told()
