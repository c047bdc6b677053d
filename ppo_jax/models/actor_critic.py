"""Built-in networks: actor and critic, separate or on one torso, with or without a core.

A *body* maps observations to the policy's raw output, its last features and the value; `network`
gives the output its meaning. `GAINS` holds the gains of the orthogonal initialisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import critic_view, has_views
from ppo_jax.kernels.backend import is_accelerator
from ppo_jax.kernels.matmul import dot_general
from ppo_jax.kernels.orthogonal import orthogonal
from ppo_jax.models.body import Body, feed_forward
from ppo_jax.models.policy_head import Family, split_output
from ppo_jax.models.recurrent import Parts, make_recurrent_body
from ppo_jax.models.torsos import PRECISIONS, Encoder, LeafCode, Torso, real
from ppo_jax.rl.types import PyTree

# Gains of the orthogonal initialisation. The small one makes the first policy nearly uniform
# (Andrychowicz et al. 2021, 3.2). Other layers have the square root of 2.
GAINS = {"policy_head": 0.01, "value_head": 1.0}


class ActorCritic(nn.Module):
    """Torsos and heads. Heads and their outputs are never bfloat16: ratios need the precision."""

    config: Config
    grids: tuple[bool, ...]
    head_size: int
    critic_grids: tuple[bool, ...]  # the same, unless the critic has a view of its own
    kernel_init: Callable[..., Array] = nn.initializers.zeros  # flax traces it at every call

    def setup(self) -> None:
        dtype, precision = PRECISIONS[self.config.precision]

        def layer(dtype: Any) -> dict[str, Any]:
            return {
                "dtype": dtype,
                "param_dtype": real(),
                "precision": precision,
                "kernel_init": self.kernel_init,
            }

        def torso(grids: tuple[bool, ...]) -> Torso:
            sizes = self.config.hidden_sizes
            return Torso(grids, sizes, self.config.activation, layer(dtype or real()))

        self.actor_torso = torso(self.grids)
        if not self.config.shared_torso:
            self.critic_torso = torso(self.critic_grids)
        self.policy_head = nn.Dense(self.head_size, dot_general=dot_general, **layer(real()))
        self.value_head = nn.Dense(1, **layer(real()))

    def __call__(
        self, leaves: tuple[Array, ...], critics: tuple[Array, ...] | None = None
    ) -> tuple[Array, Array, Array]:
        """Call all layers to make the parameters. The heads follow a core if there is one.

        Args:
            critics: the critic's leaves, if they are others.
        """
        critics = leaves if critics is None else critics
        if self.config.memory != "none":
            torsos = [self.features(leaves), self.critic_features(critics)]
            own = jnp.zeros((*torsos[0].shape[:-1], self.config.memory_size), real())
            return self.heads(own, own)
        output, features = self.policy(leaves)
        if self.config.shared_torso:
            return output, features, self.value_of(features)
        return output, features, self.value(critics)

    def features(self, leaves: tuple[Array, ...]) -> Array:
        return self.actor_torso(leaves).astype(real())

    def critic_features(self, leaves: tuple[Array, ...]) -> Array:
        torso = self.actor_torso if self.config.shared_torso else self.critic_torso
        return torso(leaves)

    def policy(self, leaves: tuple[Array, ...]) -> tuple[Array, Array]:
        features = self.features(leaves)
        return self.policy_of(features), features

    def policy_of(self, features: Array) -> Array:
        return self.policy_head(features)

    def value(self, leaves: tuple[Array, ...]) -> Array:
        return self.value_of(self.critic_features(leaves))

    def value_of(self, features: Array) -> Array:
        return self.value_head(features)[..., 0]

    def heads(self, actor: Array, critic: Array) -> tuple[Array, Array, Array]:
        return self.policy_head(actor), actor, self.value_of(critic)


def make_body(
    config: Config, observation: PyTree, family: Family, codes: tuple[LeafCode, ...] = ()
) -> Body:
    """Build the body that `config` describes.

    Args:
        observation: tree of `jax.ShapeDtypeStruct`, of one environment. codes: see `Encoder`.

    Raises:
        InputError: a convolution is asked for and no leaf is a grid, or one torso for two views.
    """
    encode = Encoder(config, observation, codes)
    encoders, critic = (encode,), encode
    if has_views(observation):
        critic = Encoder(config, observation, codes, critic_view)
        encoders = (encode, critic)
        if config.shared_torso:
            raise InputError(
                "shared_torso=True gives actor and critic one body, and this environment shows the "
                "critic more than the actor: leave --shared-torso out."
            )
    module = ActorCritic(config, encode.grids, family.head_size, critic.grids)
    two_heads, size = family.name == "gaussian-state-std", family.num_reals

    def init(key: Array, log_std_init: Any) -> PyTree:
        params: Any = start_params(config, module, key, [e.example() for e in encoders])
        if two_heads:  # the head's last outputs are the log std
            first = family.head_size - size
            bias = jnp.zeros(family.head_size).at[first:].set(log_std_init)
            params["policy_head"]["bias"] += bias
        return params

    def call(method: str | None, params: PyTree, *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    meaning = partial(split_output, family)

    def apply(params: PyTree, observation: PyTree) -> tuple[Any, Array, Array]:
        # Batching both networks would copy too much for wide observations and convolutions.
        is_alike = not (config.shared_torso or has_views(observation))
        is_stacked = encode.is_narrow and is_alike and is_accelerator()
        run = partial(stacked, call) if is_stacked else partial(call, None)
        output, features, value = run(params, *(each(observation) for each in encoders))
        return meaning(output), features, value

    def policy(params: PyTree, observation: PyTree) -> tuple[Any, Array]:
        output, features = call("policy", params, encode(observation))
        return meaning(output), features

    def value(params: PyTree, observation: PyTree) -> Array:
        return call("value", params, critic(observation))

    log_std_shape = None
    if family.name in ("gaussian", "tanh-gaussian"):
        log_std_shape = (size,)
    elif family.name == "gsde":
        width = config.hidden_sizes[-1] if config.memory == "none" else config.memory_size
        log_std_shape = (width, size)
    if config.memory != "none":
        parts = Parts(
            init=init,
            actor=lambda params, observation: call("features", params, encode(observation)),
            critic=lambda params, observation: call("critic_features", params, critic(observation)),
            policy_head=lambda params, features: meaning(call("policy_of", params, features)),
            value_head=lambda params, features: call("value_of", params, features),
            log_std_shape=log_std_shape,
        )
        return make_recurrent_body(config, parts)
    return feed_forward(init, apply, policy, value, log_std_shape)


def stacked(
    call: Callable[..., Any], params: PyTree, leaves: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    """Actor and critic as one batched network: half the kernels."""
    torsos = (params["actor_torso"], params["critic_torso"])
    torsos = jax.tree.map(lambda *pair: jnp.stack(pair), *torsos)
    both = jax.vmap(lambda torso, x: call("features", {"actor_torso": torso}, x))
    seen = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, *leaf.shape)), leaves)
    return call("heads", params, *both(torsos, seen))


def start_params(
    config: Config, module: ActorCritic, key: Array, examples: Sequence[tuple[Array, ...]]
) -> PyTree:
    """Parameters before training: orthogonal kernels and zero biases, or LeCun's normal ones."""
    if not config.orthogonal_init:
        plain = module.clone(kernel_init=nn.initializers.lecun_normal())
        return plain.init(key, *examples)["params"]
    shapes = jax.eval_shape(module.init, key, *examples)["params"]
    leaves, treedef = jax.tree_util.tree_flatten_with_path(shapes)
    params = [jnp.zeros(leaf.shape, leaf.dtype) for _, leaf in leaves]
    kernels = [i for i, (path, _) in enumerate(leaves) if path[-1].key == "kernel"]
    sides = [(math.prod(leaves[i][1].shape[:-1]), leaves[i][1].shape[-1]) for i in kernels]
    for i, matrix in zip(kernels, orthogonal(key, sides), strict=True):
        path, leaf = leaves[i]
        names = {part.key for part in path} & set(GAINS)
        gain = GAINS[names.pop()] if names else math.sqrt(2.0)
        params[i] = (gain * matrix).reshape(leaf.shape).astype(leaf.dtype)
    return jax.tree.unflatten(treedef, params)
