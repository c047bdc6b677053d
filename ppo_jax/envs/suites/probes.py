"""Known-answer environments: what a correct trainer learns from each is known in advance.

Each asks one question, so that a wrong answer names the part that is broken. After A. Jones,
"Debugging RL, Without the Agonizing Pain" (2021), with continuous, multi-discrete, truncated and
grid versions.

| probe | a wrong value or action points to |
|---|---|
| constant-value | the value loss or its optimiser |
| observation-value | the way of the observation into the critic |
| two-step-discount | discounting and bootstrapping |
| action-choice (-continuous, -multi-discrete) | the sign or scale of the policy gradient |
| action-observation (-continuous, -grid) | pairing of observations, actions and advantages |
| time-limit | a truncation that is treated as a termination |
| reward-lag | rewards that are shifted by one step |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.envs import params as parameters
from ppo_jax.envs.interface import Box, Discrete, Environment, MultiDiscrete

_TARGET = 0.5  # the best continuous action
_RIGHT_PAIR = (1, 0)  # the best multi-discrete action


class ProbeParams(NamedTuple):
    """Numbers of the probes that have any."""

    max_steps_in_episode: Any = 5


class ProbeState(NamedTuple):
    """The state of every probe."""

    observation: Array  # [*O], what was last shown
    time: Array  # [], int32


class Probe(NamedTuple):
    """An environment and the right answer to it."""

    environment: Environment
    value: Callable[[Any, float], float]  # (observation, gamma) -> V* of it
    best_action: Callable[[Any], Any] | None  # observation -> action, None where none is better
    best_return: float  # undiscounted, expected over start states


def _probe(
    name: str,
    *,
    start: Callable[[Array], Array],
    reward: Callable[[Array, Array, Array], Array],
    value: Callable[[np.ndarray, float], float],
    best_return: float,
    best_action: Callable[[np.ndarray], Any] | None = None,
    action_space: Any = Discrete(2),  # noqa: B008 (an immutable tuple)
    following: Callable[[Array, Array], Array] = lambda key, observation: observation,
    num_steps: int = 1,
    time_limit: int | None = None,
) -> Probe:
    """A probe from its parts.

    Args:
        start: key -> first observation.
        reward: (observation before the action, action, time) -> reward [].
        following: (key, observation) -> next observation.
        num_steps: transitions until termination; ignored where there is a time limit.
        time_limit: truncate, and never terminate, after this many transitions.
    """

    def reset(key: Array, params: Any) -> tuple[Array, ProbeState]:
        observation = start(key)
        return observation, ProbeState(observation, jnp.zeros((), jnp.int32))

    def transition(key: Array, state: ProbeState, action: Any, params: Any) -> tuple:
        gain = jnp.asarray(reward(state.observation, action, state.time), jnp.float32)
        observation, time = following(key, state.observation), state.time + 1
        flags = _ends(time, params, num_steps if time_limit is None else None)
        return observation, ProbeState(observation, time), gain, *flags, {}

    environment = Environment(
        name=f"probe:{name}",
        reset=reset,
        transition=transition,
        default_params=() if time_limit is None else _limit_params(time_limit),
        observation=jax.eval_shape(lambda: start(jax.random.key(0))),  # imported without a device
        action_space=action_space,
        max_episode_steps=None if time_limit is None else parameters.time_limit,
        override=parameters.override,
    )
    answer = best_action and (lambda observation: best_action(_double(observation)))
    return Probe(environment, lambda o, gamma: float(value(_double(o), gamma)), answer, best_return)


def _double(observation: Any) -> np.ndarray:
    return np.asarray(observation, np.float64)


def _ends(time: Array, params: Any, num_steps: int | None) -> tuple[Array, Array]:
    """(terminated, truncated): after `num_steps`, or if None at the time limit of `params`."""
    never = jnp.zeros((), jnp.bool_)
    if num_steps is None:
        return never, time >= params.max_steps_in_episode
    return time >= num_steps, never


def _limit_params(time_limit: int) -> ProbeParams:
    return parameters.as_numbers(ProbeParams(time_limit))


def _zero(key: Array) -> Array:
    return jnp.zeros((1,), jnp.float32)


def _sign(key: Array) -> Array:
    """-1 or 1, equally likely. [1]"""
    return jax.random.rademacher(key, (1,), jnp.float32)


def _unit_box() -> Box:
    return Box((1,), np.full(1, -1, np.float32), np.full(1, 1, np.float32))


def _constant_value() -> Probe:
    return _probe(
        "constant-value",
        start=_zero,
        reward=lambda observation, action, time: jnp.ones(()),
        value=lambda observation, gamma: 1.0,
        best_return=1.0,
    )


def _observation_value() -> Probe:
    return _probe(
        "observation-value",
        start=_sign,
        reward=lambda observation, action, time: observation[0],
        value=lambda observation, gamma: observation[0],
        best_return=0.0,
    )


def _two_step_discount() -> Probe:
    """Shows 0 and pays 0, then shows 1 and pays 1."""
    return _probe(
        "two-step-discount",
        start=_zero,
        following=lambda key, observation: jnp.ones_like(observation),
        reward=lambda observation, action, time: observation[0],
        value=lambda observation, gamma: 1.0 if observation[0] > 0.5 else gamma,
        num_steps=2,
        best_return=1.0,
    )


def _action_choice() -> Probe:
    """Action 1 pays 1, action 0 pays -1."""
    return _probe(
        "action-choice",
        start=_zero,
        reward=lambda observation, action, time: 2.0 * action - 1.0,
        value=lambda observation, gamma: 1.0,
        best_action=lambda observation: 1,
        best_return=1.0,
    )


def _action_choice_continuous() -> Probe:
    """Pays -(a - 0.5)^2."""
    return _probe(
        "action-choice-continuous",
        start=_zero,
        action_space=_unit_box(),
        reward=lambda observation, action, time: -((action[0] - _TARGET) ** 2),
        value=lambda observation, gamma: 0.0,
        best_action=lambda observation: np.full(1, _TARGET),
        best_return=0.0,
    )


def _action_choice_multi_discrete() -> Probe:
    """Two binary actions; pays the number of right ones, (1, 0) being right."""
    return _probe(
        "action-choice-multi-discrete",
        start=_zero,
        action_space=MultiDiscrete((2, 2)),
        reward=lambda observation, action, time: jnp.sum(action == jnp.array(_RIGHT_PAIR)),
        value=lambda observation, gamma: 2.0,
        best_action=lambda observation: np.array(_RIGHT_PAIR),
        best_return=2.0,
    )


def _action_observation() -> Probe:
    """Shows -1 or 1; action 0 is right for -1, action 1 for 1. Right pays 1, wrong -1."""
    return _probe(
        "action-observation",
        start=_sign,
        reward=lambda observation, action, time: (2.0 * action - 1.0) * observation[0],
        value=lambda observation, gamma: 1.0,
        best_action=lambda observation: int(observation[0] > 0),
        best_return=1.0,
    )


def _action_observation_continuous() -> Probe:
    """Shows -1 or 1 and pays -(a - 0.5 obs)^2."""
    return _probe(
        "action-observation-continuous",
        start=_sign,
        action_space=_unit_box(),
        reward=lambda observation, action, time: -((action[0] - _TARGET * observation[0]) ** 2),
        value=lambda observation, gamma: 0.0,
        best_action=lambda observation: _TARGET * observation,
        best_return=0.0,
    )


def _action_observation_grid() -> Probe:
    """One lit cell of a 4 x 4 grid with two channels: its channel is the right action."""

    def start(key: Array) -> Array:
        return (
            jnp.zeros(32, jnp.bool_)
            .at[jax.random.randint(key, (), 0, 32)]
            .set(True)
            .reshape(4, 4, 2)
        )

    return _probe(
        "action-observation-grid",
        start=start,
        reward=lambda observation, action, time: jnp.where(observation[..., action].any(), 1, -1),
        value=lambda observation, gamma: 1.0,
        best_action=lambda observation: int(observation[..., 1].any()),
        best_return=1.0,
    )


def _time_limit() -> Probe:
    """Pays 1 for ever, shows nothing, and is cut after 5 steps: V = 1 / (1 - gamma).

    With the cut taken for a termination the one observation would be worth the mean over
    k = 1..5 of (1 - gamma^k) / (1 - gamma), which is 2.96 instead of 100 at gamma = 0.99.
    """
    return _probe(
        "time-limit",
        start=_zero,
        reward=lambda observation, action, time: jnp.ones(()),
        value=lambda observation, gamma: 1.0 / (1.0 - gamma),
        time_limit=5,
        best_return=5.0,
    )


def _reward_lag() -> Probe:
    """Two steps; shows (b0, 0), then (b1, b0), b fair signs; the second step pays b0.

    So V(b0, 0) = gamma b0 and V(b1, b0) = b0. Rewards shifted by a step would pay b0 a step early
    or late, and b1 is worth nothing.
    """

    def start(key: Array) -> Array:
        return jnp.concatenate([_sign(key), jnp.zeros(1, jnp.float32)])

    return _probe(
        "reward-lag",
        start=start,
        following=lambda key, observation: jnp.concatenate([_sign(key), observation[:1]]),
        reward=lambda observation, action, time: observation[1],
        value=lambda seen, gamma: seen[1] if seen[1] != 0 else gamma * seen[0],
        num_steps=2,
        best_return=0.0,
    )


_BUILDERS: dict[str, Callable[[], Probe]] = {
    "constant-value": _constant_value,
    "observation-value": _observation_value,
    "two-step-discount": _two_step_discount,
    "action-choice": _action_choice,
    "action-choice-continuous": _action_choice_continuous,
    "action-choice-multi-discrete": _action_choice_multi_discrete,
    "action-observation": _action_observation,
    "action-observation-continuous": _action_observation_continuous,
    "action-observation-grid": _action_observation_grid,
    "time-limit": _time_limit,
    "reward-lag": _reward_lag,
}

PROBES: dict[str, Probe] = {name: build() for name, build in _BUILDERS.items()}
