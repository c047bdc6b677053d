"""The live display, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from ppo_jax.runtime import progress
from ppo_jax.runtime.progress import (
    Progress,
    Silence,
    SweepProgress,
    _fitting,
    display,
    sweep_display,
)
from ppo_jax.runtime.text import format_seconds, format_steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Unicode(Terminal):
    encoding = "utf-8"


def row(env_steps: int) -> dict:
    return {
        "env_steps": env_steps,
        "episode_return": [10.0, None, 30.0],
        "kl_old_new": [0.01, 0.02, None],
        "env_steps_per_second": 1500.0,
    }


def test_a_closed_stderr_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    progress = Progress(1, 1, num_seeds=1)
    progress.message("nobody reads it")
    progress.close()


def test_a_progress_line_says_what_there_is_to_know():
    progress = Progress(200, 100_000, num_seeds=3, stream=io.StringIO())
    # 75,000 steps left of each of 3 seeds at 1,500 steps a second over all seeds: 150 seconds.
    assert progress.describe(50, row(25_000)) == (
        "50/200  25%  2m30s left  1.5k env steps/s  Return 20  KL 0.015"
    )  # two seeds: their interval would be 12.7 times their half-distance on either side
    four = row(1) | {"episode_return": [10.0, 10.0, 30.0, 30.0]}
    # One resample of 16 holds the low seeds alone, so the percentiles are 10 and 30. They move
    # to 1.23 times t / z = 3.182 / 1.960 of their distance from 20.
    assert "Return 20 (0.02816 to 39.97)  KL" in progress.describe(1, four)
    assert progress.describe(0, {"env_steps": 0}) == "0/200  0%"
    assert "Return 5  KL" in progress.describe(1, row(1) | {"episode_return": [5.0]})


def test_the_line_keeps_the_last_return_and_the_evaluations(monkeypatch):
    for name in ("NO_COLOR", "TERM", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    stream = Unicode()
    progress = Progress(10, 1280, num_seeds=3, stream=stream)
    progress.phase("compiling")
    for iteration, value in enumerate((0.0, 7.0, None), 1):
        progress.update(iteration, {"env_steps": 128, "episode_return": [value]})
    progress.evaluated(4.0, 9.5)
    progress.update(4, {"env_steps": 512, "episode_return": [None]})
    progress.phase("evaluating")
    progress.close()
    text = stream.getvalue()
    last = text[text.rindex("4/10") :]
    assert last.startswith("4/10  40%  Return 7  ▁█  eval 4, best 9.5")
    assert "evaluating" not in last


def test_a_narrow_terminal_loses_the_least_important_parts_first():
    parts = [(9, "5/10"), (3, "1k env steps/s"), (8, "Return 5"), (2, "KL 0.1")]
    assert _fitting(parts, 100) == "5/10  1k env steps/s  Return 5  KL 0.1"
    assert _fitting(parts, 35) == "5/10  1k env steps/s  Return 5"
    assert _fitting(parts, 20) == "5/10  Return 5"
    assert _fitting(parts, 1) == "5/10"


@pytest.mark.parametrize("total", [1, 7, 20, 1000, 12345])
def test_without_a_terminal_there_are_some_twenty_plain_lines_and_the_last_is_told(total):
    stream = io.StringIO()
    progress = Progress(total, total * 128, num_seeds=1, stream=stream)
    for iteration in range(1, total + 1):
        progress.update(iteration, {"env_steps": 128 * iteration})
    progress.message("[done] at /a/path")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "[done] at /a/path"
    assert lines[-2] == f"{total}/{total}  100%"
    assert min(total, 20) <= len(lines) - 1 <= 22
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_the_display_is_live_and_messages_keep_their_brackets(monkeypatch):
    for name in ("NO_COLOR", "TERM", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    progress = Progress(10, 1280, num_seeds=3, stream=stream)
    progress.update(5, row(640))
    progress.message("[red]brackets[/red]")
    progress.close()
    assert "\x1b[" in stream.getvalue()
    assert "5/10" in stream.getvalue()
    assert "[red]brackets[/red]" in stream.getvalue()


def test_a_closed_stream_does_not_end_a_run():
    stream = io.StringIO()
    progress = Progress(10, 10, num_seeds=1, stream=stream)
    stream.close()
    progress.update(10, {"env_steps": 10})
    progress.close()


def test_progress_goes_to_stderr_and_nothing_to_stdout(capsys):
    progress = Progress(1, 1, num_seeds=1)
    progress.update(1, {"env_steps": 1})
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "1/1  100%\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999.9, "1k"), (12_345, "12.3k"), (1.5e6, "1.5M"), (2.04e9, "2.04G")],
)
def test_steps_are_told_in_si_units(number, text):
    assert format_steps(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7625, "2h07m")]
)
def test_seconds_are_told_in_two_units(seconds, text):
    assert format_seconds(seconds) == text


def test_a_quiet_display_shows_nothing(capsys):
    with display(1, 1, 1, is_quiet=True) as progress:
        assert progress == Silence()
        progress.update(1, {"env_steps": 1})
        progress.message("text")
    assert capsys.readouterr() == ("", "")


def test_a_sweep_in_a_pipe_tells_a_line_now_and_then(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    shown = SweepProgress(stream=stream, every_seconds=10.0)
    shown.message("group 1 of 1")
    for second in range(1, 26):
        clock[0] = float(second)
        shown.update(second / 25, f"pack 1/1: second {second} [of 25]")
    shown.close()
    assert stream.getvalue().splitlines() == [
        "group 1 of 1",
        "pack 1/1: second 10 [of 25]",
        "pack 1/1: second 20 [of 25]",
    ]


def test_a_sweep_on_a_terminal_is_live_and_keeps_its_brackets(monkeypatch):
    for name in ("NO_COLOR", "TERM", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = Terminal()
    shown = SweepProgress(stream=stream)
    shown.update(0.5, "pack 1/2: 50% [red]")
    shown.message("setting 3 is taken over")
    shown.close()
    assert "\x1b[" in stream.getvalue()
    assert "pack 1/2: 50% [red]" in stream.getvalue()
    assert "setting 3 is taken over" in stream.getvalue()


def test_a_quiet_sweep_shows_nothing(capsys):
    with sweep_display(is_quiet=True) as shown:
        shown.update(0.5, "half")
        shown.message("a sentence")
    with sweep_display(is_quiet=False) as shown:
        shown.message("another")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "another\n")
