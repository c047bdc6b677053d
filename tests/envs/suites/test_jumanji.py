"""The adapter of jumanji beside its own functions."""

from __future__ import annotations

from pathlib import Path

import beside
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.diagnose import contract
from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import Discrete, MultiDiscrete, time_limit
from ppo_jax.envs.suite_table import SUITES

jumanji = pytest.importorskip("jumanji", reason="pip install -e '.[jumanji]'")
NAME = "jumanji/Game2048-v1"


@pytest.fixture(scope="module")
def environment():
    return registration.make(NAME)


def test_the_table_has_the_ids_that_the_suite_registers():
    assert set(SUITES["jumanji"].ids) == jumanji.registered_environments()


def test_random_play_is_the_suites_own_and_stays_within_the_mask(environment):
    env = jumanji.make("Game2048-v1")

    def shown(timestep):
        return timestep.observation._asdict()

    def reset(key):
        state, timestep = env.reset(key)
        return shown(timestep), state

    def step(key, state, action):
        state, timestep = env.step(state, action)
        ended, over = timestep.last(), timestep.discount == 0
        return shown(timestep), state, timestep.reward, ended & over, ended & ~over

    actions, ours, own = beside.play(environment, reset, step)
    beside.require_equal(ours, own)
    assert own.terminated.any()
    # An illegal move leaves the board as it is. The mask before each step allowed its action.
    mask = ours.observation["action_mask"]
    going_on = ~ours.terminated[:, :-1]
    legal = np.take_along_axis(mask[:, 1:-1], actions[:, 1:, None], -1)[..., 0]
    assert legal[going_on].all()
    assert not mask.all()


def test_types_are_steady_and_a_limit_is_declared(environment):
    beside.require_steady_types(environment)
    beside.require_fresh_keys(environment)
    assert environment.observation_dtype == {"board": "int32", "action_mask": "bool"}
    assert leaves.categories(environment) == {"board": (0, 18)}  # tiles up to 2^17
    cube = registration.make("jumanji/RubiksCube-v0")
    assert leaves.categories(cube) == {"cube": (0, 6)}  # six colours; its steps are a number
    assert cube.observation_dtype == {"cube": "int32", "step_count": "float32"}
    assert time_limit(environment, environment.default_params) is None
    snake = registration.make("jumanji/Snake-v1")
    assert time_limit(snake, snake.default_params) == 4000
    with pytest.raises(InputError, match=r"jumanji.make\('Snake-v1', time_limit=9\)"):
        snake.override(snake.default_params, {"time_limit": 9})


def test_the_limit_is_exact_and_ends_as_the_suite_says_with_its_true_last_observation():
    from ppo_jax.envs.suites import jumanji as adapter

    # Snake has a discount of 0 at its limit: termination. Connector has 1: truncation.
    for name, settings, ends in (
        ("Snake-v1", {}, (True, False)),
        ("Connector-v3", {"rewards": "sum"}, (False, True)),
    ):
        environment = adapter.make(name, time_limit=3, **settings)
        params, key = environment.default_params, jax.random.key(1)
        assert time_limit(environment, params) == 3
        step = jax.jit(environment.transition)
        seen, state = jax.jit(environment.reset)(key, params)
        for time in range(1, 4):
            mask = np.asarray(seen["action_mask"]).reshape(-1, 4 if name == "Snake-v1" else 5)
            action = jnp.squeeze(jnp.asarray(mask.argmax(axis=1)))  # the first legal one of each
            seen, state, _, *flags, _ = step(key, state, action, params)
            assert int(seen["step_count"]) == time  # no reset: a fresh episode shows 0
            assert tuple(map(bool, flags)) == (ends if time == 3 else (False, False))


def test_without_its_mask_every_action_is_allowed(environment):
    params = environment.override(environment.default_params, {"masked": 0})
    keys = jax.random.split(jax.random.key(0), 16)
    masks = jax.vmap(environment.reset, (0, None))(keys, environment.default_params)[0]
    key = keys[jnp.argmin(masks["action_mask"].all(axis=1))]  # its first tile is at a wall
    seen, state = environment.reset(key, params)
    own, _ = environment.reset(key, environment.default_params)
    assert seen["action_mask"].all()
    assert not own["action_mask"].all()
    np.testing.assert_array_equal(seen["board"], own["board"])
    illegal = jnp.argmin(own["action_mask"])
    after = environment.transition(jax.random.key(0), state, illegal, params)[0]
    np.testing.assert_array_equal(after["board"], seen["board"])
    assert after["action_mask"].all()


def test_a_joint_mask_becomes_one_discrete_action_in_the_suites_order():
    environment, env = registration.make("jumanji/Tetris-v0"), jumanji.make("Tetris-v0")
    assert environment.action_space == Discrete(40)
    params = environment.default_params
    observation, state = environment.reset(jax.random.key(3), params)
    own_state, timestep = env.reset(jax.random.key(3))
    np.testing.assert_array_equal(
        observation["action_mask"].reshape(4, 10), timestep.observation.action_mask
    )
    action = 2 * 10 + 7
    assert observation["action_mask"][action]
    seen = environment.transition(jax.random.key(0), state, jnp.int32(action), params)[0]
    _, timestep = env.step(own_state, jnp.array([2, 7]))
    np.testing.assert_array_equal(seen["grid"], timestep.observation.grid)
    assert np.asarray(seen["grid"])[:, 7:].any()


def test_masks_of_each_dial_stay_apart():
    environment = registration.make("jumanji/MultiCVRP-v0")
    assert environment.action_space == MultiDiscrete((21, 21))
    assert environment.observation["action_mask"].shape == (42,)


@pytest.mark.parametrize(
    "name, words",
    [
        ("Connector-v3", "has 10 agents with a reward each"),
        ("Sokoban-v0", "downloads its levels when it is made"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_sentence(name, words, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asked the network"))
    with pytest.raises(InputError, match=words):
        registration.make(f"jumanji/{name}")


def test_rewards_of_several_agents_are_summed_if_asked():
    from ppo_jax.envs.suites import jumanji as adapter

    environment, env = adapter.make("Connector-v3", rewards="sum"), jumanji.make("Connector-v3")
    beside.require_steady_types(environment)
    assert environment.action_space == MultiDiscrete((5,) * 10)
    params = environment.default_params
    _, state = environment.reset(jax.random.key(0), params)
    own_state, timestep = env.reset(jax.random.key(0))
    action = jnp.argmax(timestep.observation.action_mask[:, 1:], axis=1) + 1
    reward = jax.jit(environment.transition)(jax.random.key(0), state, action, params)[2]
    assert timestep.reward.shape == (10,)
    _, timestep = jax.jit(env.step)(own_state, action)
    assert reward == pytest.approx(float(timestep.reward.sum()))
    assert reward != 0


def test_what_a_factory_sets_is_refused_with_its_call(environment):
    from ppo_jax.envs.suites import jumanji as adapter

    for name, value in {"board_size": 3, "rewards": "sum"}.items():
        with pytest.raises(InputError, match=rf"make\('Game2048-v1', {name}={value!r}\)"):
            environment.override(environment.default_params, {name: value})
        adapter.make("Game2048-v1", **{name: value})
    with pytest.raises(InputError, match=r"'time_limit' is no parameter.* it has masked.$"):
        environment.override(environment.default_params, {"time_limit": 50})
    snake = adapter.make("Snake-v1", num_rows=6)
    assert snake.observation["grid"].shape == (6, 12, 5)
    with pytest.raises(InputError, match=r"make\('Snake-v1', time_limit=50\)"):
        snake.override(snake.default_params, {"time_limit": 50})


@pytest.mark.parametrize("name", ["Game2048-v1", "Snake-v1"])
def test_a_state_is_drawn(name):
    environment = registration.make(f"jumanji/{name}")
    params = environment.default_params
    _, state = environment.reset(jax.random.key(0), params)
    picture = environment.render(state, params)
    assert (picture.dtype, picture.shape) == (np.uint8, (400, 400, 3))
    assert picture.std() > 10


def test_the_check_takes_a_trapped_snake_for_an_end(environment):
    findings = contract.check(registration.make("jumanji/Snake-v1"), jax.random.key(0))
    assert [finding.what for finding in findings if finding.severity == "error"] == []


@pytest.mark.usefixtures("kept_programs")
def test_the_command_line_trains_it_within_the_mask(environment, tmp_path: Path, capsys):
    summary = beside.trained(NAME, tmp_path, capsys)
    assert summary["episodes_cut"] == 0  # a policy that repeats an illegal move never ends
    beside.require_stops_and_exports(environment, tmp_path)
