"""The adapter against gymnax itself, against Gymnasium's physics, and by hand."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.diagnose.random_play import random_action
from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration as envs
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suites.gymnax import names as gymnax_names

gymnax = gymnax_names.import_gymnax()

NAMES = [name for name in gymnax_names.GYMNAX_NAMES if name not in gymnax_names.NEEDS_DOWNLOAD]
SLOW = {name for name in NAMES if name.endswith("MinAtar")}  # 4 to 18 s of compilation each


def avals(tree):
    return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]


# ------------------------------------------------------------------ every gymnax environment


def test_the_written_out_names_are_those_that_gymnax_registers():
    assert (
        tuple(gymnax.registered_envs[: len(gymnax_names.GYMNAX_NAMES)]) == gymnax_names.GYMNAX_NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_reset_and_transition_return_the_same_declared_strong_types(name):
    environment = envs.make(name)
    params, key = environment.default_params, jax.random.key(0)
    action = random_action(environment.action_space, key)
    first = jax.eval_shape(environment.reset, key, params)
    step = jax.eval_shape(environment.transition, key, first[1], action, params)
    assert avals(step[:2]) == avals(first)
    assert not any(weak for _, _, weak in avals(step[:5]))
    assert first[0].shape == environment.observation_shape
    assert first[0].dtype.name == environment.observation_dtype
    assert avals(step[2:5]) == [
        ((), jnp.float32, False),
        ((), jnp.bool_, False),
        ((), jnp.bool_, False),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_may_lie_on_a_vmap_axis(name):
    environment = envs.make(name)
    key = jax.random.key(0)
    stacked = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 3), environment.default_params)

    def one(params):
        _, state = environment.reset(key, params)
        action = random_action(environment.action_space, key)
        return environment.transition(key, state, action, params)[0]

    assert jax.eval_shape(jax.vmap(one), stacked).shape == (3, *environment.observation_shape)


def encoded(name, raw):
    """The stored observation, written out independently of the adapter."""
    if name == "FrozenLake-misc":
        return np.eye(16, dtype=np.float32)[int(raw)]
    return np.asarray(raw, np.float32)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])
def test_a_compiled_batch_moves_as_gymnax_itself_does(name):
    """50 random steps of 2 environments; gymnax's own functions, uncast, on the same keys."""
    environment = envs.make(name)
    env, params = gymnax.make(name)

    def both(key):
        """One program for both, since compiling is what takes the time here."""
        key_reset, key_steps = jax.random.split(key)
        first, state = environment.reset(key_reset, environment.default_params)
        raw_first, raw_state = env.reset_env(key_reset, params)
        raw_state = jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), raw_state)

        def step(carry, key):
            state, raw_state = carry
            action = random_action(environment.action_space, key)
            observation, state, *rest, _ = environment.transition(
                key, state, action, environment.default_params
            )
            raw, after, reward, terminated, _ = env.step_env(key, raw_state, action, params)
            flags = (terminated, env.is_truncated(after, params))
            after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, raw_state)
            return (state, after), ((observation, *rest), (raw, reward, *flags))

        keys = jax.random.split(key_steps, 50)
        return first, raw_first, *jax.lax.scan(step, (state, raw_state), keys)[1]

    with jax.numpy_rank_promotion("allow"):
        program = jax.jit(jax.vmap(both))
        first, raw_first, ours, raw = program(jax.random.split(jax.random.key(1), 2))
    observation, reward, terminated, truncated = ours
    for b in range(2):
        np.testing.assert_allclose(
            np.asarray(first[b], np.float32), encoded(name, raw_first[b]), atol=1e-5
        )
        for t in range(50):
            np.testing.assert_allclose(
                np.asarray(observation[b, t], np.float32),
                encoded(name, raw[0][b, t]),
                rtol=1e-4,
                atol=1e-4,
            )
    np.testing.assert_allclose(reward, np.asarray(raw[1], np.float32), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(terminated, raw[2])
    np.testing.assert_array_equal(truncated, np.asarray(raw[3]) & ~np.asarray(raw[2]))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_minatar_observations_are_zeros_and_ones_so_that_bool_loses_nothing(name):
    """Uncompiled steps, each from the adapter's state, also through gymnax's own functions."""
    environment = envs.make(name)
    env, params = gymnax.make(name)
    assert environment.observation_dtype == "bool"
    key = jax.random.key(2)
    observation, state = environment.reset(key, environment.default_params)
    for t in range(3):
        key_t = jax.random.fold_in(key, t)
        action = random_action(environment.action_space, key_t)
        raw = env.step_env(key_t, state, action, params)
        assert set(np.unique(raw[0])) <= {0.0, 1.0}
        observation, state, reward, terminated, _, _ = environment.transition(
            key_t, state, action, environment.default_params
        )
        np.testing.assert_array_equal(np.asarray(observation, np.float32), raw[0])
        assert float(reward) == float(raw[2])
        assert bool(terminated) == bool(raw[3])


# ------------------------------------------------------------------ physics


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_physics_are_gymnasiums(name):
    """200 steps from the same start under the same actions.

    CartPole's pole falls long before; both go on integrating the same equations, whose solution
    leaves the comparison's tolerance only through float32 rounding of fast rotations, so each
    step of CartPole starts again from Gymnasium's state.
    """
    environment = envs.make(name)
    params = environment.default_params
    reference = gymnasium.make(name).unwrapped
    observation, _ = reference.reset(seed=0)
    _, state = environment.reset(jax.random.key(0), params)
    transition = jax.jit(environment.transition)
    actions = np.random.default_rng(0)
    state = _set(name, state, reference.state)
    for _ in range(200):
        if name == "CartPole-v1":
            action = int(actions.integers(2))
            state = _set(name, state, reference.state)
        else:
            action = actions.uniform(-2, 2, 1).astype(np.float32)
        expected, reward_expected, terminated_expected, *_ = reference.step(action)
        observation, state, reward, terminated, _, _ = transition(
            jax.random.key(0), state, action, params
        )
        np.testing.assert_allclose(observation, expected, rtol=1e-4, atol=1e-4)
        assert bool(terminated) == terminated_expected
        if terminated_expected:
            reference.reset()
            continue
        assert float(reward) == pytest.approx(float(reward_expected), abs=1e-3)


def _set(name, state, values):
    values = [jnp.float32(value) for value in values]
    if name == "CartPole-v1":
        return state.replace(x=values[0], x_dot=values[1], theta=values[2], theta_dot=values[3])
    return state.replace(theta=values[0], theta_dot=values[1])


def test_cartpole_is_truncated_at_its_limit_and_terminated_when_the_pole_falls():
    environment = envs.make("CartPole-v1")
    params = environment.override(environment.default_params, {"max_steps_in_episode": 7})
    assert params.max_steps_in_episode.dtype == np.int32
    transition = jax.jit(environment.transition)

    def flags(actions):
        _, state = environment.reset(jax.random.key(0), params)
        seen = []
        for action in actions:
            _, state, _, terminated, truncated, _ = transition(
                jax.random.key(0), state, action, params
            )
            seen.append((bool(terminated), bool(truncated)))
        return seen

    balanced = flags([0, 1, 0, 1, 0, 1, 0])
    assert balanced == [(False, False)] * 6 + [(False, True)]
    _, state = environment.reset(jax.random.key(0), params)
    fallen = state.replace(theta=jnp.float32(0.3), time=jnp.int32(6))
    step = transition(jax.random.key(0), fallen, 0, params)
    assert (bool(step[3]), bool(step[4])) == (True, False)  # both at once: termination wins


def test_the_declared_time_limit_is_that_of_the_default_parameters():
    for name, steps in (("CartPole-v1", 500), ("BernoulliBandit-misc", 100)):  # declared 100.0
        environment = envs.make(name)
        assert time_limit(environment, environment.default_params) == steps


# ------------------------------------------------------------------ parameters


def test_overridden_values_keep_dtype_and_may_be_traced():
    environment = envs.make("Pendulum-v1")
    params = environment.override(environment.default_params, {"g": 5, "max_speed": 2.0})
    assert params.g == 5.0
    assert params.g.dtype == np.float32
    assert avals(jax.eval_shape(lambda p: p, params)) == avals(
        jax.eval_shape(lambda p: p, environment.default_params)
    )

    def fall(g):
        params = environment.override(environment.default_params, {"g": g})
        _, state = environment.reset(jax.random.key(0), params)
        state = state.replace(theta=jnp.float32(np.pi / 2), theta_dot=jnp.float32(0))
        return environment.transition(jax.random.key(0), state, jnp.zeros(1), params)[0][2]

    # theta'' = 3 g / (2 l) sin(theta), one step of dt = 0.05 from rest
    np.testing.assert_allclose(jax.vmap(fall)(jnp.array([2.0, 10.0])), [0.15, 0.75], rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"gravty": 1.0}, "Nearest: gravity"),
        ({"max_steps_in_episode": 20.5}, "whole number"),
        ({"max_steps_in_episode": 0}, "an episode needs at least 1"),
        ({"gravity": "heavy"}, "must be a number"),
        ({"gravity": float("nan")}, "must be a number"),
        ({"gravity": [1.0, 2.0]}, "shape"),
    ],
)
def test_wrong_parameters_are_refused_with_a_sentence(values, sentence):
    environment = envs.make("CartPole-v1")
    with pytest.raises(InputError, match=sentence):
        environment.override(environment.default_params, values)


# ------------------------------------------------------------------ the registry


def test_a_download_that_fails_is_told_as_a_sentence(monkeypatch):
    def offline():
        raise OSError("no route to host")

    registration = sys.modules["gymnax.registration"]
    monkeypatch.setitem(registration._registry, "MNISTBandit-bsuite", offline)
    with pytest.raises(InputError, match="downloads its data"):
        envs.make("MNISTBandit-bsuite")


def test_the_list_names_every_environment_with_its_spaces():
    rows = {row.name: row for row in envs.available()}
    assert set(gymnax_names.GYMNAX_NAMES) <= set(rows)
    assert rows["CartPole-v1"][1:4] == ("classic control", "discrete 2", (4,))
    assert rows["FrozenLake-misc"].observation_shape == (16,)
    assert rows["PointRobot-misc"].action_space == "box 2 in [-0.1, 0.1]"
    assert "download" in rows["MNISTBandit-bsuite"].note
    assert rows["probe:time-limit"].suite == "probe"


def test_gymnax_is_imported_without_its_plotting_and_can_still_plot_afterwards():
    program = (
        "import sys\n"
        "from ppo_jax.envs import registration\n"
        "from ppo_jax.envs.suites.gymnax import names as gymnax_names\n"
        "registration.check_name('CartPole-v1')\n"
        "assert 'jax' not in sys.modules and 'gymnax' not in sys.modules\n"
        "gymnax_names.import_gymnax()\n"
        "assert 'seaborn' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        "from gymnax.environments.bsuite import catch\n"
        "assert catch.plt.subplots.__module__ == 'matplotlib.pyplot'\n"
        "import matplotlib.pyplot\n"
        "assert hasattr(matplotlib.pyplot, '__file__')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
