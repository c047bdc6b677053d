"""Decisions of halving and population-based training, by hand and by invariants."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ppo_jax.apps.sweep import axes, pack, rules
from ppo_jax.apps.sweep import engine as engine_
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.results import table
from ppo_jax.apps.sweep.search import halving, slot_run, slots
from ppo_jax.apps.sweep.search.pbt import ancestry
from ppo_jax.apps.sweep.search.slots import SlotStatus
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import programs
from ppo_jax.runtime import evaluation
from ppo_jax.runtime.signals import StopRequest
from ppo_jax.storage.jsonl import LogFiles

LOST = float("-inf")


def test_rungs_grow_by_eta_and_end_with_the_budget() -> None:
    assert rules.rungs(54, 3, 2) == (2, 6, 18, 54)
    assert rules.rungs(100, 3, 0) == (11, 33, 100)
    assert rules.rungs(10, 2, 4) == (4, 10)
    assert rules.rungs(10, 3, 0) == (3, 10)
    assert rules.rungs(1, 3, 0) == (1,)


def test_a_first_rung_that_was_asked_for_is_kept_wherever_it_is() -> None:
    assert rules.rungs(10, 2, 9) == (9, 10)
    assert rules.rungs(10, 2, 10) == (10,)
    assert rules.rungs(27, 3, 1) == (2, 6, 27)  # after one iteration there is nothing to compare


@pytest.mark.parametrize("first", [0, 1, 2, 7])
@pytest.mark.parametrize("eta", [2, 3, 4, 5])
def test_rungs_rise_to_the_budget_and_prune_early(eta: int, first: int) -> None:
    for budget in range(2, 501):
        levels = rules.rungs(budget, eta, first)
        assert levels[-1] == budget
        assert all(low < high for low, high in pairwise(levels))
        assert len(levels) <= 3 or first
        assert levels[0] >= 2
        assert len(levels) > 1 or budget <= max(2, first)  # something is pruned where it can be
        assert all(level * eta <= budget for level in levels[1:-1])


@pytest.mark.parametrize("budget, eta, first", [(10, 3, 0), (9, 2, 0), (3, 2, 0), (8, 2, 7)])
def test_the_setting_with_the_best_returns_survives_a_halving(
    budget: int, eta: int, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole loop; a made-up evaluation gives setting i the return i."""

    def train(population: Any, hyper: Any, state: Any, status: SlotStatus, length: int) -> Any:
        live = [setting != slots.IDLE for setting in status.settings]
        done = [n + length * on for n, on in zip(status.done, live, strict=True)]
        return state, status._replace(done=done)

    def play(engine: Any, program: str, hyper: Any, state: Any, streams: Any) -> Any:
        assert {int(x) for x in streams} <= {*levels[:-1], evaluation.FINAL, programs.SKIP}
        return [float(i) for i in range(4)], 7

    monkeypatch.setattr(slots, "train_slots", train)
    monkeypatch.setattr(engine_, "play", play)
    config = Config(total_env_steps=budget, num_envs=1, rollout_length=1, num_minibatches=1)
    options = SweepOptions(sampler="halving", eta=eta, seeds=1)
    control = pack.Control(StopRequest(), pack.ignore, pack.ignore)
    layout = SimpleNamespace(num_members=4)
    engine: Any = SimpleNamespace(width=4, layout=layout, score="score", evaluate="evaluate")
    settings = {i: {"gamma": i / 10} for i in range(4)}
    job = pack.PackJob(tmp_path, None, config, Hyper(), settings, [], "halving")
    logs = LogFiles(tmp_path, slots.LOGS)
    population = slots.SlotPopulation(engine, job, options, (0,), control, logs)
    nobody: Any = None
    status = slots.first_status(population, list(settings), list(settings.values()))
    levels = rules.rungs(budget, eta, first)
    strategy = halving.strategy_of(halving.Halving(population, settings, levels))
    begun = (Hyper(), nobody, status)
    _, _, status = slot_run.train_population(population, nobody, strategy, begun)
    assert "3" in status.returns
    assert "0" not in status.returns
    assert all(score == setting for _, setting, score in status.records)
    assert status.evaluation_steps == 7 * len(levels)


def test_a_third_of_those_that_arrive_together_goes_on() -> None:
    arrived = [(0, 1.0), (1, 5.0), (2, 3.0), (3, LOST), (4, 4.0), (5, -1.0)]
    assert rules.survivors(arrived, [], 3) == [1, 4]


def test_later_arrivals_are_compared_with_all_that_came_before() -> None:
    records = [(0, 1.0), (1, 5.0), (2, 3.0)]
    assert rules.survivors([(3, 4.0), (4, 0.0), (5, 2.0)], records, 3) == [3]
    assert rules.survivors([(3, 2.0)], records, 3) == []


def test_one_always_goes_on_from_the_first_arrivals() -> None:
    assert rules.survivors([(7, -3.0), (8, -4.0)], [], 4) == [7]


def test_what_ties_with_the_last_survivor_goes_on_too() -> None:
    assert rules.survivors([(i, -500.0) for i in range(6)], [], 3) == list(range(6))
    arrived = [(0, -500.0), (1, -90.0), (2, -500.0), (3, -80.0), (4, -500.0), (5, LOST)]
    assert rules.survivors(arrived, [], 3) == [1, 3]
    assert rules.survivors(arrived, [], 2) == [0, 1, 2, 3, 4]  # the third place is a tie of three
    zeros = [(i, 0.0) for i in range(1, 9)]
    assert rules.survivors([(0, 1.0), *zeros], [], 3) == list(range(9))


def test_a_tie_that_ends_at_the_border_is_not_cut() -> None:
    arrived = [(0, 5.0), (1, 3.0), (2, 3.0), (3, 1.0), (4, 1.0), (5, 1.0)]
    assert rules.survivors(arrived, [], 2) == [0, 1, 2]


def test_a_failed_setting_never_goes_on() -> None:
    assert rules.survivors([(0, LOST)], [], 3) == []
    assert rules.survivors([(0, LOST), (1, LOST), (2, LOST)], [], 3) == []
    failed = [(i, LOST) for i in range(7)]
    assert rules.survivors([*failed, (7, 1.0), (8, 2.0)], [], 3) == [7, 8]  # of three places
    assert rules.survivors([(9, 0.0), (10, 3.0)], [*failed, (7, 1.0), (8, 2.0)], 5) == [10]


def test_the_share_of_a_halving_is_the_sum_over_its_rungs() -> None:
    # 9 settings for 1 iteration, 3 for 2 more, 1 for 6 more: 21 of 81.
    assert rules.expected_share(9, (1, 3, 9), 3) == pytest.approx(21 / 81)


def test_the_lowest_fifth_copies_from_the_highest_fifth() -> None:
    scores = [float(i) for i in range(10)]
    for seed in range(20):
        sources = rules.exploit(scores, np.random.default_rng(seed))
        assert sources[2:] == list(range(2, 10))
        assert set(sources[:2]) <= {8, 9}


def test_a_failed_slot_copies() -> None:
    sources = rules.exploit([1.5, 1.0, LOST, 3.0, 2.0], np.random.default_rng(0))
    assert sources == [0, 1, 3, 3, 4]
    assert rules.exploit([1.0], np.random.default_rng(0)) == [0]


@pytest.mark.parametrize("value", [0.0, -3.0, LOST])
def test_nobody_copies_if_all_scores_are_equal(value: float) -> None:
    for seed in range(20):
        sources = rules.exploit([value] * 10, np.random.default_rng(seed))
        assert sources == list(range(10))


def test_a_single_winner_among_zeros_is_the_only_source() -> None:
    for seed in range(20):
        sources = rules.exploit([0.0] * 9 + [1.0], np.random.default_rng(seed))
        assert sources == [9, 9, *range(2, 10)]


def test_every_failed_slot_copies_from_the_best_that_have_not_failed() -> None:
    scores = [LOST, 1.0, LOST, 2.0, LOST, 3.0, LOST, 4.0, LOST, 5.0]
    for seed in range(20):
        sources = rules.exploit(scores, np.random.default_rng(seed))
        assert set(sources[::2]) <= {7, 9}  # the upper fifth of ten
        assert sources[1::2] == [1, 3, 5, 7, 9]
    alone = [LOST] * 4 + [-7.0] + [LOST] * 5
    assert rules.exploit(alone, np.random.default_rng(0)) == [4] * 10


def test_a_score_sees_the_seed_that_failed_to_learn() -> None:
    """An interquartile mean of four ranks the lucky setting first: -100 against -110."""
    lucky, steady = [-100.0, -100.0, -100.0, -500.0], [-110.0] * 4
    assert rules.score(lucky) == -200.0 < rules.score(steady) == -110.0
    assert rules.score([9.0, None]) == rules.score([9.0, float("nan")]) == LOST
    found = table.scores({0: {}, 1: {}}, {0: lucky, 1: steady})
    assert [row["setting"] for row in found] == [1, 0]


def test_moments_are_counted_in_iterations_of_the_budget() -> None:
    """20 iterations of 32 steps: 65 steps are 3 iterations, and 9 are the last rung below 20."""
    config = Config(total_env_steps=640, num_envs=4, rollout_length=8)
    halving = SweepOptions(sampler="halving", min_env_steps=65)
    assert rules.levels_of(config, halving) == (3, 20)
    assert rules.interval_of(config, SweepOptions(sampler="pbt", interval=65)) == 3
    assert rules.interval_of(config, SweepOptions(sampler="pbt")) == 1


@pytest.mark.parametrize("steps, is_refused", [(607, False), (608, False), (609, True)])
def test_a_first_rung_or_exploit_at_the_end_of_the_budget_is_refused(
    steps: int, is_refused: bool
) -> None:
    """20 iterations of 32 steps: 608 steps are 19 iterations, and any more are the whole budget."""
    config = Config(total_env_steps=640, num_envs=4, rollout_length=8)
    for sampler, option in (("halving", "min_env_steps"), ("pbt", "interval")):
        options = SweepOptions(sampler=sampler, **{option: steps})
        with (
            pytest.raises(InputError, match=f"{option}={steps} .* total_env_steps=640")
            if (is_refused)
            else nullcontext()
        ):
            rules.require_some(config, options)
    rules.require_some(config, SweepOptions(sampler="random", settings=2))


def test_the_plan_counts_the_members_that_a_halving_scores() -> None:
    assert rules.expected_arrivals(9, (2, 6, 18), 3) == 9 + 3
    assert rules.exploit_interval(100, 0) == 5
    assert rules.exploit_interval(100, 7) == 7


def test_a_setting_nearby_stays_within_its_axes() -> None:
    known = axes.parse(["learning_rate=1e-4..1e-2:log", "gamma=0.9..0.99", "clip_epsilon=1,2,3"])
    values = {"learning_rate": 1e-2, "gamma": 0.9, "clip_epsilon": 3.0}
    generator = np.random.default_rng(0)
    moved = [rules.explore(known, values, generator) for _ in range(200)]
    rates = {each["learning_rate"] for each in moved}
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert any(rate == pytest.approx(1e-2 / 1.2) for rate in rates)
    assert any(each["gamma"] == pytest.approx(0.909) for each in moved)
    assert {each["clip_epsilon"] for each in moved} == {1.0, 2.0, 3.0}  # 1 by a new draw only
    share = np.mean([each["clip_epsilon"] == 1.0 for each in moved])
    assert abs(share - 0.25 / 3) < 4 * np.sqrt(0.083 * 0.917 / 200)


@pytest.mark.parametrize("end", [1e-4, 1e-2])
def test_a_copy_from_the_end_of_an_axis_differs_from_its_source(end: float) -> None:
    ranged = axes.parse(["learning_rate=1e-4..1e-2:log"])
    listed = axes.parse(["learning_rate=1e-4,1e-2"])
    generator = np.random.default_rng(0)
    for _ in range(500):
        for known in (ranged, listed):
            moved = rules.explore(known, {"learning_rate": end}, generator)["learning_rate"]
            assert moved != end
            assert 1e-4 <= moved <= 1e-2


def test_numbers_in_any_order_are_stepped_through_as_they_rise() -> None:
    """From 0.3 the step is to 0.2; a new draw, 1 in 4, finds 0.1 in a third of its draws.

    A step beyond the end and a draw of 0.3 itself are drawn again: 0.1 has the chance
    (1/12) / (1/12 + 1/12 + 3/8) = 2/13.
    """
    known = axes.parse(["clip_epsilon=0.3,0.1,0.2"])
    generator = np.random.default_rng(0)
    moved = [rules.explore(known, {"clip_epsilon": 0.3}, generator) for _ in range(600)]
    found = np.mean([each["clip_epsilon"] == 0.1 for each in moved])
    assert abs(found - 2 / 13) < 4 * np.sqrt(2 / 13 * 11 / 13 / 600)


def test_schedules_are_stepped_through_as_they_are_listed() -> None:
    known = axes.parse(["learning_rate=1e-3:0,1e-4,1e-3"])
    first = {"learning_rate": known[0].choices[0]}
    moved = [rules.explore(known, first, np.random.default_rng(i)) for i in range(200)]
    assert np.mean([each["learning_rate"] == 1e-4 for each in moved]) > 0.7


def test_values_that_are_refused_are_drawn_again_and_the_source_stays_at_last() -> None:
    known = axes.parse(["gamma=0.5..0.9", "gae_lambda=0.5..0.9"])
    values, generator = {"gamma": 0.7, "gae_lambda": 0.7}, np.random.default_rng(0)
    for _ in range(50):
        moved = rules.explore(known, values, generator, lambda v: v["gamma"] < v["gae_lambda"])
        assert moved["gamma"] < moved["gae_lambda"]
    assert rules.explore(known, values, generator, lambda v: False) == values


def test_an_axis_of_one_value_stays() -> None:
    known = axes.parse(["gamma=0.9"])
    assert rules.explore(known, {"gamma": 0.9}, np.random.default_rng(0)) == {"gamma": 0.9}


def test_the_ancestry_of_a_slot_is_the_chain_of_its_copies() -> None:
    lines = [
        {"iteration": 10, "copies": [{"slot": 0, "from": 2, "values": {"gamma": 0.5}}]},
        {"iteration": 20, "copies": [{"slot": 2, "from": 1, "values": {"gamma": 0.6}}]},
        {"iteration": 30, "copies": [{"slot": 1, "from": 0, "values": {"gamma": 0.7}}]},
    ]
    first = {i: {"gamma": i / 10} for i in range(3)}
    assert ancestry(lines, 1, first) == [
        *((0, {"gamma": 0.2}), (10, {"gamma": 0.5}), (30, {"gamma": 0.7}))
    ]
    assert ancestry(lines, 2, first) == [(0, {"gamma": 0.1}), (20, {"gamma": 0.6})]
