"""Iterations and evaluations of environments that are stepped outside jax."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Walk

from ppo_jax.config.config import Hyper
from ppo_jax.distributed import hosted, programs
from ppo_jax.distributed.layout import choose_layout
from ppo_jax.envs import registration
from ppo_jax.envs.interface import Host, HostStep
from ppo_jax.envs.suites import gymnasium_lanes
from ppo_jax.models.agent import assemble
from ppo_jax.training import hosted as training
from ppo_jax.training import trainer

gymnasium = pytest.importorskip("gymnasium", reason="pip install -e '.[gymnasium]'")
from gymnasium_tasks import LIMIT, SMALL, sentence  # noqa: E402  (registers its environments)


@pytest.fixture(scope="module")
def clock() -> tuple[Any, ...]:
    """An iteration's steps of the clock, and its programs."""
    return taken(dataclasses.replace(SMALL, env="gymnasium/Clock-v0"))[:-1]


def taken(config: Any) -> tuple[Any, ...]:
    """An iteration's steps, its programs, and the place of the environments after it."""
    hyper, state = Hyper(), trainer.init(config, Hyper(), jax.random.key(1))
    shapes = jax.eval_shape(lambda: state)
    parts = hosted.Programs(
        *(each.compile() for each in hosted.lower_iteration(config, hyper, shapes))
    )
    vector, seen = hosted.start(config, hyper, state)
    steps, hand, seen = hosted.take(config, parts, (vector, seen), hyper, state)
    return config, hyper, state, parts, steps, hand, (vector, seen)


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
    state = state._replace(discounted_return=jnp.full_like(state.discounted_return, 3.0))
    broken = steps._replace(reward=np.full_like(steps.reward, np.nan))
    after, metrics = parts.absorb(hyper, state, broken, hand)
    assert metrics["refused_fraction"] == 1
    assert after.discounted_return.tolist() == [0.0, 0.0]  # of steps that the state has not seen
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    assert after.carry.episode_length.tolist() == [8 - LIMIT] * 2


def test_one_bad_observation_does_not_outlive_its_rollout():
    """The environments go on from where they are, so a memory would keep it."""
    memory = {"memory": "gru", "memory_size": 8, "num_minibatches": 1}
    config = dataclasses.replace(SMALL, env="gymnasium/Clock-v0", **memory)
    config, hyper, state, parts, steps, hand, place = taken(config)
    age, reward = np.array(steps.observation["age"]), np.array(steps.reward)
    age[-2, 0], reward[-1, 0] = np.nan, np.nan
    broken = steps._replace(observation={**steps.observation, "age": age}, reward=reward)
    poisoned = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), hand.memory["actor"])
    hand = hand._replace(memory={**hand.memory, "actor": poisoned})
    state, metrics = parts.absorb(hyper, state, broken, hand)
    assert metrics["refused_fraction"] == 1
    start = assemble(config).network.start(state.params, 2)
    for name, kept in state.carry.memory.items():
        np.testing.assert_array_equal(kept[0], start[name][0])
        assert np.isfinite(kept[1]).all()
        assert np.any(kept[1] != start[name][1])
    assert state.carry.episode_return.tolist() == [7 - LIMIT, 8 - LIMIT]
    steps, hand, _ = hosted.take(config, parts, place, hyper, state)
    state, metrics = parts.absorb(hyper, state, steps, hand)
    assert metrics["refused_fraction"] == 0
    assert metrics["episode_return_sum"] == 4 * LIMIT - 1  # the unknown reward counts as 0


def test_a_mask_of_the_environment_forbids_in_every_step():
    config = dataclasses.replace(SMALL, env="gymnasium/Masked-v0")
    state = trainer.init(config, Hyper(), jax.random.key(1))
    shapes = jax.eval_shape(lambda: state)
    lowered = hosted.lower_iteration(config, Hyper(), shapes)
    parts = hosted.Programs(*(each.compile() for each in lowered))
    place = hosted.start(config, Hyper(), state)
    steps, _, _ = hosted.take(config, parts, place, Hyper(), state)  # it refuses a forbidden one
    assert set(np.unique(steps.action)) == {0, 2}
    layout = choose_layout(config, 1)
    many = jax.tree.map(lambda leaf: leaf[None], state)
    play = programs.make_evaluation(config, layout, 2, 20, False)
    assert play(Hyper(), many, np.uint32(0)).finished.all()


def test_a_start_without_a_legal_action_is_a_sentence():
    config = dataclasses.replace(SMALL, env="gymnasium/Masked-v0")
    state = trainer.init(config, Hyper(), jax.random.key(1))
    given = Hyper(env={"num_legal": 0})
    assert "in which no action is legal" in sentence(lambda: hosted.start(config, given, state))


def test_an_evaluation_does_not_begin_where_training_began(monkeypatch):
    """Else a policy would be evaluated on the levels that it was trained on."""
    config = dataclasses.replace(SMALL, env="gymnasium/Clock-v0")
    state, seeds = trainer.init(config, Hyper(), jax.random.key(1)), []
    reset = gymnasium_lanes.Lanes.reset

    def recorded(lanes: Any, seed: int) -> Any:
        seeds.append(seed)
        return reset(lanes, seed)

    monkeypatch.setattr(gymnasium_lanes.Lanes, "reset", recorded)
    vector, _ = hosted.start(config, Hyper(), state)
    acting = jax.jit(partial(training.answer, config, True))
    next(hosted.plays(config, acting, vector, state, int(state.iteration)))
    assert len(set(seeds)) == len(seeds) == 2


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
    key = jax.random.fold_in(jax.random.fold_in(state.key, hosted.EVALUATION_STARTS), 7)
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


def test_an_environment_that_fails_is_a_sentence():
    config = dataclasses.replace(SMALL, env="gymnasium/Clock-v0")
    vector = hosted.make_vector(config, Hyper(), 1)
    vector.reset(0)
    wrong = (np.array([[9, 9]]), np.zeros((1, 2), np.float32), np.array([2]))
    words = sentence(lambda: hosted.stepped(config, vector, wrong))
    assert words.startswith("gymnasium/Clock-v0 failed in a step (ValueError: ")


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
