"""The process that watches one of several hosts."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from ppo_jax.cli import guard


@pytest.mark.parametrize(
    "words, found",
    [
        (["train", "X", "--coordinator=a:1"], True),
        (["train", "X", "--hosts", "auto"], True),
        (["train", "X", "--seeds", "2"], False),
    ],
)
def test_only_a_command_with_hosts_is_watched(words: list[str], found: bool) -> None:
    assert guard.has_hosts(words) == found


@pytest.mark.parametrize(
    "ended, has_joined, code, told",
    [
        (0, True, 0, ""),
        (2, True, 2, ""),
        (-signal.SIGABRT, True, 75, "Stopped by the end of another host"),
        (-signal.SIGABRT, False, 2, "did not come together"),
        (-signal.SIGKILL, True, 137, ""),
    ],
)
def test_an_abort_of_jax_becomes_a_sentence_and_an_exit_code(
    ended: int, has_joined: bool, code: int, told: str, capsys: Any
) -> None:
    assert guard.exit_code_of(ended, has_joined) == code
    found = capsys.readouterr().err
    assert told in found
    assert bool(told) == bool(found)


def test_what_a_library_prints_on_stdout_is_kept_apart_from_the_answer() -> None:
    program = "import os; from ppo_jax.cli import guard; guard.own_stdout(); os.write(1, b'[Gloo]')"
    command = [sys.executable, "-c", f"{program}; print('answer')"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("answer\n", "[Gloo]")
