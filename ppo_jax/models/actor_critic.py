"""Our own networks: MLP or CNN, actor and critic apart or on one torso. All flax code is here.

A *body* maps observations to the policy's raw output, its last features and the value; what the
output means is said in `networks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.kernels.backend import is_cpu
from ppo_jax.kernels.matmul import dot_general
from ppo_jax.kernels.packing import WIDEST
from ppo_jax.models.policy_head import Family
from ppo_jax.rl.types import PyTree

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


class Body(NamedTuple):
    """What maps an observation to (policy output, features [..., F] or None, value [...]).

    The output is logits or a mean, [..., n] or [..., A], or a pair (mean, log_std).
    """

    init: Callable[[Array, Any], PyTree]  # (key, log_std_init) -> params
    apply: Callable[[PyTree, Array], tuple[Any, Any, Array]]
    policy: Callable[[PyTree, Array], tuple[Any, Any]]  # -> (policy output, features)
    value: Callable[[PyTree, Array], Array]
    log_std_shape: tuple[int, ...] | None  # of the log std that is a parameter, if one is


def real() -> Any:
    """float32, or float64 where jax runs in double precision."""
    return jnp.result_type(float)


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
    kernel_init: Callable[..., Array] = nn.initializers.zeros  # flax traces it at every call

    def setup(self) -> None:
        dtype, precision = _PRECISIONS[self.config.precision]

        def layer(dtype: Any) -> dict[str, Any]:
            return {
                "dtype": dtype,
                "param_dtype": real(),
                "precision": precision,
                "kernel_init": self.kernel_init,
            }

        def torso() -> _Torso:
            hidden = layer(dtype or real())
            return _Torso(self.grid, self.config.hidden_sizes, self.config.activation, hidden)

        self.actor_torso = torso()
        if not self.config.shared_torso:
            self.critic_torso = torso()
        # Heads and what they give are never bfloat16: a ratio needs its digits.
        self.policy_head = nn.Dense(self.head_size, dot_general=dot_general, **layer(real()))
        self.value_head = nn.Dense(1, **layer(real()))

    def __call__(self, observation: Array) -> tuple[Array, Array, Array]:
        output, features = self.policy(observation)
        if self.config.shared_torso:
            return output, features, self.value_of(features)
        return output, features, self.value(observation)

    def features(self, observation: Array) -> Array:
        return self.actor_torso(observation).astype(real())

    def policy(self, observation: Array) -> tuple[Array, Array]:
        features = self.features(observation)
        return self.policy_head(features), features

    def value(self, observation: Array) -> Array:
        torso = self.actor_torso if self.config.shared_torso else self.critic_torso
        return self.value_of(torso(observation))

    def value_of(self, features: Array) -> Array:
        return self.value_head(features)[..., 0]

    def heads(self, actor: Array, critic: Array) -> tuple[Array, Array, Array]:
        return self.policy_head(actor), actor, self.value_of(critic)


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


def built_in(config: Config, shape: tuple[int, ...], family: Family) -> Body:
    """The body that `config` describes, for observations [..., *shape].

    Raises:
        InputError: a convolution is asked for and the observation is no grid.
    """
    grid = _is_grid(config, shape)
    module = _ActorCritic(config, grid, family.head_size)
    two_heads = family.name == "gaussian-state-std"
    size = family.head_size // 2 if two_heads else family.head_size

    def see(observation: Array) -> Array:
        return observation if grid else _flatten(observation, len(shape))

    plain = module.clone(kernel_init=nn.initializers.lecun_normal()).init
    start = partial(_orthogonal, module.init) if config.orthogonal_init else plain

    def init(key: Array, log_std_init: Any) -> PyTree:
        params: Any = start(key, see(jnp.zeros(shape, real())))["params"]
        if two_heads:  # the head's second half is the log std
            params["policy_head"]["bias"] += jnp.zeros(2 * size).at[size:].set(log_std_init)
        return params

    def call(method: str | None, params: PyTree, *args: Array) -> Any:
        return module.apply({"params": params}, *args, method=method)

    def halves(output: Array) -> Any:
        return (output[..., :size], output[..., size:]) if two_heads else output

    # Of wide observations and convolutions a batched network would move too much.
    is_narrow = not grid and math.prod(shape) <= WIDEST

    def stacked(params: PyTree, observation: Array) -> tuple[Array, Array, Array]:
        """Actor and critic as one batched network: half the kernels."""
        torsos = (params["actor_torso"], params["critic_torso"])
        torsos = jax.tree.map(lambda *leaves: jnp.stack(leaves), *torsos)
        both = jax.vmap(lambda torso, x: call("features", {"actor_torso": torso}, x))
        seen = jnp.broadcast_to(observation, (2, *observation.shape))
        return call("heads", params, *both(torsos, seen))

    def apply(params: PyTree, observation: Array) -> tuple[Any, Array, Array]:
        is_stacked = is_narrow and not config.shared_torso and not is_cpu()
        run = stacked if is_stacked else partial(call, None)
        output, features, value = run(params, see(observation))
        return halves(output), features, value

    def policy(params: PyTree, observation: Array) -> tuple[Any, Array]:
        output, features = call("policy", params, see(observation))
        return halves(output), features

    def value(params: PyTree, observation: Array) -> Array:
        return call("value", params, see(observation))

    log_std_shape = None
    if family.name in ("gaussian", "tanh-gaussian"):
        log_std_shape = (size,)
    elif family.name == "gsde":
        log_std_shape = (config.hidden_sizes[-1], size)
    return Body(init, apply, policy, value, log_std_shape)


def _orthonormal(x: Array) -> Array:
    """Uniform matrices [..., n, k] with orthonormal columns from standard normal ones, k <= n.

    They are the polar factors of x, found by the iteration of Newton and Schulz (Higham 2008,
    Functions of Matrices, eq. 8.20): products alone, where a QR decomposition would be the larger
    part of what there is to load and to compile before training. Turning x by a rotation turns the
    factor alike, so it is as uniform as a QR's.
    """
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    identity = jnp.eye(x.shape[-1], dtype=x.dtype)

    def step(loop: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, distance, _, turn = loop
        factor = 1.5 * identity - 0.5 * product(jnp.swapaxes(x, -1, -2), x)  # at the end, identity
        return product(x, factor), jnp.max(jnp.abs(factor - identity)), distance, turn + 1

    def is_far(loop: tuple[Array, Array, Array, Array]) -> Array:
        _, _, distance, turn = loop  # of the turn before the last: each squares what is left
        return (distance > 5e-4) & (turn < 100)

    x /= jnp.linalg.norm(x, axis=(-2, -1), keepdims=True)  # no singular value beyond 1
    far = jnp.full((), jnp.inf, x.dtype)
    return jax.lax.while_loop(is_far, step, (x, far, far, jnp.zeros((), jnp.int32)))[0]


def _orthogonal(start: Callable[..., PyTree], key: Array, observation: Array) -> PyTree:
    """The parameters of `start(key, observation)` with orthogonal kernels and biases of zero.

    The first columns of a random orthogonal matrix are as random as a matrix made of so many. So
    kernels with an equal longer side come from two batches of matrices, one of the narrow ones.
    """
    shapes = jax.eval_shape(start, key, observation)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    params = [jnp.zeros(leaf.shape, leaf.dtype) for _, leaf in leaves]
    sides = [(math.prod(leaf.shape[:-1]), leaf.shape[-1]) for _, leaf in leaves]
    kernels = [i for i, (path, _) in enumerate(leaves) if path[-1].key == "kernel"]
    kinds = [(max(sides[i]), 4 * min(sides[i]) <= max(sides[i])) for i in kernels]
    found = sorted(set(kinds))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(found)))
    for key, kind in zip(keys, found, strict=True):
        chosen = [i for i, each in zip(kernels, kinds, strict=True) if each == kind]
        longer = kind[0]
        drawn = (len(chosen), longer, max(min(sides[i]) for i in chosen))
        q = _orthonormal(jax.random.normal(key, drawn, real()))
        for i, matrix in zip(chosen, q, strict=True):
            path, leaf = leaves[i]
            names = {part.key for part in path} & set(_GAINS)
            gain = _GAINS[names.pop()] if names else math.sqrt(2.0)
            few = matrix[:, : min(sides[i])]
            kernel = few if sides[i][0] == longer else few.T
            params[i] = (gain * kernel).reshape(leaf.shape).astype(leaf.dtype)
    return jax.tree.unflatten(treedef, params)
