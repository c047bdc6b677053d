"""Halving and pbt in slots of one population: what survives is what it would be alone.

One program for the whole file: slots of 2 seeds on one device, members one after the other.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from counted_stop import CountedStop
from tiny import CONFIG, LENGTH
from tiny import HYPER as SPEED

from ppo_jax.apps.sweep import driver, engine, pack, rules
from ppo_jax.apps.sweep.axes import apply
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.results import summary
from ppo_jax.apps.sweep.results.table import Table
from ppo_jax.apps.sweep.search import slots
from ppo_jax.apps.sweep.search.slots import SlotPopulation
from ppo_jax.config.config import Config, Hyper
from ppo_jax.runtime.signals import Stopped, StopRequest
from ppo_jax.storage import files, jsonl
from ppo_jax.storage.jsonl import LogFiles

pytestmark = pytest.mark.slow

# With the limit among the parameters, longer episodes take the same program.
HYPER = dataclasses.replace(SPEED, env={**SPEED.env, "max_steps_in_episode": LENGTH})
AXES = {"learning_rate": "1e-3..0.2:log", "gamma": "0.5..0.99"}
OPTIONS: dict[str, Any] = {"seeds": 2, "eval_episodes": 4, "layout": "map", "log_every": 32}
OPTIONS |= {"devices": 1, "fresh_seeds": 2}


@pytest.fixture(scope="module", autouse=True)
def programs_are_kept() -> Iterator[None]:
    """Equal programs are compiled once for all tests of this file."""
    kept: dict[Any, engine.Engine] = {}
    build = engine.build

    def build_once(config: Config, hyper: Hyper, members: int, options: SweepOptions, what: str):
        key = (config, members)
        if key not in kept:
            kept[key] = build(config, hyper, members, options, what)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "build", build_once)
        yield


def sweep(folder: Path, sampler: str, **changes: Any) -> Table:
    given = {**OPTIONS, "sampler": sampler, "settings": 6, "out": str(folder), **changes}
    return driver.sweep(CONFIG, AXES, HYPER, **given)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """6 settings in 3 slots, rungs after 2 and 7 iterations."""
    folder = tmp_path_factory.mktemp("sweeps") / "halved"
    return sweep(folder, "halving", slots=3, eta=2, min_env_steps=64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The same 6 settings to the end."""
    return sweep(tmp_path_factory.mktemp("sweeps") / "whole", "random", fresh_seeds=0)


def points(table: Table, setting: int) -> dict[tuple[int, int], float]:
    """(seed, environment steps) -> KL of one setting's rows."""
    mine = table["setting"] == setting
    keys = zip(table["seed"][mine], table["env_steps"][mine], strict=True)
    return dict(zip(keys, table["kl_old_new"][mine], strict=True))


def test_a_setting_trains_in_its_slot_as_in_the_full_sweep_bit_for_bit(
    halved: Table, whole: Table
) -> None:
    assert {row["setting"] for row in halved.settings} < set(range(6))
    full = {row["setting"]: row for row in whole.settings}
    for row in halved.settings:
        assert row["values"] == full[row["setting"]]["values"]
        assert row["final_return"] == full[row["setting"]]["final_return"]
    for setting in range(6):  # settings that left early, too, and those that came into used slots
        mine, all_points = points(halved, setting), points(whole, setting)
        shared = mine.keys() & all_points.keys()
        assert shared
        assert {key: mine[key] for key in shared} == {key: all_points[key] for key in shared}


def test_halving_trains_less_and_its_log_says_who_went_on(halved: Table) -> None:
    lines = jsonl.read_jsonl(halved.summary["lineage"])
    arrivals = [each for line in lines for each in line["arrived"]]
    first = [each["setting"] for each in arrivals if each["rung_env_steps"] == 64]
    assert sorted(first) == list(range(6))
    last = {each["setting"] for each in arrivals if each["rung_env_steps"] == 224}
    assert last == {row["setting"] for row in halved.settings}
    steps = {}
    for each in arrivals:
        steps[each["setting"]] = max(each["rung_env_steps"], steps.get(each["setting"], 0))
    assert halved.summary["env_steps_in_all"] == 2 * sum(steps.values())
    assert halved.summary["share_of_grid"] == sum(steps.values()) / (6 * 224)
    assert halved.summary["share_of_grid"] < 0.7


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """6 settings that copy each other every 2 iterations of 7."""
    return sweep(tmp_path_factory.mktemp("sweeps") / "evolved", "pbt", interval=64)


def test_the_lineage_tells_every_copy_and_the_table_the_numbers_of_each_moment(
    evolved: Table,
) -> None:
    lines = jsonl.read_jsonl(evolved.summary["lineage"])
    assert [line["env_steps"] for line in lines] == [64, 128, 192]
    for line in lines:
        assert bool(line["copies"]) == (len(set(line["scores"])) > 1)
        for copy in line["copies"]:
            assert line["scores"][copy["from"]] > line["scores"][copy["slot"]]
    copies = [(line["env_steps"], copy) for line in lines for copy in line["copies"]]
    steps, copy = copies[-1]
    mine = (evolved["setting"] == copy["slot"]) & (evolved["env_steps"] == 224)
    assert set(evolved["learning_rate"][mine]) == {copy["values"]["learning_rate"]}
    np.testing.assert_allclose(
        evolved["learning_rate_now"][mine], copy["values"]["learning_rate"], rtol=1e-6
    )
    schedule = evolved.summary["schedules"][str(copy["slot"])]
    assert schedule[-1] == {"env_steps": steps, "values": copy["values"]}


def test_the_winner_of_pbt_is_shown_again_with_its_schedule(evolved: Table) -> None:
    best = evolved.summary["best"]
    assert len(best["fresh"]["per_seed"]) == 2
    again = pack.read_result(evolved.folder / "winner")
    assert [member.seed for member in again.members] == [2, 3]


def population(folder: Path) -> tuple[SlotPopulation, Hyper, Any]:
    options = SweepOptions(**{**OPTIONS, "sampler": "pbt", "settings": 6})
    built = engine.build(CONFIG, apply(CONFIG, HYPER, {"gamma": 0.5})[1], 12, options, "it")
    control = pack.Control(StopRequest(), *driver.UNHEARD)
    job = pack.PackJob(folder, None, CONFIG, HYPER, {}, [], "it")
    made = SlotPopulation(built, job, options, (0, 1), control, LogFiles(folder, slots.LOGS))
    values = [{"learning_rate": 0.01, "gamma": 0.5 + i / 100} for i in range(6)]
    status = slots.first_status(made, range(6), values)
    hyper = slots.arrays(made, values)
    state, _ = slots.train_slots(made, hyper, slots.fresh_state(made, hyper), status, 2)
    return made, hyper, state


def test_a_copy_takes_weights_and_the_random_key_that_its_seed_has_everywhere(
    tmp_path: Path,
) -> None:
    made, _, state = population(tmp_path)
    before = jax.device_get(state.params), np.asarray(jax.random.key_data(state.key))
    copied = slots.copied(made, state, [0, 1, 5, 3, 4, 5])
    keys = np.asarray(jax.random.key_data(copied.key))
    np.testing.assert_array_equal(keys, before[1])
    np.testing.assert_array_equal(keys, np.tile(keys[:2], (6, 1)))  # two seeds, six slots
    for new, old in zip(
        jax.tree.leaves(jax.device_get(copied.params)), jax.tree.leaves(before[0]), strict=True
    ):
        np.testing.assert_array_equal(new[4:6], old[10:12])  # seed by seed
        np.testing.assert_array_equal(np.delete(new, [4, 5], 0), np.delete(old, [4, 5], 0))
        assert (new[4] != old[4]).any()


def test_a_decision_looks_at_whole_episodes_that_training_has_not_finished(
    tmp_path: Path,
) -> None:
    """Episodes last 100 steps, and the rung and the exploits come after 16 and 32 steps."""
    long = dataclasses.replace(HYPER, env={"speed": 0.001, "max_steps_in_episode": 100})
    per_score, per_final = 16 * 100, 4 * 100
    axes = {"learning_rate": [1e-3, 1e-2], "gamma": [0.5, 0.9, 0.99]}
    changes = {**OPTIONS, "fresh_seeds": 0}
    halving = {"sampler": "halving", "slots": 6, "eta": 2, "min_env_steps": 64}
    pbt = {"sampler": "pbt", "interval": 64}
    for name, more in (("halving", halving), ("pbt", pbt)):
        out = str(tmp_path / name)
        found = driver.sweep(CONFIG, axes, long, out=out, **{**changes, **more})
        assert not np.isfinite(found["episode_return"]).any()  # none ended while training
        lines = jsonl.read_jsonl(found.summary["lineage"])
        scores = lines[0].get("scores") or [each["score"] for each in lines[0]["arrived"]]
        # A whole episode costs 100 times the distance from 0, which hardly moves from 0.3.
        assert scores == pytest.approx([-30.0] * 6, abs=5.1)
        assert len(set(scores)) > 1  # policies differ
        decisions, members = {"halving": (1, 12), "pbt": (3, 12)}[name]
        finals = per_final * 2 * len(found.settings)
        expected = decisions * members * per_score + finals
        assert found.summary["evaluation_env_steps"] == expected


def test_a_halving_whose_settings_all_fail_ends_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "play", lambda *given: ([None] * 12, 0))
    found = sweep(tmp_path / "lost", "halving", slots=6, eta=2, min_env_steps=64)
    assert found.exit_code == 1
    assert found.summary["best"] is None
    assert found.summary["env_steps_in_all"] == 12 * 64  # all leave at the first rung
    assert found.summary["num_failed"] == 12
    assert summary.NONE_LEFT in summary.lines(found)
    assert summary.NONE_LEFT in (found.folder / "report.md").read_text()


def test_the_score_of_a_slot_is_the_mean_of_its_seeds_own_evaluations(tmp_path: Path) -> None:
    made, hyper, state = population(tmp_path)
    status = slots.first_status(made, range(6), [{"gamma": 0.5}] * 6)
    scores, failed, status = slots.scores(made, hyper, state, status, [1, 4])
    assert failed == [0, 0]
    returns, _ = slots.final_returns(made, hyper, state, status, range(6))
    # One start and a deterministic policy: each episode of a seed has the same return.
    assert scores == [np.mean(returns[1]), np.mean(returns[4])]
    assert status.evaluation_steps > 0


# The options of `halved` and of `evolved`.
MORE = {"halving": {"slots": 3, "eta": 2, "min_env_steps": 64}, "pbt": {"interval": 64}}


@pytest.mark.parametrize("sampler", ["halving", "pbt"])
def test_a_stopped_population_goes_on_to_the_same_table(
    tmp_path: Path,
    sampler: str,
    halved: Table,
    evolved: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = {"halving": halved, "pbt": evolved}[sampler]
    monkeypatch.setattr(driver.signals, "listening", lambda: CountedStop(3))
    codes = []
    while not codes or codes[-1] == 75:
        assert len(codes) < 20
        codes.append(sweep(tmp_path / "cut", sampler, fresh_seeds=0, **MORE[sampler]).exit_code)
    assert len(codes) > 1
    assert codes[-1] == 0
    for name in ("table.csv", "scores.csv"):
        mine = (tmp_path / "cut" / name).read_text()
        assert mine == (expected.folder / name).read_text()


@pytest.mark.parametrize("sampler", ["halving", "pbt"])
def test_a_stop_while_episodes_are_played_loses_no_training_and_skips_no_decision(
    tmp_path: Path,
    sampler: str,
    halved: Table,
    evolved: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Start n is stopped in its n-th evaluation."""
    expected = {"halving": halved, "pbt": evolved}[sampler]
    play, train = engine.play, slots.train_slots
    stops: list[CountedStop] = []
    left, trained = [0], []

    def interrupted(*given: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            stops[-1].request("SIGTERM", 75)
            raise Stopped("SIGTERM", 75)
        return play(*given)

    def counted(*given: Any) -> Any:
        trained.append(given[-1])
        return train(*given)

    def listening() -> CountedStop:
        stops.append(CountedStop(10**9))
        return stops[-1]

    monkeypatch.setattr(driver.signals, "listening", listening)
    monkeypatch.setattr(engine, "play", interrupted)
    monkeypatch.setattr(slots, "train_slots", counted)
    codes = []
    while not codes or codes[-1] == 75:
        assert len(codes) < 20
        left[0] = len(codes)
        codes.append(sweep(tmp_path / "cut", sampler, fresh_seeds=0, **MORE[sampler]).exit_code)
    assert len(codes) > 2
    assert codes[-1] == 0
    result = json.loads((expected.folder / "packs" / "000-000" / "standing.json").read_text())
    assert sum(trained) == result["clock"]  # none of it twice
    assert not (expected.folder / "packs" / "000-000" / "checkpoints").exists()
    for name in ("table.csv", "scores.csv", "packs/000-000/lineage.jsonl"):
        mine = (tmp_path / "cut" / name).read_text()
        assert mine == (expected.folder / name).read_text()
    assert not (tmp_path / "cut" / "packs" / "000-000" / "checkpoints").exists()


def test_a_status_comes_back_from_json_with_scores_that_are_not_finite(tmp_path: Path) -> None:
    """Halving compares the scores of a stopped sweep with new ones, so they must be numbers."""
    made, _, _ = population(tmp_path)
    status = slots.first_status(made, [0, 1], [{"gamma": 0.5}, {"kl_stop": np.inf}])
    status = status._replace(records=[[2, 0, -np.inf], [2, 1, -np.inf], [2, 2, 1.5]])
    files.write_json(tmp_path / "a.json", status._asdict())
    content = json.loads((tmp_path / "a.json").read_text())
    again = slots.read_status(content)
    np.testing.assert_equal(again, status)
    endless = status._replace(returns={"1": [np.inf, -np.inf, None, 2.0]})
    files.write_json(tmp_path / "b.json", endless._asdict())
    again_endless = slots.read_status(json.loads((tmp_path / "b.json").read_text()))
    assert again_endless.returns == {"1": [np.inf, -np.inf, None, 2.0]}
    old = slots.read_status({**content, "return_sum": [0.0], "records": [[2, 1, None]]})
    assert old.records == [[2, 1, -np.inf]]
    assert rules.survivors([(3, 0.0)], [tuple(pair) for _, *pair in again.records], 2) == [3]
