"""Actor and critic: observation in, action distribution and value out.

A *body* maps observations to the policy's raw output, its last features and the value; it is one of
ours (MLP or CNN) or the user's. `make_network` turns that output into the family's
parameters and owns the log std that is a parameter. All flax code of the package is in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config import Config, InputError
from ppo_jax.densities import (
    Categorical,
    Gaussian,
    MultiCategorical,
    clip_log_std,
    state_dependent_noise,
)
from ppo_jax.distributions import Family, make_family
from ppo_jax.envs.interface import Box, Discrete, MultiDiscrete
from ppo_jax.own_network import wrap_network
from ppo_jax.products import dot_general
from ppo_jax.types import PyTree

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "swish": nn.swish,
    "gelu": nn.gelu,
    "elu": nn.elu,
}
# (compute dtype, precision of products). DEFAULT is TF32 on NVIDIA GPUs, full float32 on CPUs.
_PRECISIONS = {
    "float32": (jnp.float32, jax.lax.Precision.HIGHEST),
    "tf32": (jnp.float32, jax.lax.Precision.DEFAULT),
    "bfloat16": (jnp.bfloat16, jax.lax.Precision.DEFAULT),
}
_CONV_FEATURES = 16  # Young and Tian 2019, MinAtar: one 3x3 convolution of 16 features, no padding
_CONV_SIZE = (3, 3)
# Gains of the orthogonal start. The small one makes the first policy nearly uniform (Andrychowicz
# et al. 2021, 3.2); layers that are not named here have the square root of 2.
_GAINS = {"policy_head": 0.01, "value_head": 1.0}


class Network(NamedTuple):
    """Pure functions of the parameters; observations have any leading dims `...`."""

    init: Callable[..., PyTree]  # (key, log_std_init=0.0) -> params
    apply: Callable[[PyTree, Array], tuple[Any, Array]]  # -> (distribution [..., *D], value [...])
    value: Callable[[PyTree, Array], Array]  # -> value [...]; the critic alone


class _Body(NamedTuple):
    """What maps an observation to (policy output, features [..., F] or None, value [...]).

    The output is logits or a mean, [..., n] or [..., A], or a pair (mean, log_std).
    """

    init: Callable[[Array, Any], PyTree]  # (key, log_std_init) -> params
    apply: Callable[[PyTree, Array], tuple[Any, Any, Array]]
    value: Callable[[PyTree, Array], Array]
    log_std_shape: tuple[int, ...] | None  # of the log std that is a parameter, if one is


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
        body = _built_in(config, shape, family)
    else:
        body = _user_body(config, shape, family)
    categorical = MultiCategorical if isinstance(action_space, MultiDiscrete) else Categorical

    def init(key: Array, log_std_init: Any = 0.0) -> PyTree:
        params = {"body": body.init(key, log_std_init)}
        if body.log_std_shape is not None:
            params["log_std"] = jnp.full(body.log_std_shape, log_std_init, _float())
        return params

    def apply(params: PyTree, observation: Array) -> tuple[Any, Array]:
        output, features, value = body.apply(params["body"], observation.astype(_float()))
        if family.name == "categorical":
            return categorical(output), value
        if isinstance(output, tuple):
            mean, log_std = output
            return Gaussian(mean, clip_log_std(log_std)), value
        log_std = clip_log_std(params["log_std"])
        if family.name == "gsde":
            return state_dependent_noise(output, features, log_std), value
        return Gaussian(output, jnp.broadcast_to(log_std, output.shape)), value

    def value(params: PyTree, observation: Array) -> Array:
        return body.value(params["body"], observation.astype(_float()))

    return Network(init, apply, value), family


def _float() -> Any:
    """float32, or float64 where jax runs in double precision."""
    return jnp.result_type(float)


# Our own bodies -----------------------------------------------------------------------------------


class _Torso(nn.Module):
    """Hidden layers, after one convolution where the observation is a grid."""

    grid: bool
    hidden_sizes: tuple[int, ...]
    activation: str
    layer: dict[str, Any]  # dtype, precision and kernel_init of every layer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        activate = _ACTIVATIONS[self.activation]
        if self.grid:
            x = activate(nn.Conv(_CONV_FEATURES, _CONV_SIZE, padding="VALID", **self.layer)(x))
            x = _flatten(x, 3)
        for size in self.hidden_sizes:
            x = activate(nn.Dense(size, dot_general=dot_general, **self.layer)(x))
        return x


class _ActorCritic(nn.Module):
    config: Config
    grid: bool
    head_size: int

    def setup(self) -> None:
        dtype, precision = _PRECISIONS[self.config.precision]

        def layer(dtype: Any) -> dict[str, Any]:
            return {"dtype": dtype, "param_dtype": _float(), "precision": precision}

        def torso() -> _Torso:
            hidden = layer(dtype or _float())
            return _Torso(self.grid, self.config.hidden_sizes, self.config.activation, hidden)

        self.actor_torso = torso()
        if not self.config.shared_torso:
            self.critic_torso = torso()
        # Heads and what they give are never bfloat16: a ratio needs its digits.
        self.policy_head = nn.Dense(self.head_size, dot_general=dot_general, **layer(_float()))
        self.value_head = nn.Dense(1, **layer(_float()))

    def __call__(self, observation: Array) -> tuple[Array, Array, Array]:
        features = self.actor_torso(observation).astype(_float())
        output = self.policy_head(features)
        if self.config.shared_torso:
            return output, features, self.value_head(features)[..., 0]
        return output, features, self.value(observation)

    def value(self, observation: Array) -> Array:
        torso = self.actor_torso if self.config.shared_torso else self.critic_torso
        return self.value_head(torso(observation))[..., 0]


def _flatten(x: Array, rank: int) -> Array:
    """[..., *O] -> [..., O], O one-dimensional; a scalar becomes a vector of one."""
    lead = x.shape[: x.ndim - rank]
    return x.reshape((*lead, math.prod(x.shape[x.ndim - rank :])))


def _is_grid(config: Config, shape: tuple[int, ...]) -> bool:
    fits = len(shape) == 3 and shape[0] >= _CONV_SIZE[0] and shape[1] >= _CONV_SIZE[1]
    if config.torso == "cnn" and not fits:
        raise InputError(
            f"torso='cnn' needs a grid observation [height, width, channels] of at least 3 x 3, "
            f"but this environment's has shape {shape}; use mlp, or auto."
        )
    return fits and config.torso != "mlp"


def _built_in(config: Config, shape: tuple[int, ...], family: Family) -> _Body:
    grid = _is_grid(config, shape)
    module = _ActorCritic(config, grid, family.head_size)
    two_heads = family.name == "gaussian-state-std"
    size = family.head_size // 2 if two_heads else family.head_size

    def see(observation: Array) -> Array:
        return observation if grid else _flatten(observation, len(shape))

    def init(key: Array, log_std_init: Any) -> PyTree:
        start = module.init if not config.orthogonal_init else partial(_orthogonal, module.init)
        params: Any = start(key, see(jnp.zeros(shape, _float())))["params"]
        if two_heads:  # the head's second half is the log std
            params["policy_head"]["bias"] += jnp.zeros(2 * size).at[size:].set(log_std_init)
        return params

    def apply(params: PyTree, observation: Array) -> tuple[Any, Array, Array]:
        result: Any = module.apply({"params": params}, see(observation))
        output, features, value = result
        if two_heads:
            output = (output[..., :size], output[..., size:])
        return output, features, value

    def value(params: PyTree, observation: Array) -> Array:
        result: Any = module.apply({"params": params}, see(observation), method="value")
        return result

    log_std_shape = None
    if family.name in ("gaussian", "tanh-gaussian"):
        log_std_shape = (size,)
    elif family.name == "gsde":
        log_std_shape = (config.hidden_sizes[-1], size)
    return _Body(init, apply, value, log_std_shape)


def _orthogonal(start: Callable[..., PyTree], key: Array, observation: Array) -> PyTree:
    """The parameters of `start(key, observation)` with orthogonal kernels and biases of zero.

    The first columns of a random orthogonal matrix are as random as a matrix made of so many. So
    kernels with an equal longer side come from one batch of matrices: a decomposition for each
    would be the larger part of what there is to compile before training.
    """
    shapes = jax.eval_shape(start, key, observation)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    params = [jnp.zeros(leaf.shape, leaf.dtype) for _, leaf in leaves]
    sides = [(math.prod(leaf.shape[:-1]), leaf.shape[-1]) for _, leaf in leaves]
    kernels = [i for i, (path, _) in enumerate(leaves) if path[-1].key == "kernel"]
    for longer in sorted({max(sides[i]) for i in kernels}):
        chosen = [i for i in kernels if max(sides[i]) == longer]
        drawn = (len(chosen), longer, max(min(sides[i]) for i in chosen))
        q, r = jnp.linalg.qr(jax.random.normal(jax.random.fold_in(key, longer), drawn, _float()))
        q *= jnp.sign(jnp.diagonal(r, axis1=1, axis2=2))[:, None]  # Mezzadri 2007: uniform
        for i, matrix in zip(chosen, q, strict=True):
            path, leaf = leaves[i]
            names = {part.key for part in path} & set(_GAINS)
            gain = _GAINS[names.pop()] if names else math.sqrt(2.0)
            few = matrix[:, : min(sides[i])]
            kernel = few if sides[i][0] == longer else few.T
            params[i] = (gain * kernel).reshape(leaf.shape).astype(leaf.dtype)
    return jax.tree.unflatten(treedef, params)


def _user_body(config: Config, shape: tuple[int, ...], family: Family) -> _Body:
    own = wrap_network(config.network, shape, family.name, family.head_size)
    return _Body(
        init=lambda key, log_std_init: own.init(key),
        apply=lambda params, observation: _without_features(own.apply(params, observation)),
        value=lambda params, observation: own.apply(params, observation)[1],
        log_std_shape=own.log_std_shape,
    )


def _without_features(result: tuple[Any, Array]) -> tuple[Any, None, Array]:
    output, value = result
    return output, None, value
