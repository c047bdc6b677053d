"""Every probe's known values and best actions are learnt, by every policy and sound objective.

Probes of one action space are trained by one program: a switch, whose number is a parameter of the
environment, on a `vmap` axis beside the seeds.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import OBJECTIVES, Config, Hyper, Schedule
from ppo_jax.envs.interface import Environment
from ppo_jax.envs.suites.probes import PROBES, ProbeState
from ppo_jax.models.agent import acting_policy, assemble
from ppo_jax.rl.types import Window
from ppo_jax.training import trainer


def quick_options() -> dict[str, Any]:
    """A quarter of the compile time, with equal exactness; unknown options are left out."""
    options: dict[str, Any] = {"xla_backend_optimization_level": 0}
    more = {**options, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x + 1, compiler_options=more)(0)
    except jax.errors.JaxRuntimeError:
        return options
    return more


jit = partial(jax.jit, compiler_options=quick_options())

GAMMA = 0.9
NUM_SEEDS = 4

DISCRETE = (
    "constant-value",
    "observation-value",
    "two-step-discount",
    "action-choice",
    "action-observation",
    "reward-lag",
    "time-limit",
)
CONTINUOUS = ("action-choice-continuous", "action-observation-continuous")


class Which(NamedTuple):
    """The number of the switch's probe that is played."""

    probe: Any = np.int32(0)


def switch(names: tuple[str, ...]) -> Environment:
    """All of `names` as one environment; observations are padded with 0 to two numbers."""
    members = [PROBES[name].environment for name in names]

    def widen(observation):
        return jnp.zeros(2).at[: observation.shape[0]].set(observation)

    def reset(key, params):
        def branch(member):
            def play():
                observation, state = member.reset(key, member.default_params)
                return widen(observation), ProbeState(widen(state.observation), state.time)

            return play

        return jax.lax.switch(params.probe, [branch(member) for member in members])

    def transition(key, state, action, params):
        def branch(member):
            def play():
                size = member.observation_shape[0]
                inner = ProbeState(state.observation[:size], state.time)
                observation, after, *rest = member.transition(
                    key, inner, action, member.default_params
                )
                after = ProbeState(widen(after.observation), after.time)
                return widen(observation), after, *rest

            return play

        return jax.lax.switch(params.probe, [branch(member) for member in members])

    return Environment(
        name="switch",
        reset=reset,
        transition=transition,
        default_params=Which(),
        observation_shape=(2,),
        observation_dtype="float32",
        action_space=members[0].action_space,
        max_episode_steps=None,
        override=lambda params, values: params._replace(**values),
    )


def config_of(env: Any, **changes: Any) -> Config:
    settings = {
        "num_envs": 32,
        "rollout_length": 8,
        "num_epochs": 4,
        "num_minibatches": 2,
        "hidden_sizes": (16,),
        "orthogonal_init": False,
        "total_env_steps": 256 * 150,
        **changes,
    }
    return Config(env=env, **settings)


HYPER = Hyper(learning_rate=Schedule(1e-2, 0.0), gamma=GAMMA, gae_lambda=0.95, entropy_coef=0.0)


def train(config: Config, hyper: Hyper, num_probes: int, num_seeds: int = NUM_SEEDS):
    """(params [probes, seeds, ..], metrics [probes, seeds, iterations], moments)."""

    def one(probe, key):
        env = {"probe": probe} if num_probes > 1 else {}
        hyper_one = Hyper(**{**vars(hyper), "env": env})
        state, rows = trainer.train(config, hyper_one, key)
        return state, rows

    keys = jax.random.split(jax.random.key(0), num_seeds)
    run = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return jit(run)(jnp.arange(num_probes), keys)


def seen_in(probe, num_steps: int = 3) -> np.ndarray:
    """The distinct observations that a probe shows, reset ones and successors. [n, *O]"""
    environment = probe.environment
    found = {}
    for seed in range(64 if len(environment.observation_shape) > 1 else 16):
        key = jax.random.key(seed)
        observation, state = environment.reset(key, environment.default_params)
        action = np.zeros(1) if hasattr(environment.action_space, "low") else 0
        if hasattr(environment.action_space, "ns"):
            action = np.zeros(2, int)
        for _ in range(num_steps):
            found[np.asarray(observation).tobytes()] = np.asarray(observation, np.float32)
            observation, state, _, terminated, _, _ = environment.transition(
                key, state, action, environment.default_params
            )
            if terminated:
                break
    return np.stack(list(found.values()))


def answers(config, state, where, observation):
    """(mode for the environment, value) of one member at raw observations."""
    agent = assemble(config)
    params = jax.tree.map(lambda leaf: leaf[where], state.params)
    stats = jax.tree.map(lambda leaf: leaf[where], state.observation_moments)
    policy = acting_policy(config, agent, params, stats)
    distribution, value = agent.network.apply(params, Window(policy.see(jnp.asarray(observation))))
    return np.asarray(agent.family.to_env(agent.family.mode(distribution))), np.asarray(value)


def check(config, state, rows, names, value_error, action_error=0.05):
    """Check that every seed of every probe has learnt its values and best actions."""
    assert state.alive.all()
    # At theta_old every ratio is 1: in every iteration of every run here.
    assert rows["log_ratio_abs_first"].max() <= 1e-5
    num_seeds = state.alive.shape[1]
    for i, name in enumerate(names):
        probe = PROBES[name]
        observation = seen_in(probe)
        shown = observation
        if len(names) > 1 and observation.shape[1] == 1:
            shown = np.pad(observation, ((0, 0), (0, 1)))
        for seed in range(num_seeds):
            action, value = answers(config, state, (i, seed), shown)
            for k, at in enumerate(observation):
                where = f"{name}, seed {seed}, observation {at.ravel()[:2]}"
                if probe.best_action is not None:
                    best = probe.best_action(at)
                    np.testing.assert_allclose(
                        np.ravel(action[k]), np.ravel(best), atol=action_error, err_msg=where
                    )
                expected = probe.value(at, GAMMA)
                assert value[k] == pytest.approx(expected, abs=value_error), where


@pytest.mark.slow
def test_all_discrete_probes_reach_their_values_and_best_actions():
    """Also the time limit's 1 / (1 - gamma) = 10 and both steps of the two-step probes."""
    config = config_of(switch(DISCRETE), total_env_steps=256 * 300)
    hyper = Hyper(**{**vars(HYPER), "learning_rate": Schedule(2e-2, 0.0)})
    state, rows = train(config, hyper, len(DISCRETE))
    check(config, state, rows, DISCRETE, value_error=0.12)
    # Sampled returns agree: the best for the action probes.
    for name in ("action-choice", "action-observation"):
        i = DISCRETE.index(name)
        mean = rows["episode_return_sum"][i, :, -1] / rows["num_episodes"][i, :, -1]
        assert (mean > 0.95).all()


def test_a_time_limit_that_is_taken_for_a_termination_is_worth_less():
    """V would be the mean over k = 1 .. 5 of (1 - gamma^k) / (1 - gamma), not 1 / (1 - gamma)."""
    short = np.mean([(1 - GAMMA**k) / (1 - GAMMA) for k in range(1, 6)])
    config = config_of("probe:time-limit", time_limits="termination", rollout_length=10)
    # lambda = 1: the critic's fixed point is the plain mean, for every bootstrap value.
    hyper = Hyper(**{**vars(HYPER), "gae_lambda": 1.0})
    state, _ = train(config, hyper, 1)
    for seed in range(NUM_SEEDS):
        _, value = answers(config, state, (0, seed), np.zeros((1, 1)))
        assert value[0] == pytest.approx(short, abs=0.3)
        assert value[0] < 5.0 < PROBES["time-limit"].value(np.zeros(1), GAMMA)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["gaussian", "gaussian-state-std", "gsde", "tanh-gaussian"])
def test_every_continuous_policy_finds_the_best_action(policy):
    """With normalised observations; one of them is constant.

    gSDE's noise is a product with the features, which are 0 if the observation is: it can only
    explore at nonzero observations.
    """
    names = CONTINUOUS[1:] if policy == "gsde" else CONTINUOUS
    env = f"probe:{names[0]}" if policy == "gsde" else switch(names)
    config = config_of(env, policy=policy, normalize_observations=True, gsde_resample_steps=1)
    hyper = Hyper(**{**vars(HYPER), "log_std_init": -0.5})
    state, rows = train(config, hyper, len(names))
    check(config, state, rows, names, value_error=0.1, action_error=0.1)


def own_drift(ratio, advantage):
    """(log r)^2 |A|: never negative, with value and slope 0 at r = 1."""
    return jnp.square(jnp.log(ratio)) * jnp.abs(advantage)


def settings_of(objective: str) -> dict[str, Any]:
    """The policy gradient holds for one step on a batch, so it gets one; all others reuse it."""
    needed: dict[str, dict[str, Any]] = {
        "pg": {"num_epochs": 1, "num_minibatches": 1},
        "drift": {"drift": own_drift},
    }
    return {"objective": objective, **needed.get(objective, {})}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["clip", "pg", "trpo"])
def test_both_parts_of_a_multi_discrete_action_are_learnt(objective):
    name = "action-choice-multi-discrete"
    config = config_of(f"probe:{name}", total_env_steps=256 * 60, **settings_of(objective))
    state, rows = train(config, HYPER, 1)
    check(config, state, rows, (name,), value_error=0.15)


def test_a_convolution_reads_the_grid():
    name = "action-observation-grid"
    config = config_of(
        f"probe:{name}", torso="cnn", total_env_steps=256 * 60, **settings_of("clip")
    )
    state, rows = train(config, HYPER, 1, num_seeds=2)
    check(config, state, rows, (name,), value_error=0.25)


OTHERS = [name for name in OBJECTIVES if name != "clip"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OTHERS)
def test_every_objective_learns_the_discrete_probes(objective):
    """One step a batch moves a critic less far than eight do: the policy gradient gets more."""
    rate, num_iterations = (4e-2, 300) if objective == "pg" else (2e-2, 150)
    config = config_of(
        switch(DISCRETE), total_env_steps=256 * num_iterations, **settings_of(objective)
    )
    hyper = Hyper(**{**vars(HYPER), "learning_rate": Schedule(rate, 0.0)})
    state, rows = train(config, hyper, len(DISCRETE), num_seeds=2)
    check(config, state, rows, DISCRETE, value_error=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OTHERS)
def test_every_objective_learns_the_continuous_probes(objective):
    config = config_of(switch(CONTINUOUS), policy="gaussian", **settings_of(objective))
    hyper = Hyper(**{**vars(HYPER), "log_std_init": -0.5})
    state, rows = train(config, hyper, len(CONTINUOUS), num_seeds=2)
    check(config, state, rows, CONTINUOUS, value_error=0.1, action_error=0.1)
