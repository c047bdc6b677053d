"""The script that tests each suite alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppo_jax.envs.suite_table import SUITES

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "each_suite"
NEWER = [name for name, suite in SUITES.items() if sys.version_info < suite.python]


@pytest.mark.skipif(not NEWER, reason="every suite runs on this Python")
def test_a_suite_of_a_newer_python_is_skipped_with_a_line(tmp_path: Path) -> None:
    words = [SCRIPT.as_posix(), *NEWER]
    environment = {**os.environ, "PYTHON": sys.executable, "TMPDIR": tmp_path.as_posix()}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    lines = [line for line in done.stderr.splitlines() if line]
    assert done.returncode == 0
    assert len(lines) == len(NEWER)
    assert all(" is skipped: its package asks for Python 3." in line for line in lines)


def test_a_word_that_is_no_suite_ends_the_script() -> None:
    words = [SCRIPT.as_posix(), "nowhere"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert "KeyError: 'nowhere'" in done.stderr
