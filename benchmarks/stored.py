"""The stored results: the newest of a kind, its address in a document, its numbers in words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def newest(pattern: str) -> Path | None:
    """The last result whose name matches, by the date in its name and the number after it."""
    return max(RESULTS.glob(pattern), default=None, key=lambda path: dated(path.stem))


def dated(name: str) -> tuple[str, int]:
    """The date in a name, and the number after it: results of one day are DATE, DATE-2 and so on.

    A name without a date is older than all others.
    """
    found = re.search(r"_(\d{4}-\d\d-\d\d)(?:-(\d+))?(?:_|$)", name)
    return ("", 0) if found is None else (found[1], int(found[2] or 1))


def link(path: Path) -> str:
    """The address of a result, seen from a document in docs."""
    return "../" + path.relative_to(ROOT).as_posix()


def summary(folder: Path) -> dict[str, Any]:
    """The summary of a suite's results."""
    return json.loads((folder / "summary.json").read_text("utf-8"))


def cells(folder: Path) -> list[dict[str, Any]]:
    """The cells of a suite's results, as its summary has them."""
    return summary(folder)["cells"]


def one_core(machine: str) -> str:
    """The words about a machine in the singular, where older results have "1 cores"."""
    return re.sub(r"\b1 cores\b", "1 core", machine)


def estimate(
    value: float | None, ends: Sequence[float] | None, spec: str = ".4g", bold: bool = False
) -> str:
    """A number with its 95% interval, `x [low, high]`.

    Args:
        value: None is shown as a dash, since no seed has a score.
        ends: of the interval; None if fewer than two seeds have a score, and is left out.
        spec: the format of all three numbers.
        bold: of the number alone.
    """
    if value is None:
        return "–"
    shown = f"**{value:{spec}}**" if bold else f"{value:{spec}}"
    return shown if ends is None else shown + " [{:{}}, {:{}}]".format(ends[0], spec, ends[1], spec)


def signed(found: Mapping[str, Any] | None, spec: str = ".3g") -> str:
    """The difference of a comparison with its interval, and with their signs."""
    return "–" if found is None else estimate(found["difference"], found["ci95"], f"+{spec}")
