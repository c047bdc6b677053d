"""What halving and population-based training decide, by hand and by invariants."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_jax.sweeping import axes, pruning
from ppo_jax.sweeping.pbt import ancestry

NAN = float("nan")


def test_rungs_grow_by_eta_and_end_with_the_budget() -> None:
    assert pruning.rungs(27, 3, 1) == (1, 3, 9, 27)
    assert pruning.rungs(100, 3, 0) == (11, 33, 99, 100)
    assert pruning.rungs(10, 2, 4) == (4, 8, 10)
    assert pruning.rungs(1, 3, 0) == (1,)


def test_a_third_of_those_that_arrive_together_goes_on() -> None:
    arrived = [(0, 1.0), (1, 5.0), (2, 3.0), (3, NAN), (4, 4.0), (5, -1.0)]
    assert pruning.survivors(arrived, [], 3) == [1, 4]


def test_later_arrivals_are_compared_with_all_that_came_before() -> None:
    records = [(0, 1.0), (1, 5.0), (2, 3.0)]
    assert pruning.survivors([(3, 4.0), (4, 0.0), (5, 2.0)], records, 3) == [3]
    assert pruning.survivors([(3, 2.0)], records, 3) == []


def test_one_always_goes_on_from_the_first_arrivals() -> None:
    assert pruning.survivors([(7, -3.0), (8, -4.0)], [], 4) == [7]


def test_the_share_of_a_halving_is_the_sum_over_its_rungs() -> None:
    # 9 settings for 1 iteration, 3 for 2 more, 1 for 6 more: 21 of 81.
    assert pruning.expected_share(9, (1, 3, 9), 3) == pytest.approx(21 / 81)


def test_the_lowest_fifth_copies_from_the_highest_fifth() -> None:
    scores = [float(i) for i in range(10)]
    for seed in range(20):
        sources = pruning.exploit(scores, np.random.default_rng(seed))
        assert sources[2:] == list(range(2, 10))
        assert set(sources[:2]) <= {8, 9}


def test_failed_slots_copy_and_slots_without_a_score_are_left_alone() -> None:
    sources = pruning.exploit([NAN, 1.0, float("-inf"), 3.0, 2.0], np.random.default_rng(0))
    assert sources == [0, 1, 3, 3, 4]
    assert pruning.exploit([NAN, NAN, 1.0], np.random.default_rng(0)) == [0, 1, 2]


def test_a_setting_nearby_stays_within_its_axes() -> None:
    known = axes.parse(["learning_rate=1e-4..1e-2:log", "gamma=0.9..0.99", "clip_epsilon=1,2,3"])
    values = {"learning_rate": 1e-2, "gamma": 0.9, "clip_epsilon": 3.0}
    generator = np.random.default_rng(0)
    moved = [pruning.explore(known, values, generator) for _ in range(200)]
    rates = {each["learning_rate"] for each in moved}
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert any(rate == pytest.approx(1e-2 / 1.2) for rate in rates)
    assert any(each["gamma"] == pytest.approx(0.909) for each in moved)
    assert {each["clip_epsilon"] for each in moved} == {1.0, 2.0, 3.0}  # 1 by a new draw only
    share = np.mean([each["clip_epsilon"] == 1.0 for each in moved])
    assert abs(share - 0.25 / 3) < 4 * np.sqrt(0.083 * 0.917 / 200)


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
