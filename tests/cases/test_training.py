"""Small environments whose right answer needs a sound trainer, stop, evaluation or start."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from case_folder import FAST, ONCE, Shell

pytestmark = pytest.mark.slow

Enter = Callable[[str], Shell]


@pytest.mark.parametrize(
    "scale, words",
    [
        ("1e6", ()),
        pytest.param(
            *("1e20", ("--normalize-rewards",)),
            marks=pytest.mark.xfail(reason="the square of such rewards is beyond float32"),
        ),
        ("1e20", ()),
    ],
)
def test_huge_rewards_are_learnt_or_their_seeds_fail(
    shell: Enter, scale: str, words: tuple[str, ...]
) -> None:
    answer = shell("huge-reward").train("Scaled", "--env.scale", scale, *FAST, *words, "--json")
    if scale == "1e20" and not words and answer.code == 1:
        assert answer.returns == [None]
        return
    assert answer.code == 0
    assert answer.returns == [pytest.approx(float(scale))]


@pytest.mark.parametrize(
    "change",
    [
        ("--no-normalize-observations",),
        ("--activation", "relu"),
    ],
)
def test_a_policy_is_not_taken_over_into_another_network(
    shell: Enter, change: tuple[str, ...]
) -> None:
    ppo = shell("init-from-other-network")
    first = ppo.train("Half", *FAST, "--normalize-observations", "--json", out="first")
    assert first.returns == [1.0]
    start = ("--init-from", ppo.runs / "first", "--learning-rate", 0)
    same = ppo.train("Half", *ONCE, "--normalize-observations", *start, "--json", out="same")
    assert same.returns == [1.0]
    other = ppo.train("Half", *ONCE, "--normalize-observations", *change, *start, "--json")
    if other.code == 0:
        assert other.returns == [1.0]
    else:
        assert other.code == 2
        assert "init_from" in json.loads(other.out)["error"]


def test_a_long_episode_counts_whole_or_is_said_to_be_cut(shell: Enter) -> None:
    ppo = shell("long-episode")
    answer = ppo.train("Long", *ONCE, "--eval-episodes", 2)
    assert answer.code == 0
    shown = answer.out + answer.err
    assert "12000" in shown or "12,000" in shown or "were cut at 10,000 steps" in shown


def test_a_signal_of_nothing_moves_no_learning_rate(shell: Enter) -> None:
    ppo = shell("single-action")
    adaptive = ("--kl-lr-target", 0.01)
    assert ppo.train("Only", *FAST, *adaptive, "--json").returns == [10.0]
    rows = ppo.rows()
    assert all(1e-5 <= row["learning_rate"][0] <= 1e-2 for row in rows)
    assert rows[-1]["explained_variance"][0] > 0.95
    trust = ppo.train("Only", *FAST, "--objective", "trpo", "--json", out="trpo")
    assert trust.returns == [10.0]
    assert "NaN" not in (ppo.runs / "trpo" / "metrics.jsonl").read_text("utf-8")


def test_a_run_does_not_stop_on_its_shortest_episodes(shell: Enter) -> None:
    ppo = shell("stop-on-short-episodes")
    answer = ppo.train("Mixed", *FAST, "--stop-at-return", -10, "--json")
    assert json.loads(answer.out)["env_steps"] == 16384


def test_a_wide_standard_deviation_shrinks(shell: Enter) -> None:
    ppo = shell("wide-start-std")
    steps = ("--total-env-steps", 65536, "--policy-mode", "sampled", "--log-std-init", 2.5)
    answer = ppo.train("Point", *FAST, *steps, "--json")
    if answer.code == 2:
        assert "log_std_init" in json.loads(answer.out)["error"]
        return
    (score,) = answer.returns
    assert score is not None
    assert score > -0.01
    # Of a normal distribution: log std + (1 + log 2 pi) / 2.
    assert ppo.rows()[0]["entropy"][0] == pytest.approx(2.5 + 1.4189, abs=0.01)
