"""Environments of Gymnasium, stepped outside jax, beside Gymnasium's own functions."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Walk

from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.run import evaluate
from ppo_jax.cli import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import hosted, programs
from ppo_jax.distributed.layout import choose_layout
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Host, HostStep, time_limit
from ppo_jax.envs.suite_table import SUITES
from ppo_jax.models.agent import assemble
from ppo_jax.training import hosted as training
from ppo_jax.training import trainer

gymnasium = pytest.importorskip("gymnasium", reason="pip install -e '.[gymnasium]'")
import gymnasium_tasks  # noqa: E402  (registers its environments)

from ppo_jax.envs.suites import gymnasium as adapter  # noqa: E402
from ppo_jax.envs.suites import gymnasium_lanes  # noqa: E402
from ppo_jax.envs.suites.gymnasium_lanes import lanes  # noqa: E402

LIMIT = gymnasium_tasks.LIMIT
SMALL = Config(num_envs=2, rollout_length=8, num_epochs=1, num_minibatches=2, hidden_sizes=(8,))


def test_the_table_has_ids_that_gymnasium_registers():
    own = {name for name in gymnasium.registry if "/" not in name}
    suite = SUITES["gymnasium"]
    assert {*suite.ids, *suite.shared} <= own


def test_random_play_is_gymnasiums_own():
    spec, count = gymnasium.spec("CartPole-v1"), 3
    vector = lanes(partial(gymnasium_lanes.made, spec, {}), count, 0, None)
    own = [gymnasium.make(spec) for _ in range(count)]
    random, ends = np.random.default_rng(0), 0
    try:
        first = np.stack([env.reset(seed=9 + i)[0] for i, env in enumerate(own)])
        np.testing.assert_array_equal(vector.reset(9), first)
        for _ in range(200):
            action = random.integers(0, 2, count)
            found = vector.step(action)
            for i, env in enumerate(own):
                observation, reward, terminated, truncated, _ = env.step(action[i])
                np.testing.assert_array_equal(found.final[i], observation)
                assert (found.reward[i], found.terminated[i]) == (reward, terminated)
                assert found.truncated[i] == (truncated and not terminated)
                if terminated or truncated:
                    observation, ends = env.reset()[0], ends + 1
                np.testing.assert_array_equal(found.observation[i], observation)
    finally:
        vector.close()
    assert ends > 3


def test_workers_step_what_is_dearer_than_their_messages(monkeypatch):
    monkeypatch.setattr(gymnasium_lanes, "cores", lambda: 4)
    # 8 steps of 0.1 ms: four workers save 0.6 ms. 16 steps: 1.2 ms, more than the message's 1 ms.
    assert [gymnasium_lanes.workers_for(1e-4, count) for count in (1, 8, 16)] == [0, 0, 4]
    assert gymnasium_lanes.workers_for(1.0, 3) == 3
    monkeypatch.setattr(gymnasium_lanes, "cores", lambda: 1)
    assert gymnasium_lanes.workers_for(1.0, 8) == 0


def test_a_step_is_timed_without_its_resets():
    class Slow(gymnasium_tasks.Clock):
        def reset(self, **given: Any) -> tuple:
            time.sleep(0.003)
            return super().reset(**given)

        def step(self, action: Any) -> tuple:
            time.sleep(0.001)
            return super().step(action)

    # Its own limit ends an episode every 5 steps.
    env = gymnasium.wrappers.TimeLimit(Slow(), LIMIT)
    assert 0.001 < adapter._seconds_of_step(env) < 0.003
    assert adapter._seconds_of_step(gymnasium.Env()) == 0.0  # training reports its failure


@pytest.mark.slow
def test_the_choice_of_workers_changes_no_number(monkeypatch):
    environment = registration.make("gymnasium/CartPole-v1")
    played = []
    for count in (0, 2):
        monkeypatch.setattr(adapter, "workers_for", lambda *_, count=count: count)
        vector = environment.host.make(3, environment.default_params, False, 150)
        random = np.random.default_rng(0)
        try:
            first = vector.reset(9)
            played.append([first, *(vector.step(random.integers(0, 2, 3)) for _ in range(200))])
        finally:
            vector.close()
        assert isinstance(vector, gymnasium_lanes.Workers) == (count == 2)
    assert sum(step.terminated.sum() for step in played[0][1:]) > 3
    jax.tree.map(np.testing.assert_array_equal, *played)
    alone = gymnasium_lanes.Workers(
        partial(gymnasium_lanes.made, gymnasium.spec("Imports-v0"), {}), [1], None
    )
    alone.reset(0)
    assert alone.step(np.zeros(1, int)).reward == [0.0]  # a worker has not imported jax
    alone.close()
    kinds = [jax.tree.map(lambda leaf: leaf.dtype, steps) for steps in played]
    assert kinds[0] == kinds[1]


def test_spaces_of_every_kind_are_stored_and_sent_back():
    environment = registration.make("gymnasium/Clock-v0")
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), environment.observation)
    assert shapes == {"age": ((1,), "float32"), "phase": ((3,), "bool")}
    discrete, box = environment.action_space.parts
    assert discrete.ns == (2, 3, 4)
    assert (box.low.tolist(), box.high.tolist()) == ([-2, -2], [1, 3])
    assert environment.raw.action_form["parts"][2]["start"] == [-1]


def test_the_time_limit_is_a_parameter_and_exact():
    environment = registration.make("gymnasium/Clock-v0")
    params = environment.override(environment.default_params, {"max_episode_steps": 3})
    assert time_limit(environment, environment.default_params) == LIMIT
    assert time_limit(environment, params) == 3
    vector = environment.host.make(1, params, False, None)
    vector.reset(0)
    action = (np.array([[1, 2]]), np.zeros((1, 2), np.float32), np.array([2]))
    found = [vector.step(action) for _ in range(6)]
    assert [bool(each.truncated[0]) for each in found] == [False, False, True] * 2
    assert [each.final["age"].item() for each in found] == [1, 2, 3] * 2
    assert [each.observation["age"].item() for each in found] == [1, 2, 0] * 2


def test_an_episode_without_an_end_is_cut():
    environment = registration.make("gymnasium/Clock-v0")
    vector = environment.host.make(1, environment.default_params, False, 2)
    vector.reset(0)
    action = (np.array([[1, 2]]), np.zeros((1, 2), np.float32), np.array([2]))
    found = [vector.step(action) for _ in range(4)]
    assert [bool(each.cut[0]) for each in found] == [False, True] * 2
    assert not any(each.truncated[0] for each in found)


@pytest.fixture(scope="module")
def clock() -> tuple[Any, ...]:
    """An iteration's steps of the clock, and its programs."""
    config, hyper = dataclasses.replace(SMALL, env="gymnasium/Clock-v0"), Hyper()
    state = trainer.init(config, hyper, jax.random.key(1))
    shapes = jax.eval_shape(lambda: state)
    parts = hosted.Programs(
        *(each.compile() for each in hosted.lower_iteration(config, hyper, shapes))
    )
    place = hosted.start(config, hyper, state)
    steps, hand, _ = hosted.take(config, parts, place, hyper, state)
    return config, hyper, state, parts, steps, hand


def test_a_cut_episode_bootstraps_from_its_own_last_observation(clock):
    config, _, state, _, steps, hand = clock
    experience = training.experienced(config, state, jax.tree.map(jnp.asarray, steps), hand)
    ends = np.argwhere(np.asarray(steps.truncated))
    assert ends.tolist() == [[LIMIT - 1, 0], [LIMIT - 1, 1]]
    np.testing.assert_array_equal(steps.final["age"][LIMIT - 1, :, 0], LIMIT)
    np.testing.assert_array_equal(steps.observation["age"][LIMIT, :, 0], 0)
    network = assemble(config).network
    final = training.stored(
        assemble(config).environment, jax.tree.map(lambda leaf: leaf[LIMIT - 1], steps.final)
    )
    value = network.value_after(state.params, (), final)
    np.testing.assert_allclose(experience.rollout.value_next[LIMIT - 1], value, rtol=1e-6)
    sums = experience.episodes
    assert (sums.num_episodes, sums.return_sum, sums.length_sum) == (2, 2 * LIMIT, 2 * LIMIT)
    assert experience.carry.episode_length.tolist() == [8 - LIMIT] * 2


def test_a_refused_update_keeps_the_place_of_the_environments(clock):
    _, hyper, state, parts, steps, hand = clock
    broken = steps._replace(reward=np.full_like(steps.reward, np.nan))
    after, metrics = parts.absorb(hyper, state, broken, hand)
    assert metrics["refused_fraction"] == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert after.carry.episode_length.tolist() == [8 - LIMIT] * 2


class HostWalk:
    """The tiny walk of gymnax's API, stepped on the host by its own functions."""

    def __init__(self, environment: Any, count: int) -> None:
        self.environment, self.count = environment, count
        self.start = jax.jit(jax.vmap(environment.reset, (0, None)))
        self.move = jax.jit(jax.vmap(environment.transition, (0, 0, 0, None)))
        self.keys = jax.random.split(jax.random.key(0), count)

    def reset(self, seed: int) -> Any:
        observation, self.state = self.start(self.keys, self.environment.default_params)
        return np.asarray(observation)

    def step(self, action: Any) -> HostStep:
        params = self.environment.default_params
        final, state, reward, terminated, truncated, _ = jax.device_get(
            self.move(self.keys, self.state, action, params)
        )
        ended = terminated | truncated
        fresh, anew = jax.device_get(self.start(self.keys, params))

        def choose(new: Any, old: Any) -> Any:
            return np.where(ended.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        self.state = jax.tree.map(choose, anew, state)
        no = np.zeros(self.count, bool)
        return HostStep(choose(fresh, final), final, reward, terminated, truncated, no)

    def pictures(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def test_an_iteration_of_the_host_is_the_compiled_one():
    """The walk always starts at one place, so that both draw the same numbers."""
    pure = registration.make(Walk())
    host = Host(lambda count, *_: HostWalk(pure, count), lambda x: x, pure.observation, lambda: [])
    outside = pure._replace(
        host=host, reset=lambda *_: (jnp.zeros(2), ()), transition=lambda *_: 1 / 0
    )
    sizes = {"normalize_observations": True, "normalize_rewards": True}
    configs = [dataclasses.replace(SMALL, env=env, **sizes) for env in (pure, outside)]
    hyper, key = Hyper(learning_rate=0.01), jax.random.key(5)
    ours, theirs = (trainer.init(config, hyper, key) for config in configs)
    shapes = jax.eval_shape(lambda: theirs)
    lowered = hosted.lower_iteration(configs[1], hyper, shapes)
    parts = hosted.Programs(*(each.compile() for each in lowered))
    vector, seen = hosted.start(configs[1], hyper, theirs)
    advance = jax.jit(partial(trainer.iterate, configs[0]))
    for _ in range(2):
        ours, row = advance(hyper, ours)
        steps, hand, seen = hosted.take(configs[1], parts, (vector, seen), hyper, theirs)
        theirs, other = parts.absorb(hyper, theirs, steps, hand)
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, ours.params, theirs.params)
    jax.tree.map(close, ours.carry._replace(state=()), theirs.carry)


def test_an_evaluation_has_gymnasiums_own_returns_for_the_same_actions():
    config = dataclasses.replace(SMALL, env="gymnasium/CartPole-v1")
    state = trainer.init(config, Hyper(), jax.random.key(2))
    many = jax.tree.map(lambda leaf: leaf[None], state)
    layout = choose_layout(config, 1)
    play = programs.make_evaluation(config, layout, 3, 500, True)
    found = play(Hyper(), many, np.uint32(7))
    key = jax.random.fold_in(jax.random.fold_in(state.key, hosted.STARTS), 7)
    seed = int(jax.random.randint(key, (), 0, 2**30))
    act = jax.jit(lambda x: jnp.argmax(assemble(config).network.act(state.params, (), x)[1].logits))
    for i in range(3):
        env = gymnasium.make("CartPole-v1")
        observation, _ = env.reset(seed=seed + i)
        total, length, is_over = 0.0, 0, False
        while not is_over:
            observation, reward, terminated, truncated, _ = env.step(int(act(observation[None])))
            total, length, is_over = total + reward, length + 1, terminated or truncated
        assert (found.episode_return[0, i], found.length[0, i]) == (total, length)
    assert found.finished.all()


def sentence(action: Any) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    "name, words",
    [
        ("gymnasium/CartPol-v1", "Nearest: gymnasium/CartPole-v1"),
        ("gymnasium/HalfCheetah", "Nearest: gymnasium/HalfCheetah-v5,"),
        ("gymnasium/ALE/Nope-v5", "ale-py, and write gymnasium/ale_py:ALE/Nope-v5."),
        ("gymnasium/other/Nope-v5", "gymnasium/package.module:ID imports the module"),
        ("gymnasium/no_such_module:Walk-v0", "needs the module 'no_such_module'"),
        ("gymnasium/Words-v0", "has the space Text"),
        ("gymnasium:HalfCheetah-v5", "has a slash, gymnasium/HalfCheetah-v5"),
        ("HalfCheetah-v5", "write gymnasium/HalfCheetah-v5"),
    ],
)
def test_a_name_that_cannot_be_made_is_a_sentence(name, words):
    assert words in sentence(lambda: registration.make(name))


def test_an_absurd_id_has_no_nearest():
    words = sentence(lambda: registration.make("gymnasium/Nonsense-v0"))
    assert "is no id that Gymnasium knows" in words
    assert "Nearest" not in words


@pytest.mark.parametrize(
    "line, words",
    [
        ("import ale_py", "needs the module 'ale_py', which is not installed: pip install ale-py"),
        ("from math import leg", "an import failed (cannot import name 'leg' from 'math'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_sentence(line, words, tmp_path, monkeypatch):
    (tmp_path / "broken_tasks.py").write_text(line, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert words in sentence(lambda: registration.make("gymnasium/broken_tasks:Walk-v0"))


def test_an_environment_that_fails_is_a_sentence():
    config = dataclasses.replace(SMALL, env="gymnasium/Clock-v0")
    vector = hosted.make_vector(config, Hyper(), 1)
    vector.reset(0)
    wrong = (np.array([[9, 9]]), np.zeros((1, 2), np.float32), np.array([2]))
    words = sentence(lambda: hosted.stepped(config, vector, wrong))
    assert words.startswith("gymnasium/Clock-v0 failed in a step (ValueError: ")


def test_a_missing_mujoco_names_the_extra(monkeypatch):
    def fail(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("mujoco is not installed")

    monkeypatch.setattr(adapter.suite, "make", fail)
    words = sentence(lambda: adapter.make("HalfCheetah-v5"))
    assert "needs MuJoCo, which is missing: pip install -e '.[gymnasium]'" in words


def test_uses_of_pure_environments_are_refused():
    config = dataclasses.replace(SMALL, env="gymnasium/Clock-v0")
    state = jax.eval_shape(lambda: trainer.init(config, Hyper(), jax.random.key(0)))
    assert "stepped outside jax" in sentence(
        lambda: jax.eval_shape(partial(trainer.iterate, config), Hyper(), state)
    )
    for changes, words in (
        ({"previous_inputs": "action"}, "previous_inputs='action' cannot be added"),
        ({}, "cannot share one program"),
    ):
        other = dataclasses.replace(config, **changes)
        if changes:
            assert words in sentence(lambda other=other: assemble(other))
        else:
            chunk = programs.make_chunk(other, choose_layout(other, 1))
            lower = partial(chunk.lower, Hyper(), state, np.ones(2, np.int32))
            assert words in sentence(lower)


def test_a_parameter_takes_effect_or_is_refused():
    environment = registration.make("gymnasium/Clock-v0")
    params = environment.override(environment.default_params, {"reward": 2.5})
    vector = environment.host.make(1, params, False, None)
    vector.reset(0)
    action = (np.array([[1, 2]]), np.zeros((1, 2), np.float32), np.array([2]))
    assert vector.step(action).reward.tolist() == [2.5]
    words = sentence(lambda: environment.override(environment.default_params, {"is_wide": True}))
    assert "has the action space Discrete(2) under {'is_wide': True}" in words
    jit = jax.jit(lambda reward: environment.override(params, {"reward": reward}))
    assert jit(1.5)["reward"] == 1.5


def test_a_policy_of_gymnax_fits_its_twin_and_no_other():
    config = dataclasses.replace(SMALL, env="CartPole-v1")
    moved, hyper = evaluate.moved(config, Hyper(env={"gravity": 9.0}), "gymnasium/CartPole-v1")
    assert (moved.env, dict(hyper.env)) == ("gymnasium/CartPole-v1", {})
    words = sentence(lambda: evaluate.moved(config, Hyper(), "gymnasium/Pendulum-v1"))
    assert "observation float32[3]" in words
    assert "observation float32[4]" in words
    pendulum = dataclasses.replace(SMALL, env="Pendulum-v1")
    evaluate.moved(pendulum, Hyper(), "gymnasium/Pendulum-v1")
    cart = dataclasses.replace(SMALL, env="gymnasium/CartPole-v1")
    assert evaluate.moved(cart, Hyper(), "CartPole-v1")[0].env == "CartPole-v1"


@pytest.mark.slow
def test_a_run_is_trained_resumed_exported_and_moved(tmp_path: Path, capsys):
    name = "gymnasium/CartPole-v1"
    limit = ("--env.max_episode_steps", "9")
    summary = beside.trained(name, tmp_path, capsys, "--seeds", "2", *limit)
    assert max(summary["final_return"]["per_seed"]) <= 9
    assert len(summary["final_return"]["per_seed"]) == 2
    run = str(tmp_path / "run")
    more = ["resume", run, "--total-env-steps", "256"]
    assert main.main(more) == 0
    assert "start anew" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert rows[-1]["env_steps"] == 256
    for on in (name, "CartPole-v1"):
        assert main.main(["eval", run, "--on", on, "--episodes", "2", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["env"], found["trained_on"], found["episodes_cut"]) == (on, name, 0)
    assert main.main(["export", run, "--out", str(tmp_path / "policy")]) == 0
    assert load_policy(run)(np.zeros(4, np.float32)) in (0, 1)
    assert main.main(["doctor", name]) == 0
    for command in (["replay", run], ["sweep", name, "learning_rate=1e-3,1e-4"]):
        assert main.main(command) == 2
        assert "stepped outside jax" in capsys.readouterr().err


@pytest.mark.slow
def test_a_time_limit_leaves_the_value_that_has_no_end(tmp_path: Path):
    """Rewards of 1 at a discount of 0.5 are worth 2 at every age, if a cut is no end."""
    config = dataclasses.replace(
        SMALL, env="gymnasium/Clock-v0", num_epochs=4, total_env_steps=1600, num_envs=4
    )
    from ppo_jax.apps.run.runner import run

    hyper = Hyper(gamma=0.5, learning_rate=0.02)
    state = run(config, hyper, out=str(tmp_path / "run"), eval_episodes=1, quiet=True).state
    parts = assemble(config)
    ages = {"age": jnp.arange(LIMIT + 1.0)[:, None], "phase": jnp.arange(LIMIT + 1) % 3 + 1}
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    value = parts.network.value_after(params, (), training.stored(parts.environment, ages))
    np.testing.assert_allclose(value, 2.0, atol=0.15)


@pytest.mark.slow
def test_cartpole_is_learnt(tmp_path: Path):
    from ppo_jax.apps.run.runner import run

    sizes = {"num_envs": 8, "rollout_length": 128, "num_epochs": 10, "num_minibatches": 4}
    config = Config(env="gymnasium/CartPole-v1", total_env_steps=20_480, **sizes)
    hyper = Hyper(learning_rate=3e-4, entropy_coef=0.0, value_coef=1.0)
    found = run(config, hyper, out=str(tmp_path / "run"), eval_episodes=8, quiet=True).summary
    assert found["final_return"]["iqm"] > 200  # a random policy has 22
