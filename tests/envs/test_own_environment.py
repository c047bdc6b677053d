"""Users' environments: what is accepted, how it is cast to the contract, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.envs import registration
from ppo_jax.envs.interface import time_limit
from ppo_jax.envs.suites.gymnax import adapter
from ppo_jax.envs.suites.gymnax import names as gymnax_names

gymnax = gymnax_names.import_gymnax()
from gymnax.environments import environment as gymnax_environment  # noqa: E402
from gymnax.environments import spaces  # noqa: E402


def limit_of(environment):
    return time_limit(environment, environment.default_params)


class State(gymnax_environment.EnvState):
    """Counts only."""


class Own(gymnax_environment.Environment):
    """Shows the time; a state whose reset is int and whose step is float; a reward of shape [1]."""

    @property
    def default_params(self):
        return gymnax_environment.EnvParams(max_steps_in_episode=3)

    def reset_env(self, key, params):
        return jnp.zeros((), jnp.int32), gymnax_environment.EnvState(time=0)

    def step_env(self, key, state, action, params):
        state = gymnax_environment.EnvState(time=state.time + 1.0)
        return jnp.int32(state.time), state, jnp.ones((1,), jnp.int32), state.time >= 3, {}

    def action_space(self, params):
        return spaces.Box(-jnp.finfo(jnp.float32).max, 2.0, ())

    def observation_space(self, params):
        return spaces.Box(0, 3, ())


def make_own():
    return Own()


class NestedSpace(Own):
    def observation_space(self, params):
        return spaces.Dict({"a": spaces.Box(0, 1, ())})


class Branching(Own):
    def step_env(self, key, state, action, params):
        if action > 0:
            return super().step_env(key, state, action, params)
        return super().step_env(key, state, -action, params)


class BeforeVersionOne:
    """gymnax's API before 1.0: `done` merges the time limit."""

    default_params = gymnax_environment.EnvParams()
    reset_env = Own.reset_env
    step_env = Own.step_env
    action_space = Own.action_space
    observation_space = Own.observation_space


class NeedsArgument(Own):
    def __init__(self, size):
        self.size = size


class Wrapper:
    def __init__(self, env):
        self._env = env

    def __getattr__(self, name):
        return getattr(self._env, name)


def test_a_users_environment_is_cast_to_the_contract():
    environment = registration.make(Own())
    params = environment.default_params
    assert environment.observation_shape == (1,)
    assert environment.observation_dtype == "float32"
    assert environment.action_space.shape == (1,)
    assert environment.action_space.low[0] == -np.inf
    assert environment.action_space.high[0] == 2.0
    observation, state = environment.reset(jax.random.key(0), params)
    assert state.time.dtype == jnp.float32  # not cut to int: step_env adds 1.0
    for step in range(1, 4):
        observation, state, reward, terminated, truncated, _ = environment.transition(
            jax.random.key(0), state, jnp.zeros(1), params
        )
        assert float(observation[0]) == step
        assert reward.shape == ()
        assert float(reward) == 1.0
    assert bool(terminated)
    assert not bool(truncated)


@pytest.mark.parametrize("env", [Own, Own(), make_own, (Own(), Own().default_params)])
def test_classes_instances_factories_and_pairs_are_accepted(env):
    assert limit_of(registration.make(env)) == 3


def test_an_own_environment_is_named_by_module_and_attribute(tmp_path, monkeypatch):
    (tmp_path / "my_env_file.py").write_text(
        "from ppo_jax.envs.suites.probes import PROBES\n"
        "chosen = PROBES['action-choice'].environment\n"
    )
    monkeypatch.chdir(tmp_path)
    assert registration.make("my_env_file:chosen").name == "probe:action-choice"
    assert registration.make(registration.make("my_env_file:chosen")).name == "probe:action-choice"


def test_names_registered_at_run_time_work():
    if "Own-v7" not in gymnax.registered_envs:
        gymnax.register("Own-v7", Own)
    assert registration.make("Own-v7").name == "Own-v7"


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("CartPol-v1", "Nearest: CartPole-v1"),
        ("nowhere:Env", "nowhere"),
        (NestedSpace, "lacks 'a': make them equal"),
        (Branching, "cannot be traced"),
        (BeforeVersionOne, "has no is_truncated"),
        (NeedsArgument, "without arguments"),
        (Wrapper(Own()), "is a wrapper"),
        (3, "is no environment"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_a_sentence(env, sentence):
    with pytest.raises(InputError, match=sentence):
        registration.make(env)


def test_the_adapters_api_check_names_what_is_missing():
    with pytest.raises(InputError, match="step_env, is_truncated"):
        adapter.require_api(type("Half", (), {"reset_env": lambda self: 0})())


class Walk(Own):
    """Goes on for ever, unless a time limit of its parameters cuts it."""

    @property
    def default_params(self):
        return {"patience": 4}

    def step_env(self, key, state, action, params):
        observation, state, reward, _, info = super().step_env(key, state, action, params)
        return observation, state, reward, jnp.array(False), info


class Patient(Walk):
    def max_episode_steps(self, params):
        return params["patience"]


class Counted(Walk):
    max_episode_steps = 2.5


class Endless(Walk):
    max_episode_steps = None


class Keeping(Walk):
    max_episode_steps = 9

    def is_truncated(self, state, params):
        return state.time >= params["patience"]


class Inheriting(Patient):
    @property
    def default_params(self):
        return {"patience": 4, "max_steps_in_episode": 1}


@pytest.mark.parametrize(
    "kind, declared, kept",
    [(Patient, 4, 4), (Counted, 3, 3), (Endless, None, None), (Keeping, 9, 4), (Inheriting, 4, 4)],
)
def test_a_class_may_declare_its_time_limit(kind, declared, kept):
    """It is kept if the class leaves `is_truncated` to gymnax."""
    environment = registration.make(kind())
    assert limit_of(environment) == declared
    assert lengths(environment, environment.default_params) == kept


def test_a_declared_limit_follows_its_parameter():
    environment = registration.make(Patient())
    params = environment.override(environment.default_params, {"patience": 2})
    assert (time_limit(environment, params), lengths(environment, params)) == (2, 2)

    def is_cut(patience):
        params = environment.override(environment.default_params, {"patience": patience})
        _, state = environment.reset(jax.random.key(0), params)
        return environment.transition(jax.random.key(0), state, jnp.zeros(()), params)[4]

    np.testing.assert_array_equal(jax.vmap(is_cut)(jnp.array([1, 2])), [True, False])
    with pytest.raises(InputError, match="time limit is 0 steps: an episode needs at least 1"):
        environment.override(environment.default_params, {"patience": 0})


def lengths(environment, params):
    """Steps until an episode is truncated, None if it is not within 12."""
    _, state = environment.reset(jax.random.key(0), params)
    for age in range(1, 13):
        found = environment.transition(jax.random.key(0), state, jnp.zeros(()), params)
        state, terminated, truncated = found[1], *found[3:5]
        assert not terminated
        if truncated:
            return age
    return None


@pytest.mark.parametrize(
    "declared, words",
    [
        ("soon", r"Odd.max_episode_steps=soon must be a number of steps, or inf for no limit"),
        (lambda self: 3, r"Odd.max_episode_steps takes \(\) and is given \(params\): write max_"),
        (lambda self, params: params["none"], "Odd.max_episode_steps fails with KeyError: 'none'"),
        (0, "time limit is 0 steps"),
    ],
)
def test_a_declaration_that_is_no_time_limit_is_refused(declared, words):
    with pytest.raises(InputError, match=words):
        registration.make(type("Odd", (Walk,), {"max_episode_steps": declared})())


class Measured(Own):
    evaluation_mode = "sampled"
    is_heavy = True

    def step_env(self, key, state, action, params):
        *rest, _ = super().step_env(key, state, action, params)
        return *rest, {"age": rest[1].time}

    def metrics(self, info):
        return {"age": info["age"]}


def test_a_class_may_declare_metrics_its_mode_of_evaluation_and_heavy_steps():
    environment = registration.make(Measured())
    assert environment.evaluation_mode == "sampled"
    assert environment.is_heavy
    _, state = environment.reset(jax.random.key(0), environment.default_params)
    action, params = jnp.zeros(()), environment.default_params
    info = environment.transition(jax.random.key(0), state, action, params)[-1]
    assert environment.metrics(info) == {"age": 1.0}
    assert registration.make(Own()).metrics is None
    with pytest.raises(InputError, match="evaluation_mode='greedy', which is no mode"):
        registration.make(type("Greedy", (Own,), {"evaluation_mode": "greedy"})())
