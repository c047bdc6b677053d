"""The comparison of a study's two stages, and the command that repeats it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import defaults


def scores(shift: float) -> dict[str, list[float]]:
    return {"one": [shift + x for x in (0.0, 0.1, 0.2, 0.3)], "two": [shift] * 4}


def test_a_study_of_optimisers_compares_with_the_first_finalist() -> None:
    """The finalists are variants with a rate; their group's name is none of them."""
    chosen = {"adam 0.001": scores(0.0), "adam 0.003": scores(0.1), "muon 0.001": scores(0.3)}
    final = {"adam 0.003": scores(0.2), "muon 0.001": scores(0.5)}
    found = defaults.judged(chosen, final)
    shifts = {name: each["difference"] for name, each in found["choice_differences"].items()}
    assert shifts == pytest.approx({"adam 0.001": -0.1, "adam 0.003": 0.0, "muon 0.001": 0.2})
    assert list(found["differences"]) == ["muon 0.001"]
    mean = found["differences"]["muon 0.001"]["all tasks, mean"]
    assert (mean["difference"], mean["verdict"]) == (pytest.approx(0.3), "better")


@pytest.mark.parametrize(
    "folder, steps, command",
    [
        ("defaults_cpu_2026-12-01", 50_000, "defaults"),
        ("defaults-long_cpu_2026-12-01", 500_000, "defaults --env-steps 500000"),
        ("optimizers_cpu_2026-12-01", 50_000, "optimizers"),
    ],
)
def test_a_study_names_its_own_command(folder: str, steps: int, command: str) -> None:
    plan = defaults.Plan(Path(folder), (4, 10), steps)
    assert plan.command == f"python benchmarks/defaults.py {command}"
