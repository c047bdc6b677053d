"""The words of the learning results: shares by hand, names of files, and the table's columns."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "learning_table.py"
spec = importlib.util.spec_from_file_location("learning_table", FILE)
assert spec is not None
assert spec.loader is not None
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)


@pytest.mark.parametrize(
    "per_seed, published, share",
    [
        ([500.0, 499.0, 500.0, 10.0], 500.0, 0.5),
        ([-80.0, -83.1, -84.0], -83.1, 2 / 3),
        ([499.96, 499.94], 500.0, 0.5),  # 1e-4 of 500 is what a float32 sum may lose
        ([None, 1.0], 1.0, 0.5),  # a seed that failed has reached nothing
    ],
)
def test_share_counts_the_seeds_at_or_above_the_published_score(per_seed, published, share) -> None:
    assert table.share_reached(per_seed, {"score": published}) == pytest.approx(share)


def test_share_of_what_was_never_published_is_unknown() -> None:
    assert table.share_reached([1.0], None) is None
    assert table.percent(None) == "–"
    assert table.percent(0.7) == "70%"


def test_results_of_two_presets_never_share_a_file() -> None:
    assert table.stem("CartPole-v1", "CartPole-v1", "clip") == "CartPole-v1"
    assert table.stem("CartPole-v1", "CartPole-v1", "trpo") == "CartPole-v1-trpo"
    assert table.stem("CartPole-v1", "a2c", "pg") == "CartPole-v1-a2c"


def test_every_row_has_the_columns_of_the_head() -> None:
    scores = {"iqm": -82.0, "ci95": [-83.0, -81.0], "per_seed": [-82.0, -82.5, -81.0, -82.0]}
    record = {
        "env": "Acrobot-v1",
        "preset": "Acrobot-v1",
        "objective": "trpo",
        "policy_mode": "sampled",
        "returns": {"sampled": scores, "deterministic": {**scores, "iqm": -90.0}},
        "published": {
            "score": -83.1,
            "env_steps": 20_000,
            "unlike": "it had pictures",
            "others": [{"score": -80.0, "env_steps": 500_000, "policy_mode": "sampled"}],
        },
        "share_reached": 1.0,
        "num_seeds": 1,
        "env_steps": 100_352,
        "train_seconds": 12.3,
    }
    cells = [cell.strip() for cell in table.line(record).strip("|").split("|")]
    assert cells[:5] == [
        "[Acrobot-v1](Acrobot-v1-trpo.svg)",
        "TRPO",
        "-83.1 at 20k",
        "**-82.0** [-83.0, -81.0]",
        "100%",
    ]
    assert cells[9].startswith("+1.1 [")
    # 5% of the 425.4 from random to best; all seeds lie within 3 of the published score.
    assert cells[10:12] == ["21.3", "equal (higher by less than the margin)"]
    assert cells[12] == (
        "we take 5 times its steps; also published: -80 at 500k, sampled; it had pictures"
    )
    assert len(cells) == 13


def test_the_hardest_number_of_as_many_steps_and_the_same_mode_is_compared_with() -> None:
    def reference(score: float, steps: int, mode: str = "sampled", **more: str) -> dict:
        return {"score": score, "env_steps": steps, "policy_mode": mode, **more}

    others = [
        reference(2.0, 100),
        reference(3.0, 1000),
        reference(4.0, 100, "deterministic"),
        reference(5.0, 100, kind="optimum"),
    ]
    found = table.hardest({**reference(1.0, 100), "others": others}, 100)
    assert found["score"] == 2.0
    assert [each["score"] for each in found["others"]] == [1.0, 3.0, 4.0, 5.0]
