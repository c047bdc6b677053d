"""Actor and critic: observation in, action distribution and value out.

`make_network` takes a *body*, one of ours (`actor_critic`) or the user's, turns its output into the
family's parameters and owns the log std that is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete
from ppo_jax.models.actor_critic import Body, built_in, real
from ppo_jax.models.custom import wrap_network
from ppo_jax.models.policy_head import Family, make_family
from ppo_jax.rl.distributions import (
    Categorical,
    Gaussian,
    MultiCategorical,
    clip_log_std,
    state_dependent_noise,
)
from ppo_jax.rl.types import PyTree


class Network(NamedTuple):
    """Pure functions of the parameters; observations have any leading dims `...`."""

    init: Callable[..., PyTree]  # (key, log_std_init=0.0) -> params
    apply: Callable[[PyTree, Array], tuple[Any, Array]]  # -> (distribution [..., *D], value [...])
    policy: Callable[[PyTree, Array], Any]  # -> distribution [..., *D]; the actor alone
    value: Callable[[PyTree, Array], Array]  # -> value [...]; the critic alone


def make_network(
    config: Config,
    observation_shape: Sequence[int],
    action_space: Discrete | MultiDiscrete | Box,
) -> tuple[Network, Family]:
    """The network and the policy family that `config` names.

    Args:
        config: policy, torso, hidden_sizes, activation, shared_torso, orthogonal_init, precision
            and network are read.
        observation_shape: of one environment, [*O].
        action_space: of one environment.

    Raises:
        InputError: the policy, the torso or the user's network does not fit the environment.
    """
    shape = tuple(observation_shape)
    family = make_family(config.policy, action_space, config.hidden_sizes[-1])
    if config.network is None:
        body = built_in(config, shape, family)
    else:
        body = _user_body(config, shape, family)
    categorical = MultiCategorical if isinstance(action_space, MultiDiscrete) else Categorical

    def init(key: Array, log_std_init: Any = 0.0) -> PyTree:
        params = {"body": body.init(key, log_std_init)}
        if body.log_std_shape is not None:
            params["log_std"] = jnp.full(body.log_std_shape, log_std_init, real())
        return params

    def distribution(params: PyTree, output: Any, features: Any) -> Any:
        if family.name == "categorical":
            return categorical(output)
        if isinstance(output, tuple):
            mean, log_std = output
            return Gaussian(mean, clip_log_std(log_std))
        log_std = clip_log_std(params["log_std"])
        if family.name == "gsde":
            return state_dependent_noise(output, features, log_std)
        return Gaussian(output, jnp.broadcast_to(log_std, output.shape))

    def apply(params: PyTree, observation: Array) -> tuple[Any, Array]:
        output, features, value = body.apply(params["body"], observation.astype(real()))
        return distribution(params, output, features), value

    def policy(params: PyTree, observation: Array) -> Any:
        return distribution(params, *body.policy(params["body"], observation.astype(real())))

    def value(params: PyTree, observation: Array) -> Array:
        return body.value(params["body"], observation.astype(real()))

    return Network(init, apply, policy, value), family


def _user_body(config: Config, shape: tuple[int, ...], family: Family) -> Body:
    own = wrap_network(config.network, shape, family.name, family.head_size)
    return Body(
        init=lambda key, log_std_init: own.init(key),
        apply=lambda params, observation: _without_features(own.apply(params, observation)),
        policy=lambda params, observation: (own.apply(params, observation)[0], None),
        value=lambda params, observation: own.apply(params, observation)[1],
        log_std_shape=own.log_std_shape,
    )


def _without_features(result: tuple[Any, Array]) -> tuple[Any, None, Array]:
    output, value = result
    return output, None, value
