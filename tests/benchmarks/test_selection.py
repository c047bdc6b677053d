"""Halving beside the grid: the scores at its rungs and its table, by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "sweep"))
import selection
import studies_table


def side(*per_seed: float, steps: int = 100) -> dict[str, Any]:
    mean = sum(per_seed) / len(per_seed)
    return {"fresh": {"per_seed": list(per_seed), "mean": mean}, "env_steps": steps}


def test_arrivals_are_in_the_order_of_their_scores_and_the_failed_come_last(tmp_path: Path) -> None:
    def arrived(rung: int, *found: tuple[float | None, bool]) -> dict[str, Any]:
        named = ("rung_env_steps", "score", "goes_on")
        return {"arrived": [dict(zip(named, (rung, *each), strict=True)) for each in found]}

    lines = [
        arrived(64, (None, False), (1.0, False), (3.0, True)),
        arrived(64, (2.0, True), (5.0, False)),
        arrived(192, (9.0, False)),
    ]
    path = tmp_path / "lineage.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert selection.arrivals(path) == [
        {"env_steps": 64, "scores": [3.0, 2.0, 5.0, 1.0, None], "went_on": 2}
    ]


def test_the_table_compares_means_of_the_fresh_seeds() -> None:
    """An IQM would leave out the seed that failed: -10 against -10."""
    whole, other = side(-10.0, -10.0, -10.0, -12.0), side(-10.0, -10.0, -10.0, -90.0, steps=25)
    other["evaluation_env_steps"] = 50
    rows = [{"everything": whole, "halving": other}] * 2
    env = {"env_steps": 1000, "repetitions": rows, "repetitions_in_all": 2}
    record = {"envs": {"own": env}, "machine": {"hardware": "a CPU"}, "date": "2026-12-01T00:00"}
    eager = {**record, "eta": 2, "command": "python selection.py halving --eta 2"}
    lines = studies_table.halving((record, "results/x.json"), (eager, "y.json")).splitlines()
    assert len(lines) == 6  # head, rule, two rows, an empty line, the sources
    row = lines[2].split(" | ")
    assert row[1:6] == ["halving, η = 3", "2", "-10.5", "-30", "-19.5 [-19.5, -19.5]"]
    assert row[6:] == ["0 of 2", "0 of 2", "25%", "75% |"]
    assert lines[3].split(" | ")[1] == "halving, η = 2"
    assert lines[5].startswith("Means over fresh seeds")
    assert lines[5].endswith("Again: `python selection.py halving --eta 2`.")
