"""The stored results: the newest of a kind, and its address in a document."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DATE = len("2026-11-22")


def newest(pattern: str) -> Path | None:
    """The last result whose name matches: names end in their date."""
    return max(RESULTS.glob(pattern), default=None, key=lambda path: path.stem[-DATE:])


def link(path: Path) -> str:
    """The address of a result, seen from a document in docs."""
    return "../" + path.relative_to(ROOT).as_posix()
