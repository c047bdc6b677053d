"""Actor and critic: observations (and memory) in, action distribution and value out.

`make_network` takes a *body*, a built-in one (`actor_critic`) or the user's, and turns its output
into the family's parameters. It applies an action mask, and owns the log std that is a parameter.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import partial_eval

from ppo_jax.config.config import Config
from ppo_jax.envs.interface import ActionSpace, MultiDiscrete, Product, action_mask
from ppo_jax.models.actor_critic import make_body
from ppo_jax.models.body import Network
from ppo_jax.models.custom import wrap_network
from ppo_jax.models.policy_head import Family, make_family
from ppo_jax.models.torsos import LeafCode, real
from ppo_jax.rl.distributions import (
    Categorical,
    Gaussian,
    Mixed,
    MultiCategorical,
    clip_log_std,
    state_dependent_noise,
)
from ppo_jax.rl.types import PyTree, Window


def make_network(
    config: Config,
    observation: PyTree,
    action_space: ActionSpace,
    codes: tuple[LeafCode, ...] = (),
) -> tuple[Network, Family]:
    """Build the network and the policy family that `config` names.

    Args:
        config: policy, torso, hidden_sizes, activation, shared_torso, orthogonal_init, precision
            and network are read.
        observation: tree of `jax.ShapeDtypeStruct`, of one environment.
        action_space: of one environment.
        codes: see `Encoder`; of built-in networks.

    Raises:
        InputError: the policy, the torso or the user's network does not fit the environment.
    """
    width = config.hidden_sizes[-1] if config.memory == "none" else config.memory_size
    family = make_family(config.policy, action_space, width)
    if config.network is None:
        body = make_body(config, observation, family, codes)
    else:
        body = wrap_network(config.network, observation, family)
    is_joint = isinstance(action_space, MultiDiscrete | Product)
    categorical = MultiCategorical if is_joint else Categorical

    def init(key: Array, log_std_init: Any = 0.0) -> PyTree:
        params = {"body": body.init(key, log_std_init)}
        if body.log_std_shape is not None:
            params["log_std"] = jnp.full(body.log_std_shape, log_std_init, real())
        return params

    def start(params: PyTree, num_envs: int) -> PyTree:
        return body.start(params["body"], num_envs)

    def real_part(params: PyTree, output: Any, features: Any) -> Any:
        if isinstance(output, tuple):
            mean, log_std = output
            return Gaussian(mean, clip_log_std(log_std))
        log_std = clip_log_std(params["log_std"])
        if family.name == "gsde":
            return state_dependent_noise(output, features, log_std)
        return Gaussian(output, jnp.broadcast_to(log_std, output.shape))

    def distribution(params: PyTree, output: Any, features: Any, observation: PyTree) -> Any:
        if not family.dials:
            return real_part(params, output, features)
        logits = output[0] if family.num_reals else output
        discrete: Any = categorical(masked(logits, action_mask(observation), family.dials))
        if not family.num_reals:
            return discrete
        return Mixed(discrete, real_part(params, output[1], features))

    def act(params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, Any]:
        memory, output, features = body.act(params["body"], memory, observation)
        return memory, distribution(params, output, features, observation)

    def apply(params: PyTree, window: Window) -> tuple[Any, Array]:
        output, features, value = body.apply(params["body"], window)
        return distribution(params, output, features, window.observation), value

    def policy(params: PyTree, window: Window) -> Any:
        output, features = body.policy(params["body"], window)
        return distribution(params, output, features, window.observation)

    def values(params: PyTree, window: Window) -> tuple[Array, PyTree]:
        return body.values(params["body"], window)

    def value_after(params: PyTree, memory: PyTree, observation: PyTree) -> Array:
        return body.value_after(params["body"], memory, observation)

    network = Network(init, start, act, apply, policy, values, value_after, body.carry_on)
    return network, family


def masked(logits: Array, legal: Array | None, dials: tuple[int, ...]) -> Array:
    """Logits [..., n] with -inf for illegal actions; all are legal of a dial that allows none.

    Args:
        legal: bool [..., n], None without a mask.
        dials: the number of actions of each dial; n is their sum.
    """
    if legal is None:
        return logits
    bounds = list(accumulate(dials))[:-1]
    each = [part | ~jnp.any(part, axis=-1, keepdims=True) for part in jnp.split(legal, bounds, -1)]
    legal = each[0] if len(each) == 1 else jnp.concatenate(each, axis=-1)
    return jnp.where(legal, logits, -jnp.inf)


def policy_leaves(network: Network, params: PyTree, window: Window) -> list[bool]:
    """Flags of the leaves of `params` that the action distribution depends on.

    They are found in the traced program after dead-code elimination, without use of names.
    """
    if not jax.tree.leaves(window.memory):
        window = jax.tree.map(lambda leaf: leaf[:1], window)
    closed = jax.make_jaxpr(lambda p: network.policy(p, window))(params)
    _, is_used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return is_used


def freeze(params: PyTree, frozen: list[bool]) -> PyTree:
    """Return `params` with no gradient into the frozen leaves."""
    leaves, treedef = jax.tree.flatten(params)
    return jax.tree.unflatten(
        treedef,
        [
            jax.lax.stop_gradient(leaf) if is_frozen else leaf
            for leaf, is_frozen in zip(leaves, frozen, strict=True)
        ],
    )


def keep_frozen(before: PyTree, after: PyTree, frozen: list[bool]) -> PyTree:
    """Return `after` with the frozen leaves of `before`."""
    leaves, treedef = jax.tree.flatten(before)
    pairs = zip(leaves, jax.tree.leaves(after), frozen, strict=True)
    return jax.tree.unflatten(treedef, [old if is_frozen else new for old, new, is_frozen in pairs])
