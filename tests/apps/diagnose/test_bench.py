"""A timing: its arithmetic on a clock of our own, its programs, its refusals."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny import CONFIG, HYPER

from ppo_jax.apps.diagnose import bench, timing
from ppo_jax.apps.diagnose.timing import KEPT, Program
from ppo_jax.cli import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions


class Clock:
    """Time that passes only when a program runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    process_time = perf_counter


class Fake:
    """A program whose call of n iterations takes `fixed` + n x `each` seconds."""

    def __init__(self, clock: Clock, fixed: float, each: float) -> None:
        self.clock, self.fixed, self.each = clock, fixed, each

    def call(self, n: int) -> None:
        self.clock.now += self.fixed + n * self.each


@pytest.fixture(scope="module")
def program() -> Program:
    """The tiny run of 3 seeds, compiled and started."""
    return timing.prepare(CONFIG, HYPER, 3)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return bench.report(CONFIG, HYPER, RunOptions(seeds=3), seconds=1.0)


def test_phases_are_the_differences_of_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    whole = Fake(clock, fixed=0.002, each=0.010)
    phases: dict[str, Any] = {
        "rollout": Fake(clock, 0.002, 0.003).call,
        "advantages": Fake(clock, 0.002, 0.004).call,
    }
    told, seconds = timing.time_phases(whole, phases, 1.0)
    n = told.iterations
    assert n == int(timing.CALL_SECONDS / 0.012)
    assert told.iteration_seconds == pytest.approx(0.010 + 0.002 / n)
    assert seconds == pytest.approx(
        {"rollout": 0.003, "advantages": 0.001, "update": 0.006, "host": 0.002 / n}
    )
    assert sum(seconds.values()) == pytest.approx(told.iteration_seconds)


def test_slow_program_is_called_twice_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    told = timing.time_alone(Fake(clock, 0.0, 60.0), 1.0)
    assert (told.iterations, told.rounds) == (1, 1)
    assert clock.now == 120.0  # one iteration to warm up, one that is timed


def test_each_phase_does_more_than_the_one_before(program: Program) -> None:
    flops = [timing.compile_phase(program, keep).cost_analysis()["flops"] for keep in KEPT.values()]
    whole = program.chunk.cost_analysis()["flops"]  # type: ignore[attr-defined]
    assert 0 < flops[0] < flops[1] < whole


def test_phase_leaves_the_state_as_it_is(program: Program) -> None:
    before = jax.tree.map(jnp.copy, program.state[0].params)
    timing.make_phase(program, KEPT["advantages"])(2)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, program.state[0].params)
    assert all(jax.tree.leaves(same))


def test_call_trains_as_many_iterations_as_it_is_asked_for(program: Program) -> None:
    before = program.state[0].iteration.copy()
    program.call(3)
    assert (program.state[0].iteration - before).tolist() == [3] * program.layout.num_members
    program.call(0)
    assert (program.state[0].iteration - before).tolist() == [3] * program.layout.num_members


def test_speed_is_the_steps_of_all_seeds_over_the_time_of_an_iteration(found: dict) -> None:
    steps = CONFIG.num_envs * CONFIG.rollout_length * 3
    assert found["env_steps_per_second"] * found["iteration_seconds"] == pytest.approx(steps)
    low, high = found["env_steps_per_second_range"]
    assert low <= found["env_steps_per_second"] <= high


def test_report_is_json_and_its_text_has_the_numbers(found: dict) -> None:
    json.dumps(found, allow_nan=False)
    told = "\n".join(found["text"])
    assert f"{found['env_steps_per_second']:,.0f} env steps/s" in told
    for phase in ("rollout", "advantages", "update", "host"):
        assert f"{phase} " in told
        assert found["phase_seconds"][phase] >= 0.0
    assert found["program_bytes"] > 0
    assert found["compile_seconds"] > found["trace_seconds"] > 0.0


def test_compile_cache_is_used_again_after_a_timing(found: dict) -> None:
    assert jax.config.values["jax_enable_compilation_cache"]
    with bench.no_compile_cache():
        assert not jax.config.values["jax_enable_compilation_cache"]
    assert jax.config.values["jax_enable_compilation_cache"]


def test_a_budget_of_less_than_an_iteration_is_no_hindrance() -> None:
    config = bench.with_one_iteration(Config(num_envs=4096, total_env_steps=100))
    assert config.total_env_steps == 4096 * 128


def test_sizes_that_do_not_end_in_time_are_named(program: Program) -> None:
    told = timing.Timing(1, 1, 1.0, 1.0, (1.0, 1.0), 0.0)
    rows = bench.try_sizes(program, told, HYPER, 0, None, deadline=0.0, tell=lambda line: None)
    assert [(row["num_envs"], row["num_seeds"]) for row in rows] == [
        (4 * a, 3 * b) for a, b in bench.FACTORS
    ]
    assert all("--seconds" in row["note"] for row in rows)
    assert all(row["env_steps_per_second"] is None for row in rows)


def test_size_that_does_not_fit_is_not_run(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "memory_limit", lambda: 1)
    with pytest.raises(InputError, match="lower num_envs, rollout_length or seeds"):
        bench.refuse_too_large(program)
    monkeypatch.setattr(bench, "memory_limit", lambda: program.program_bytes)
    bench.refuse_too_large(program)


def test_smallest_size_near_the_best_is_suggested() -> None:
    speeds = {(8, 1): 100.0, (32, 1): 300.0, (128, 1): 320.0, (8, 4): 95.0, (8, 16): None}
    rows = [
        {"num_envs": envs, "num_seeds": seeds, "env_steps_per_second": speed}
        for (envs, seeds), speed in speeds.items()
    ]
    envs, seeds = bench.suggestions(rows)
    assert envs.startswith("--num-envs 32: 3.0 times")  # 300 is 94% of 320
    assert seeds.startswith("--seeds 1: more would not be faster")


@pytest.mark.parametrize(
    "command, words",
    [
        ("bench CartPol-v1", "Nearest: CartPole-v1"),
        ("bench --seconds 0", "must be a number of more than 0"),
        ("bench --seconds 1:2", "must be one number"),
        ("bench --seconds nan", "must be a number of more than 0"),
        ("bench --num-envs -3", "num_envs=-3 must be a whole number"),
        ("bench --seeds 0", "seeds=0 must be a whole number"),
        ("bench --num-minibatches 7", "nearest number that does is 8"),
        ("bench --eval-episodes 3", "--eval-episodes is no option"),
        ("bench CartPole-v1 x", "one word too many"),
        ("bench --env.gravi 3", "'gravi' is no parameter"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    command: str, words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main.main(command.split()) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert "Traceback" not in told.err


def test_unchecked_setting_is_refused_from_python_too() -> None:
    with pytest.raises(InputError, match="num_envs=0"):
        bench.report(Config(num_envs=0), Hyper())
    with pytest.raises(InputError, match="seconds=-1"):
        bench.report(CONFIG, HYPER, seconds=-1.0)
