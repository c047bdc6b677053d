"""Summaries in words."""

from __future__ import annotations

from typing import Any

import pytest

from ppo_jax.runtime.text import score, summary_lines, visible

SUMMARY: dict[str, Any] = {
    "env": "CartPole-v1",
    "objective": "clip",
    "num_seeds": 3,
    "num_failed": 0,
    "env_steps": 100_096,
    "final_return": {"per_seed": [500.0, 499.0, 498.5], "iqm": 499.25, "ci95": [498.5, 500.0]},
    "policy_mode": "deterministic",
    "episodes_per_seed": 128,
    "compile_seconds": 8.04,
    "train_seconds": 0.96,
    "env_steps_per_second": 312_800.4,
    "run": "runs/a",
}


def test_summary_of_a_run_is_four_lines_for_people() -> None:
    assert summary_lines(SUMMARY) == [
        "return    499.25  IQM of 3 seeds, 95% interval 498.5 to 500 "
        "(128 deterministic episodes a seed)",
        "trained   100,096 environment steps a seed, 312,800 steps/s in 1.0 s, "
        "after 8.0 s of compiling",
        "run       runs/a",
        "next      ppo-jax eval runs/a",
    ]


def test_one_seed_has_no_interval() -> None:
    final = {"per_seed": [12.0], "iqm": 12.0, "ci95": None}
    line = summary_lines({**SUMMARY, "num_seeds": 1, "final_return": final})[0]
    assert line == "return    12  one seed (128 deterministic episodes a seed)"


def test_stalled_episodes_have_a_line() -> None:
    lines = summary_lines({**SUMMARY, "episodes_stalled": 7})
    assert lines[1].startswith("stalled   7 of 384 episodes ended unfinished")


def test_failed_seeds_are_told() -> None:
    final = {"per_seed": [None, None, None], "iqm": None, "ci95": None}
    lines = summary_lines({**SUMMARY, "num_failed": 3, "final_return": final})
    assert "every seed failed" in lines[0]
    assert lines[1] == "failed    3 of 3 seeds turned non-finite"


def test_evaluation_has_no_times_and_no_next_command() -> None:
    times = dict.fromkeys(("compile_seconds", "train_seconds", "env_steps_per_second"))
    video = {"video": "a.gif", "video_seed": 2, "video_return": 499.0}
    lines = summary_lines({**SUMMARY, **times, **video})
    assert lines[1:] == [
        "trained   100,096 environment steps a seed",
        "video     a.gif (seed 2, return 499)",
        "run       runs/a",
    ]


def test_an_evaluation_elsewhere_names_both_environments() -> None:
    moved = {"env": "gymnasium/CartPole-v1", "trained_on": "CartPole-v1"}
    lines = summary_lines({**SUMMARY, **moved})
    assert lines[1] == "on        gymnasium/CartPole-v1, trained on CartPole-v1"
    assert len(lines) == len(summary_lines(SUMMARY)) + 1


@pytest.mark.parametrize(
    "run, command", [("runs/a b", "ppo-jax eval 'runs/a b'"), ("r/ü", "ppo-jax eval r/ü")]
)
def test_next_command_can_be_pasted(run: str, command: str) -> None:
    assert summary_lines({**SUMMARY, "run": run})[-1] == f"next      {command}"


def test_score_of_a_preset_in_two_numbers() -> None:
    assert score({"score": -73.506, "env_steps": 1_000_000}) == "-73.506 at 1,000,000"
    assert score(None) == "-"


def test_control_characters_are_spelled_and_letters_stay() -> None:
    assert visible("a\x1b[2J\x9b\r\nµ\té") == "a\\x1b[2J\\x9b\\x0d\nµ\té"
