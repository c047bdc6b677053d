"""The adapter against gymnax itself, against Gymnasium's physics, and by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax import envs
from ppo_jax.config import InputError
from ppo_jax.envs import contract, parameters, registry
from ppo_jax.envs import gymnax as adapter
from ppo_jax.envs.interface import Box, Discrete, Environment
from ppo_jax.envs.play import random_action

gymnax = registry.import_gymnax()
from gymnax.environments import environment as gymnax_environment  # noqa: E402
from gymnax.environments import spaces  # noqa: E402

NAMES = [name for name in registry.GYMNAX_NAMES if name not in registry.NEEDS_DOWNLOAD]
SLOW = {name for name in NAMES if name.endswith("MinAtar")}  # 4 to 18 s of compilation each


def avals(tree):
    return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]


# ------------------------------------------------------------------ every gymnax environment


def test_the_written_out_names_are_those_that_gymnax_registers():
    assert tuple(gymnax.registered_envs[: len(registry.GYMNAX_NAMES)]) == registry.GYMNAX_NAMES


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
    assert envs.make("CartPole-v1").max_episode_steps == 500
    assert envs.make("BernoulliBandit-misc").max_episode_steps == 100  # declared 100.0


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
        ({"gravity": "heavy"}, "must be a number"),
        ({"gravity": float("nan")}, "must be a number"),
        ({"gravity": [1.0, 2.0]}, "shape"),
    ],
)
def test_wrong_parameters_are_refused_with_a_sentence(values, sentence):
    environment = envs.make("CartPole-v1")
    with pytest.raises(InputError, match=sentence):
        environment.override(environment.default_params, values)


# ------------------------------------------------------------------ users' environments


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


class NestedAction(Own):
    def action_space(self, params):
        return spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))


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
    environment = envs.make(Own())
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
    assert envs.make(env).max_episode_steps == 3


def test_an_own_environment_is_named_by_module_and_attribute(tmp_path, monkeypatch):
    (tmp_path / "my_env_file.py").write_text(
        "from ppo_jax.envs.probes import PROBES\nchosen = PROBES['action-choice'].environment\n"
    )
    monkeypatch.chdir(tmp_path)
    assert envs.make("my_env_file:chosen").name == "probe:action-choice"
    assert envs.make(envs.make("my_env_file:chosen")).name == "probe:action-choice"


def test_names_registered_at_run_time_work():
    if "Own-v7" not in gymnax.registered_envs:
        gymnax.register("Own-v7", Own)
    assert envs.make("Own-v7").name == "Own-v7"


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("CartPol-v1", "Nearest: CartPole-v1"),
        ("nowhere:Env", "nowhere"),
        (NestedSpace, "only Box and Discrete"),
        (NestedAction, "only Discrete and real Box"),
        (Branching, "cannot be traced"),
        (BeforeVersionOne, "has no is_truncated"),
        (NeedsArgument, "without arguments"),
        (Wrapper(Own()), "is a wrapper"),
        (3, "is no environment"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_with_a_sentence(env, sentence):
    with pytest.raises(InputError, match=sentence):
        envs.make(env)


def test_a_download_that_fails_is_told_as_a_sentence(monkeypatch):
    def offline():
        raise OSError("no route to host")

    registration = sys.modules["gymnax.registration"]
    monkeypatch.setitem(registration._registry, "MNISTBandit-bsuite", offline)
    with pytest.raises(InputError, match="downloads its data"):
        envs.make("MNISTBandit-bsuite")


def test_the_list_names_every_environment_with_its_spaces():
    rows = {row.name: row for row in envs.available()}
    assert set(registry.GYMNAX_NAMES) <= set(rows)
    assert rows["CartPole-v1"][1:4] == ("classic control", "discrete 2", (4,))
    assert rows["FrozenLake-misc"].observation_shape == (16,)
    assert rows["PointRobot-misc"].action_space == "box 2 in [-0.1, 0.1]"
    assert "download" in rows["MNISTBandit-bsuite"].note
    assert rows["probe:time-limit"].suite == "probe"


def test_gymnax_is_imported_without_its_plotting_and_can_still_plot_afterwards():
    program = (
        "import sys\n"
        "from ppo_jax.envs import registry\n"
        "registry.require_known('CartPole-v1')\n"
        "assert 'jax' not in sys.modules and 'gymnax' not in sys.modules\n"
        "registry.import_gymnax()\n"
        "assert 'seaborn' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        "from gymnax.environments.bsuite import catch\n"
        "assert catch.plt.subplots.__module__ == 'matplotlib.pyplot'\n"
        "import matplotlib.pyplot\n"
        "assert hasattr(matplotlib.pyplot, '__file__')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# ------------------------------------------------------------------ pictures


def test_classic_control_is_drawn_without_pygame():
    for name in ("CartPole-v1", "Pendulum-v1", "MountainCar-v0", "Acrobot-v1"):
        environment = envs.make(name)
        _, state = environment.reset(jax.random.key(0), environment.default_params)
        picture = environment.render(state, environment.default_params)
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.shape[0] % 16 == 0
        assert picture.shape[1] % 16 == 0
    assert "pygame" not in sys.modules


def test_the_drawn_cart_moves_right_with_its_position():
    environment = envs.make("CartPole-v1")
    params = environment.default_params
    _, state = environment.reset(jax.random.key(0), params)

    def cart_column(x):
        picture = environment.render(state.replace(x=jnp.float32(x)), params).astype(int)
        return np.mean(np.nonzero(picture.sum(-1) < 250)[1])  # the cart is the darkest thing

    width = 480
    for x in (-1.0, 0.0, 1.5):
        expected = (x + 1.1 * 2.4) / (2.2 * 2.4) * width
        assert cart_column(x) == pytest.approx(expected, abs=5)


def test_a_grid_is_drawn_with_a_colour_per_channel():
    environment = envs.make("Catch-bsuite")
    _, state = environment.reset(jax.random.key(0), environment.default_params)
    picture = environment.render(state, environment.default_params)
    cell = picture.shape[0] // 10
    lit = picture[cell // 2 :: cell, cell // 2 :: cell].max(-1) > 100
    assert lit.sum() == 2
    assert lit[9, 2]


# ------------------------------------------------------------------ the contract check


class Count(NamedTuple):
    time: jax.Array


def counting(**changes) -> Environment:
    """An environment that keeps the contract, ends after 10 steps, and can be broken."""

    def reset(key, params):
        return jax.random.uniform(key, (2,)), Count(jnp.int32(0))

    def transition(key, state, action, params):
        time = state.time + 1
        observation = jnp.stack([time / 10, jnp.float32(action)])
        return observation, Count(time), observation[1], time >= 10, jnp.bool_(False), {}

    parts = {"reset": reset, "transition": transition, **changes}
    return Environment(
        name="counting",
        default_params=(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=Discrete(2),
        max_episode_steps=10,
        override=parameters.override,
        **parts,
    )


def found(environment, steps=64):
    return contract.check(environment, jax.random.key(0), steps)


def broken(change):
    """The counting environment with its transition's results passed through `change`."""
    keeps = counting()

    def transition(key, state, action, params):
        return change(key, *keeps.transition(key, state, action, params))

    return counting(transition=transition)


def test_an_environment_that_keeps_the_contract_has_no_findings():
    assert found(counting()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k, o, s, r, d, t, i: (o[:1], s, r, d, t, i), "declares"),
        (lambda k, o, s, r, d, t, i: (o, Count(s.time * 1.0), r, d, t, i), "no loop can carry"),
        (lambda k, o, s, r, d, t, i: (o, s, r[None], d, t, i), "broadcast"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d * 1.0, t, i), "broadcast"),
        (lambda k, o, s, r, d, t, i: (o, s, r / 0.0, d, t, i), "not finite"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d, d, i), "at once"),
        (lambda k, o, s, r, d, t, i: (o, s, r, d & False, t, i), "limit is not kept"),
        (lambda k, o, s, r, d, t, i: (o.at[1].set(0), s, s.time / 9, d, t, i), "action changed"),
        (lambda k, o, s, r, d, t, i: (100 * o, s, r, d, t, i), "normalize-observations"),
        (
            lambda k, o, s, r, d, t, i: (o, Count(jnp.where(d, 0, s.time)), r, d, t, i),
            "resets by itself",
        ),
    ],
)
def test_each_breach_is_found_and_told(change, words):
    findings = found(broken(change))
    assert any(words in finding.what + finding.remedy for finding in findings), findings


def test_a_transition_that_cannot_be_traced_is_an_error():
    def transition(key, state, action, params):
        return (None,) if action > 0 else ()

    (finding,) = found(counting(transition=transition))
    assert finding.severity == "error"
    assert "fails" in finding.what


def test_an_unbounded_action_space_is_warned_about():
    box = Box((1,), np.full(1, -np.inf, np.float32), np.full(1, np.inf, np.float32))

    def transition(key, state, action, params):
        return counting().transition(key, state, action[0], params)

    environment = counting(transition=transition)._replace(action_space=box)
    assert ["unbounded" in finding.what for finding in found(environment)] == [True]


def test_a_gymnax_environment_passes_without_errors():
    findings = found(envs.make("CartPole-v1"), 200)
    assert not [finding for finding in findings if finding.severity == "error"]


def test_the_adapters_api_check_names_what_is_missing():
    with pytest.raises(InputError, match="step_env, is_truncated"):
        adapter.require_api(type("Half", (), {"reset_env": lambda self: 0})())
