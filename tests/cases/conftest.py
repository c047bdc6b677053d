"""`shell("CASE")`: commands in the folder of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from case_folder import Shell, in_case


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Callable[[str], Shell]]:
    with ExitStack() as stack:

        def enter(case: str) -> Shell:
            stack.enter_context(in_case(case))
            return Shell(capsys, tmp_path)

        yield enter
