"""The script that tests each suite alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "each_suite"
# An interpreter that takes itself for Python 3.10, which is too old for every suite
OLD = """#!/bin/sh
exec {python} -c "import sys; sys.version_info = (3, 10)
$2" "$3"
"""


def test_a_suite_of_a_newer_python_is_skipped_with_a_line(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(OLD.format(python=sys.executable))
    old.chmod(0o755)
    environment = {**os.environ, "PYTHON": old.as_posix(), "TMPDIR": tmp_path.as_posix()}
    words = [SCRIPT.as_posix(), "navix", "pgx"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if line] == [
        f"== {name} is skipped: its package asks for Python {oldest} or later"
        for name, oldest in (("navix", "3.12"), ("pgx", "3.11"))
    ]


def test_a_word_that_is_no_suite_ends_the_script() -> None:
    words = [SCRIPT.as_posix(), "nowhere"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert "KeyError: 'nowhere'" in done.stderr
