"""The host loop: what it leaves behind, when it stops, and that it changes no weight."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BATCH, CONFIG, HYPER, START, STEPS, Walk, programs_are_kept, tiny_run

from ppo_jax.analysis import stats
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.run import runner
from ppo_jax.config.config import Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import population, programs
from ppo_jax.envs import registration
from ppo_jax.runtime import chunk_loop, devices, evaluation, loggers, signals, startup
from ppo_jax.storage import checkpoint, checkpoint_list
from ppo_jax.storage.jsonl import read_jsonl


@pytest.fixture(scope="module", autouse=True)
def _kept() -> Iterator[None]:
    with programs_are_kept():
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[runner.RunResult, list[dict[str, Any]]]:
    """A run that logs every 2nd, evaluates every 4th and saves every 3rd of its 7 iterations."""
    told: list[dict[str, Any]] = []
    folder = tmp_path_factory.mktemp("runs") / "ran"
    every = {"eval_every": 4 * BATCH, "checkpoint_every": 3 * BATCH}
    return tiny_run(folder, callbacks=[told.append, look], **every), told


MOMENTS: list[tuple[int, list[int]]] = []


def look(row: dict[str, Any], moment: Any) -> None:
    assert row["env_steps"] == moment.env_steps
    MOMENTS.append((moment.iteration, moment.state.iteration.tolist()))


def weights(folder: Path) -> bytes:
    newest, warnings = checkpoint_list.latest(folder)
    assert newest is not None
    assert warnings == []
    return (newest / checkpoint.ARRAYS).read_bytes()


# --- what a run leaves behind --------------------------------------------------------------------


def test_the_folder_is_complete(ran: Any) -> None:
    assert sorted(path.name for path in ran[0].folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "learning_curve.svg",
        "manifest.json",
        "metrics.jsonl",
        "summary.json",
        "timing.jsonl",
    ]


def test_rows_come_at_every_second_iteration_and_at_the_last(ran: Any) -> None:
    rows = read_jsonl(ran[0].folder / "metrics.jsonl")
    assert [row["env_steps"] for row in rows] == [64, 128, 192, STEPS]
    assert all(len(row["episode_return"]) == 3 for row in rows)
    assert ran[1] == rows  # callbacks are told what is written
    assert [(i, [i] * 3) for i in (2, 4, 6, 7)] == MOMENTS  # and see the state of that row


def test_evaluations_fall_on_their_own_points_only(ran: Any) -> None:
    assert [row["env_steps"] for row in ran[1] if "eval_return" in row] == [4 * BATCH]
    evaluated = next(row["eval_return"] for row in ran[1] if "eval_return" in row)
    assert len(evaluated) == 3


def test_metrics_say_nothing_of_the_clock_and_timing_does(ran: Any) -> None:
    assert not [name for name in ran[1][0] if "second" in name or "time" in name]
    rows = read_jsonl(ran[0].folder / "timing.jsonl")
    assert set(rows[0]) == {"env_steps", "wall_seconds", "env_steps_per_second"}
    assert rows[-1]["env_steps"] == STEPS
    told = ran[0].summary["train_seconds"]
    assert rows[-1]["wall_seconds"] == pytest.approx(told, abs=1e-3)


def test_the_checkpoints_hold_exactly_the_seeds_asked_for(ran: Any) -> None:
    folders = sorted((ran[0].folder / "checkpoints").iterdir())
    # Beside the newest two the one of the evaluation, which is the best as it is the only one.
    assert [path.name for path in folders] == [f"step_{steps:012d}" for steps in (128, 192, 224)]
    arrays, metadata = checkpoint.load_raw(folders[-1])
    assert {array.shape[0] for array in arrays.values()} == {3}
    assert metadata["env_steps"] == STEPS
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(ran[0].state))


def test_the_summary_is_the_file_and_counts_the_rounded_budget(ran: Any) -> None:
    summary = ran[0].summary
    assert summary == json.loads((ran[0].folder / "summary.json").read_text())
    assert (summary["env"], summary["num_seeds"]) == ("tiny:Walk", 3)
    assert (summary["env_steps"], summary["stopped_early"], ran[0].exit_code) == (STEPS, False, 0)
    assert (summary["episodes_per_seed"], summary["policy_mode"]) == (4, "deterministic")


def test_final_returns_are_those_of_the_saved_policies_played_step_by_step(ran: Any) -> None:
    env, params = Walk(), Walk().default_params
    key = jax.random.key(0)  # the walk draws nothing from it
    for seed_index, told in enumerate(ran[0].summary["final_return"]["per_seed"]):
        policy = load_policy(ran[0].folder, seed_index=seed_index)
        observation, state = env.reset_env(key, params)
        assert float(state.x) == pytest.approx(START)
        total, ended = 0.0, False
        while not ended:
            action = policy(observation)
            observation, state, reward, ended, _ = env.step_env(key, state, action, params)
            total += float(reward)
            ended = bool(ended) or bool(env.is_truncated(state, params))
        assert told == pytest.approx(total, abs=1e-5)


def test_the_score_is_the_interquartile_mean_of_the_seeds(ran: Any) -> None:
    final = ran[0].summary["final_return"]
    assert final["iqm"] == pytest.approx(stats.iqm(final["per_seed"]))
    low, high = final["ci95"]
    assert low <= final["iqm"] <= high
    assert low < min(final["per_seed"])  # three seeds: wider than they are
    assert high > max(final["per_seed"])


# --- nothing the host does changes a weight ------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-9, 1e9], ids=["one by one", "in long chunks"])
def test_logging_evaluation_checkpoints_and_the_clock_change_no_bit(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(chunk_loop, "CHUNK_SECONDS", seconds)
    bare = tiny_run(tmp_path / "bare", log_every=10**6)
    assert weights(bare.folder) == weights(ran[0].folder)


def test_metrics_are_the_same_bytes_whatever_the_clock_said(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
    every = {"eval_every": 4 * BATCH, "checkpoint_every": 3 * BATCH}
    again = tiny_run(tmp_path / "again", **every)
    name = "metrics.jsonl"
    assert (again.folder / name).read_bytes() == (ran[0].folder / name).read_bytes()
    assert again.summary["final_return"] == ran[0].summary["final_return"]


def test_another_first_seed_is_another_run_that_shares_what_it_overlaps(
    ran: Any, tmp_path: Path
) -> None:
    later = tiny_run(tmp_path / "later", seed=1)
    key = jax.vmap(jax.random.key_data)
    np.testing.assert_array_equal(key(later.state.key)[:2], key(ran[0].state.key)[1:])
    for one, other in zip(*map(jax.tree.leaves, (later.state.params, ran[0].state.params))):
        np.testing.assert_array_equal(one[:2], other[1:])


# --- when it stops -------------------------------------------------------------------------------


def test_a_run_ends_at_the_logged_point_whose_return_reaches_the_goal(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = tiny_run(tmp_path / "looked", eval_every=64)  # as a goal does in so short a run
    rows = read_jsonl(looked.folder / "metrics.jsonl")
    returns = [stats.iqm(row["eval_return"]) for row in rows if "eval_return" in row]
    goal = sorted(returns)[1]
    reached = next(i for i, value in enumerate(returns) if value >= goal)
    for seconds in (1e-9, 1e9):
        monkeypatch.setattr(chunk_loop, "CHUNK_SECONDS", seconds)
        stopped = tiny_run(tmp_path / f"{seconds}", stop_at_return=goal)
        rows = read_jsonl(stopped.folder / "metrics.jsonl")
        assert [row["env_steps"] for row in rows] == [64 * (i + 1) for i in range(reached + 1)]
        assert stopped.summary["env_steps"] == rows[-1]["env_steps"]
        assert (stopped.summary["stopped_early"], stopped.exit_code) == (True, 0)


def test_with_evaluations_only_they_can_reach_the_goal(tmp_path: Path) -> None:
    stopped = tiny_run(tmp_path / "a", stop_at_return=-1e9, eval_every=4 * BATCH)
    assert stopped.summary["env_steps"] == 4 * BATCH


def test_a_goal_that_is_never_reached_costs_nothing(ran: Any, tmp_path: Path) -> None:
    full = tiny_run(tmp_path / "a", stop_at_return=1e9)
    assert full.summary["env_steps"] == STEPS
    assert weights(full.folder) == weights(ran[0].folder)


def test_a_callback_that_returns_true_ends_the_run_after_its_row(tmp_path: Path) -> None:
    seen: list[int] = []

    def enough(row: dict[str, Any]) -> bool:
        seen.append(row["env_steps"])
        return len(seen) == 2

    stopped = tiny_run(tmp_path / "a", callbacks=[enough])
    assert seen == [64, 128]
    assert stopped.summary["env_steps"] == 128
    assert (stopped.summary["stopped_early"], stopped.exit_code) == (True, 0)


@pytest.mark.parametrize("name, exit_code", [("SIGINT", 130), ("SIGTERM", 75), ("SIGUSR1", 75)])
def test_a_signal_ends_the_run_with_everything_saved(
    tmp_path: Path, name: str, exit_code: int
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(row: dict[str, Any]) -> None:
        os.kill(os.getpid(), getattr(signal, name))

    stopped = tiny_run(tmp_path / "a", callbacks=[interrupt])
    assert stopped.exit_code == exit_code
    assert stopped.summary["env_steps"] == 64  # the chunk that was under way
    assert stopped.summary["stopped_by"] == ("Ctrl-C" if name == "SIGINT" else name)
    assert stopped.summary["final_return"]["per_seed"] == [None] * 3  # what is left is a resume's
    assert json.loads((stopped.folder / "summary.json").read_text()) == stopped.summary
    assert checkpoint.load_raw(checkpoint.checkpoint_folder(stopped.folder, 64))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_time_limit_ends_the_run_with_everything_saved(tmp_path: Path) -> None:
    stopped = tiny_run(tmp_path / "a", max_seconds=1e-6)
    assert (stopped.exit_code, stopped.summary["env_steps"]) == (75, 32)
    assert stopped.summary["stopped_by"] == "the time limit of 1e-06 seconds"
    assert checkpoint_list.latest(stopped.folder) == (
        checkpoint.checkpoint_folder(stopped.folder, 32),
        [],
    )


def test_a_loop_of_starts_with_a_limit_below_their_compile_time_comes_to_its_end(
    ran: Any, tmp_path: Path
) -> None:
    result = tiny_run(tmp_path / "a", max_seconds=1e-6)
    steps = [result.summary["env_steps"]]
    while result.exit_code == 75 and len(steps) < 12:
        result = runner.resume(tmp_path / "a", max_seconds=1e-6, quiet=True)
        steps.append(result.summary["env_steps"])
    assert steps == [32, 64, 96, 128, 160, 192, 224, 224]  # the last start evaluates
    assert result.summary["final_return"] == ran[0].summary["final_return"]


def test_ctrl_c_twice_leaves_at_once_and_hands_the_signals_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupt(row: dict[str, Any]) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path / "a", callbacks=[interrupt])
    assert not (tmp_path / "a" / "summary.json").exists()
    assert len(read_jsonl(tmp_path / "a" / "metrics.jsonl")) == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "module, phase", [(programs, "make_chunk"), (population, "make_init")], ids=["chunk", "init"]
)
def test_a_signal_before_training_is_answered_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, phase: str
) -> None:
    inner = getattr(module, phase)

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return inner(*given)

    monkeypatch.setattr(module, phase, interrupted)
    stopped = tiny_run(tmp_path / "a")
    assert (stopped.exit_code, stopped.summary["env_steps"]) == (130, 0)
    assert checkpoint_list.latest(stopped.folder) == (
        checkpoint.checkpoint_folder(stopped.folder, 0),
        [],
    )


def test_a_signal_during_the_final_evaluation_is_answered_by_its_code_after_it(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclude = evaluation.summary

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return conclude(*given)

    monkeypatch.setattr(evaluation, "summary", interrupted)
    ended = tiny_run(tmp_path / "a")
    assert ended.exit_code == 75
    assert ended.summary["final_return"] == ran[0].summary["final_return"]
    assert ended.summary["stopped_by"] is None  # nothing is left to do


def test_a_signal_in_a_long_evaluation_leaves_it_to_the_next_start(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(program: Any) -> Any:
        def call(*arguments: Any) -> Any:
            os.kill(os.getpid(), signal.SIGHUP)
            signals.check()

        return call

    with monkeypatch.context() as patch:
        patch.setattr(signals, "PATIENCE", 0.0)
        patch.setattr(evaluation, "interruptible", endless)
        stopped = tiny_run(tmp_path / "a")
    assert (stopped.exit_code, stopped.summary["env_steps"]) == (75, 224)
    assert stopped.summary["stopped_by"] == "SIGHUP"
    ended = runner.resume(tmp_path / "a", quiet=True)
    assert ended.exit_code == 0
    assert ended.summary["final_return"] == ran[0].summary["final_return"]


def test_a_run_without_memory_is_refused_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "free_memory_bytes", lambda: 2**20)
    monkeypatch.setattr(startup, "Aside", lambda *_: pytest.fail("compiled"))
    with pytest.raises(InputError, match=r"members need about .* 1 MiB are free: take fewer seeds"):
        tiny_run(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_seeds_all_fail_says_so_and_ends_with_code_1(tmp_path: Path) -> None:
    wild = dataclasses.replace(HYPER, learning_rate=1e38, max_grad_norm=float("inf"))
    failed = tiny_run(tmp_path / "a", hyper=wild)
    assert failed.exit_code == 1
    assert failed.summary["num_failed"] == 3
    final = failed.summary["final_return"]
    assert (final["per_seed"], final["iqm"], final["ci95"]) == ([None] * 3, None, None)
    for path in failed.folder.glob("*.json*"):
        assert not re.search(r"\b(NaN|Infinity)\b", path.read_text())


# --- another run's policy ------------------------------------------------------------------------


def test_a_run_can_start_from_the_policies_of_another_counted_round(
    ran: Any, tmp_path: Path
) -> None:
    # Without a step size the parameters stay what they were at the start.
    still = dataclasses.replace(HYPER, learning_rate=0.0)
    one = dataclasses.replace(CONFIG, total_env_steps=BATCH)
    begun = tiny_run(tmp_path / "a", one, still, seeds=4, init_from=str(ran[0].folder))
    for mine, other in zip(*map(jax.tree.leaves, (begun.state.params, ran[0].state.params))):
        np.testing.assert_array_equal(mine, np.asarray(other)[[0, 1, 2, 0]])
    seen, known = begun.state.observation_moments, ran[0].state.observation_moments
    np.testing.assert_array_equal(seen.count, np.asarray(known.count)[[0, 1, 2, 0]] + BATCH)


def test_another_network_cannot_be_started_from(ran: Any, tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, hidden_sizes=(9,))
    with pytest.raises(InputError, match=r"init_from=.*hidden_sizes=\(8,\).*--hidden-sizes"):
        tiny_run(tmp_path / "a", other, init_from=str(ran[0].folder))
    assert not (tmp_path / "a").exists()


# --- the environment's parameters ----------------------------------------------------------------


def test_the_environments_own_parameter_changes_the_environment(tmp_path: Path) -> None:
    still = dataclasses.replace(HYPER, env={"speed": 0.0})  # the walk stays where it starts
    stood = tiny_run(tmp_path / "a", hyper=still)
    assert stood.summary["final_return"]["per_seed"] == pytest.approx([-6 * START] * 3, abs=1e-5)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"seedz": 3}, r"'seedz' is no option of a run\. Nearest: seed"),
        ({"seeds": 0}, r"seeds=0 must be"),
        ({"hyper": Hyper(gamma=np.array([0.9, 0.99]))}, r"gamma has shape \(2,\).*one number"),
        ({"devices": 5}, r"devices=5 is more than the 2"),
        ({"init_from": "nowhere"}, r"'nowhere' is no run folder"),
        ({"platform": "tpu"}, r"platform='tpu' cannot be had any more: jax has already started"),
        ({"hyper": Hyper(env={"sped": 1.0})}, r"'sped' is no parameter .* Nearest: speed"),
        ({"config": dataclasses.replace(CONFIG, total_env_steps=31)}, r"less than one iteration"),
        ({"config": dataclasses.replace(CONFIG, policy="gaussian")}, r"policy='gaussian' cannot"),
        ({"config": dataclasses.replace(CONFIG, env="tiny:Wolk")}, r"'Wolk'.*Nearest: Walk"),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(programs, "make_chunk", lambda *_: pytest.fail("compiled"))
    with pytest.raises(InputError, match=sentence):
        tiny_run(tmp_path / "a", **changes)
    assert not (tmp_path / "a").exists()


def test_a_logging_service_without_its_package_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"is not installed: install it with pip install"):
        tiny_run(tmp_path / "a", tensorboard=True)
    assert not (tmp_path / "a").exists()


def test_a_logging_service_that_does_not_start_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no quota")

    monkeypatch.setattr(loggers, "TensorBoardLog", broken)
    monkeypatch.setattr(loggers, "find_spec", lambda package: package)
    result = tiny_run(tmp_path / "a", tensorboard=True, quiet=False, source="flag")
    told = capsys.readouterr().err
    sentence = "logging to tensorboard stopped, the run goes on: RuntimeError: no quota"
    assert told.count(sentence) == 1
    assert result.exit_code == 0
    # What is about to happen is told first, the budget as it will be trained.
    assert told.splitlines()[:2] == [
        "settings: flag",
        "tiny:Walk: 224 environment steps a seed (7 iterations of 4 environments x 8 steps), "
        "3 seeds",
    ]
    assert "devices: 2 cpu" in told.splitlines()


# --- checkpoints ----------------------------------------------------------------------------------


def test_checkpoints_come_by_the_clock_and_at_the_best_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
    often = tiny_run(tmp_path / "a", checkpoint_minutes=1e-9, keep=100)
    names = sorted(path.name for path in (often.folder / "checkpoints").iterdir())
    assert names == [f"step_{BATCH * i:012d}" for i in range(8)]
    evaluated = tiny_run(tmp_path / "b", eval_every=2 * BATCH, checkpoint_minutes=0.0, keep=1)
    rows = read_jsonl(evaluated.folder / "metrics.jsonl")
    scores = {
        row["env_steps"]: stats.iqm(row["eval_return"]) for row in rows if "eval_return" in row
    }
    # The last evaluation with the highest score: that of an equal one takes its place.
    wanted = max(scores, key=lambda step: (scores[step], step))
    kept = sorted((evaluated.folder / "checkpoints").iterdir())
    assert checkpoint_list.best(evaluated.folder) == checkpoint.checkpoint_folder(
        evaluated.folder, wanted
    )
    assert len(kept) == 2
    assert kept[-1].name == f"step_{STEPS:012d}"


def test_the_walks_observation_is_what_the_contract_says() -> None:
    # The oracle above stands on it: one start, and a transition without chance.
    environment = registration.make("tiny:Walk")
    starts = jax.vmap(environment.reset, (0, None))(
        jax.random.split(jax.random.key(1), 3), environment.default_params
    )[0]
    np.testing.assert_allclose(starts, jnp.tile(jnp.array([START, 0.0]), (3, 1)))
