"""A sweep of settings x seeds: its table and files, stops and refusals, and its plan.

One small environment and one `map` layout on one device throughout, so that a sweep that goes on
after a stop has the bits of one that was not stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counted_stop import CountedStop
from tiny import CONFIG, HYPER

from ppo_jax.apps.sweep import driver, engine, folder, pack, plan
from ppo_jax.apps.sweep.axes import apply, parse
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.results import summary, table
from ppo_jax.apps.sweep.results.table import Table
from ppo_jax.apps.sweep.search import study
from ppo_jax.config import presets
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.runtime import chunk_loop

pytestmark = pytest.mark.slow

AXES = {"learning_rate": [0.01, 0.1], "env.speed": [0.5, 0.25]}
OPTIONS: dict[str, Any] = {
    "seeds": 2,
    "eval_episodes": 4,
    "layout": "map",
    "log_every": 64,
    "fresh_seeds": 2,
    "devices": 1,
}


@pytest.fixture(scope="module", autouse=True)
def programs_are_kept() -> Iterator[None]:
    """Equal programs are compiled once for all tests of this file."""
    kept: dict[Any, engine.Engine] = {}
    build = engine.build

    def build_once(config: Config, hyper: Hyper, members: int, options: SweepOptions, what: str):
        how = (options.layout, options.device_memory, options.eval_episodes, options.devices)
        key = (config, members, how)
        if key not in kept:
            kept[key] = build(config, hyper, members, options, what)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "build", build_once)
        yield


def sweep(folder: Path, axes: Any = AXES, hyper: Hyper = HYPER, **changes: Any) -> Table:
    return driver.sweep(CONFIG, axes, hyper, out=str(folder), **{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The sweep that the others are compared with: 4 settings x 2 seeds in one pack."""
    return sweep(tmp_path_factory.mktemp("sweeps") / "whole")


def test_the_table_has_a_row_for_each_logged_point_of_each_seed_of_each_setting(
    whole: Table,
) -> None:
    points = -(-CONFIG.num_iterations // 2)  # 64 steps are 2 iterations of 32
    assert len(whole) == 4 * 2 * points
    keys = list(zip(whole["setting"], whole["seed"], whole["env_steps"], strict=True))
    assert len(set(keys)) == len(keys)
    mine = (whole["setting"] == 2) & (whole["seed"] == 1)
    np.testing.assert_array_equal(whole["env_steps"][mine], [64, 128, 192, 224])
    assert set(whole["learning_rate"][mine]) == {0.1}
    assert set(whole["env.speed"][mine]) == {0.5}
    np.testing.assert_allclose(whole["learning_rate_now"][mine], 0.1, rtol=1e-6)
    with (whole.folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["kl_old_new"]) for row in rows] == list(whole["kl_old_new"])


def test_a_score_is_the_mean_over_the_seeds_and_the_best_comes_first(whole: Table) -> None:
    result = pack.read_result(whole.folder / "packs" / "000-000")
    returns = pack.by_setting(result.members, result.final_return)
    scores = {setting: float(np.mean(values)) for setting, values in returns.items()}
    assert [row["final_return"]["mean"] for row in whole.settings] == sorted(
        scores.values(), reverse=True
    )
    best = whole.summary["best"]
    assert best["selected"]["mean"] == max(scores.values())
    fresh = pack.read_result(whole.folder / "winner")
    assert [member.seed for member in fresh.members] == [2, 3]  # those after the sweep's 0 and 1
    assert best["optimism_of_selection"] == pytest.approx(
        max(scores.values()) - float(np.mean(fresh.final_return))
    )


def test_the_best_setting_is_a_preset(whole: Table) -> None:
    path = whole.folder / "best.toml"
    best = whole.settings[0]["values"]
    config, hyper = presets.apply(presets.read(path, "clip"))
    expected = apply(CONFIG, HYPER, best)
    assert (config, hyper) == expected
    result = tomllib.loads(path.read_text())["clip"]["result"]
    assert result["score"] == whole.summary["best"]["fresh"]["mean"]


def test_pictures_and_a_report_are_left(whole: Table) -> None:
    for name in ("curves.svg", "axes.svg", "settings.svg", "importance.svg"):
        assert (whole.folder / name).stat().st_size > 1000
    report = (whole.folder / "report.md").read_text()
    assert "optimism" in report
    assert "curves.svg" in report
    assert any("next" in line and "best.toml" in line for line in summary.lines(whole))


def interrupted(folder_: Path, looks: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> int:
    """Sweep with a stop after some looks, again and again until it is done; how often."""
    times = 0
    while True:
        times += 1
        with monkeypatch.context() as patch:
            patch.setattr(driver.signals, "listening", lambda: CountedStop(looks))
            patch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)  # one iteration a chunk
            found = sweep(folder_, **changes)
        if found.exit_code == 0:
            return times
        assert found.exit_code == 75
        assert found.summary["stopped_early"]
        assert times < 50


def test_a_stopped_sweep_goes_on_to_the_same_table_bit_for_bit(
    tmp_path: Path, whole: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Memory for 4 of the 8 members: two packs, and every stop falls into the middle of one.
    limit = memory_for(4)
    times = interrupted(tmp_path / "cut", 6, monkeypatch, device_memory=str(limit))
    assert times > 2
    assert len(list((tmp_path / "cut" / "packs").iterdir())) == 2
    for name in ("table.csv", "scores.csv"):
        assert (tmp_path / "cut" / name).read_text() == (whole.folder / name).read_text()
    assert not list((tmp_path / "cut" / "packs").glob("*/checkpoints"))


@pytest.mark.parametrize("looks", [0, 1])  # before the first pack, and in it before a row
def test_a_sweep_that_is_stopped_before_its_first_row_says_what_is_saved(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver.signals, "listening", lambda: CountedStop(looks))
    found = sweep(tmp_path / "cut")
    assert found.exit_code == 75
    assert len(found) == 0
    assert found.summary["pictures"] == []
    assert (tmp_path / "cut" / "scores.csv").read_text().startswith("rank,setting,learning_rate")
    told = "\n".join(summary.lines(found))
    assert "0 of 1 packs" in told
    assert ("the one in work is saved" in told) == bool(looks)
    assert f"go on with: ppo-jax sweep {tmp_path / 'cut'}" in told


def test_a_value_that_cannot_run_is_refused_before_its_program_is_made(tmp_path: Path) -> None:
    for axes, words in (
        ({"objective": ["clip", "foo"]}, "objective='foo' is not one of"),
        ({"objective": ["clip", "drift"]}, "needs a drift"),
        ({"num_envs": [4, 0]}, "num_envs=0 must be"),
    ):
        with pytest.raises(InputError, match=words):
            sweep(tmp_path / "none", axes)
    assert not (tmp_path / "none").exists()


def memory_for(members: int) -> int:
    hyper = apply(CONFIG, HYPER, {"env.speed": 0.5})[1]
    built = engine.build(
        CONFIG, hyper, members, SweepOptions(layout="map", eval_episodes=4, devices=1), "it"
    )
    return built.memory.total


def test_a_winner_whose_fresh_seeds_do_not_fit_one_pack_trains_all_of_them(
    tmp_path: Path, whole: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = sweep(tmp_path / "narrow", device_memory=str(memory_for(1)))
    assert narrow.summary["best"] == whole.summary["best"]
    seeds = [
        pack.read_result(tmp_path / "narrow" / name).members[0].seed
        for name in ("winner", "winner-001")
    ]
    assert seeds == [2, 3]
    shutil.rmtree(tmp_path / "narrow" / "winner-001")  # as version 0.1.0 left its winner
    assert driver.resume(tmp_path / "narrow").summary["best"] == whole.summary["best"]
    monkeypatch.setattr(pack, "_loop", lambda *_: pytest.fail("trained again"))
    assert driver.resume(tmp_path / "narrow").summary["best"] == whole.summary["best"]


def test_a_study_whose_seeds_do_not_fit_one_pack_has_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 settings x 2 seeds, one member a pack: the files are those of two members a pack."""
    pytest.importorskip("optuna")
    given = {"sampler": "tpe", "settings": 2, "batch": 1, "fresh_seeds": 0}
    axes = {"learning_rate": "0.01..0.1"}
    wide = sweep(tmp_path / "wide", axes, **given)
    assert len(wide) == 2 * 2 * 4
    given["device_memory"] = str(memory_for(1))
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", lambda *_: sys.exit(1))  # as if killed before its report
        with pytest.raises(SystemExit):
            sweep(tmp_path / "narrow", axes, **given)
    assert len(list((tmp_path / "narrow" / "packs").iterdir())) == 2
    for _ in range(2):
        narrow = sweep(tmp_path / "narrow", axes, **given)
        assert narrow.summary["env_steps_in_all"] == 2 * 2 * CONFIG.trained_env_steps
        assert narrow.summary["train_seconds"] > 0.0
        assert len(list((tmp_path / "narrow" / "packs").iterdir())) == 4
        for name in ("table.csv", "scores.csv"):
            assert (tmp_path / "narrow" / name).read_text() == (wide.folder / name).read_text()


def test_a_device_too_small_for_one_member_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=r"One member of all settings needs .* offers 10 KiB"):
        sweep(tmp_path / "small", device_memory="10K")
    assert not (tmp_path / "small").exists()


def test_a_table_without_memory_and_too_many_runs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = [0.1 / (i + 1) for i in range(20)]
    with pytest.raises(InputError, match="20 settings x 1000000 seeds are 20000000 runs"):
        sweep(tmp_path / "many", {"learning_rate": rates}, seeds=10**6)
    monkeypatch.setattr(plan.devices, "free_memory_bytes", lambda: 2**20)
    with pytest.raises(InputError, match=r"table of 2,000 runs x 4 logged points .* --log-every"):
        sweep(tmp_path / "long", {"learning_rate": rates}, seeds=100)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_packs_that_differ_are_filled_up(tmp_path: Path) -> None:
    """Words, numbers and metrics that only some lines have; rows by setting, seed and step."""
    packs = [
        ({"1": {"a": "x", "b": 2}}, [[1, 0]], [{"env_steps": 8, "m": [1.5], "a": [7.0]}]),
        (
            {"0": {"a": 0.5, "b": 3}},
            [[0, 0], [0, 1]],
            [{"env_steps": 8, "m": [None, 2.5], "extra": [1.0, 2.0], "a": [8.0, 9.0]}],
        ),
    ]
    for number, (settings, members, lines) in enumerate(packs):
        there = tmp_path / str(number)
        there.mkdir()
        content = {"settings": settings, "members": members}
        (there / "pack.json").write_text(json.dumps(content))
        (there / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    found = table.read_columns([tmp_path / "0", tmp_path / "1"])
    assert {name: column.tolist() for name, column in found.items() if name != "extra"} == {
        **{"setting": [0, 0, 1], "seed": [0, 1, 0], "a": ["0.5", "0.5", "x"], "b": [3, 3, 2]},
        **{"env_steps": [8, 8, 8], "m": [pytest.approx(np.nan, nan_ok=True), 2.5, 1.5]},
        **{"a_now": [8.0, 9.0, 7.0]},
    }
    np.testing.assert_array_equal(found["extra"], [1.0, 2.0, np.nan])
    assert found["b"].dtype == np.int64


def test_a_pack_gives_the_rows_of_those_settings_that_it_is_asked_for(tmp_path: Path) -> None:
    content = {"settings": {"0": {"a": 1}, "1": {"a": 2}}, "members": [[0, 0], [0, 1], [1, 0]]}
    (tmp_path / "pack.json").write_text(json.dumps(content))
    (tmp_path / "metrics.jsonl").write_text('{"env_steps": 8, "m": [1.0, 2.0, 3.0]}\n')
    found = table.read_columns([tmp_path], {tmp_path: {0}})
    assert (found["setting"].tolist(), found["m"].tolist()) == ([0, 0], [1.0, 2.0])


def test_another_sweep_does_not_go_on_in_a_folder(whole: Table) -> None:
    with pytest.raises(InputError, match=r"holds another sweep \(learning_rate was"):
        sweep(whole.folder, {**AXES, "learning_rate": [0.01, 0.2]})


def test_a_finished_sweep_is_read_again_without_training(
    whole: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "_loop", lambda *_: pytest.fail("trained again"))
    again = driver.resume(whole.folder)
    assert again.settings == whole.settings
    assert again.summary["best"] == whole.summary["best"]


def test_a_member_that_turns_non_finite_is_reported_and_no_winner(tmp_path: Path) -> None:
    axes = {"learning_rate": [0.01, 1e38]}
    found = sweep(tmp_path / "broken", axes, fresh_seeds=0)
    assert found.summary["num_failed"] == 2
    assert found.settings[0]["values"]["learning_rate"] == 0.01
    assert found.settings[1]["final_return"]["per_seed"] == [None, None]


def test_arrays_in_hyper_are_swept(tmp_path: Path, whole: Table) -> None:
    hyper = dataclasses.replace(HYPER, learning_rate=np.array([0.01, 0.1]))
    found = sweep(tmp_path / "arrays", {"env.speed": [0.5, 0.25]}, hyper, fresh_seeds=0)
    assert [row["final_return"] for row in found.settings] == [
        row["final_return"] for row in whole.settings
    ]


def test_the_plan_says_groups_members_memory_and_time_and_writes_nothing(tmp_path: Path) -> None:
    options = SweepOptions(**{**OPTIONS, "out": str(tmp_path / "plan")})
    given = Sweep(CONFIG, HYPER, parse(["learning_rate=0.01,0.1"]), [{}], options)
    data, lines = plan.plan_only(given)
    assert [group["members"] for group in data["groups"]] == [4]
    assert data["groups"][0]["memory_bytes"] == memory_for(4)
    assert "2 settings x 2 seeds = 4 members of 224 environment steps" in lines[0]
    assert not (tmp_path / "plan").exists()


def test_the_plan_of_a_study_counts_the_settings_that_are_still_to_come(tmp_path: Path) -> None:
    changes = {"sampler": "tpe", "settings": 6, "batch": 3, "out": str(tmp_path / "plan")}
    axes = parse(["learning_rate=0.01..0.1", "objective=clip,kl"])
    given = Sweep(CONFIG, HYPER, axes, [{}], SweepOptions(**{**OPTIONS, **changes}))
    data, lines = plan.plan_only(given)
    (group,) = data["groups"]
    assert (data["settings"], group["settings"], group["members"]) == (6, 6, 12)
    assert (group["packs"], group["width"]) == (2, 6)
    assert "6 settings x 2 seeds = 12 members" in lines[0]
    assert "12 members in 2 packs of 6" in lines[1]
    assert "further programs are compiled when a setting needs them" in lines[1]


def test_the_plan_of_a_halving_is_that_of_its_slots(tmp_path: Path) -> None:
    changes = {"sampler": "halving", "settings": 9, "slots": 3, "out": str(tmp_path / "plan")}
    axes = parse(["learning_rate=0.01..0.1"])
    given = Sweep(CONFIG, HYPER, axes, [{}], SweepOptions(**{**OPTIONS, **changes}))
    data, _ = plan.plan_only(given)
    (group,) = data["groups"]
    assert (data["settings"], group["settings"], group["members"]) == (9, 9, 6)


def test_a_sweep_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    axes = parse(["learning_rate=1e-4..1e-2:log", "gamma=0.9,0.99", "clip_epsilon=0.1:0,0.2"])
    options = SweepOptions(sampler="random", settings=3, out=str(tmp_path / "it"))
    given = Sweep(CONFIG, HYPER, axes, [{}], options)
    folder.open_folder(given)
    assert folder.read(tmp_path / "it") == given


def test_a_setting_with_a_failed_seed_comes_after_all_without_one() -> None:
    returns = {0: [9.0, None, None], 1: [1.0, 2.0, 1.0], 2: [3.0, 3.0, 3.0], 3: [5.0, 5.0, None]}
    found = table.scores({key: {} for key in returns}, returns)
    assert [row["setting"] for row in found] == [2, 1, 3, 0]
