"""A fixture of the suites' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tiny import programs_are_kept


@pytest.fixture
def kept_programs() -> Iterator[None]:
    """Runs with equal settings share their compiled programs, which saves minutes."""
    with programs_are_kept():
        yield
