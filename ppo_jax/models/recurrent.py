"""Recurrent cores between torso and heads: each is one row of a table and four pure functions.

A core takes the torso's features [..., F] and its memory, and gives features [..., H]. The memory
is the one *before* the observation is seen. An episode's first step starts from `start`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.kernels.orthogonal import orthogonal
from ppo_jax.kernels.select import where_rows
from ppo_jax.models.body import Body
from ppo_jax.rl.types import PyTree, Window

HIGHEST = jax.lax.Precision.HIGHEST


class Core(NamedTuple):
    """A recurrent layer of H features; memory is a tree [B, ...]."""

    init: Callable[[Array, int, int], PyTree]  # (key, F, H) -> params
    start: Callable[[int, int], PyTree]  # (B, H) -> memory [B, ...]
    step: Callable[[PyTree, PyTree, Array], PyTree]  # (params, memory, x [B, F]) -> memory
    output: Callable[[PyTree], Array]  # memory [..., ] -> features [..., H]


class Parts(NamedTuple):
    """A feed-forward network cut between torso and heads; functions of its parameters."""

    init: Callable[[Array, Any], PyTree]  # (key, log_std_init) -> params
    actor: Callable[[PyTree, PyTree], Array]  # observation -> features [..., F]
    critic: Callable[[PyTree, PyTree], Array]  # the same function if the torso is shared
    policy_head: Callable[[PyTree, Array], Any]  # features [..., H] -> output
    value_head: Callable[[PyTree, Array], Array]
    log_std_shape: tuple[int, ...] | None


def make_recurrent_body(config: Config, parts: Parts) -> Body:
    """Build a body with a core each for actor and critic, or one core for a shared torso."""
    core, size = CORES[config.memory], config.memory_size
    names = ("actor",) if config.shared_torso else ("actor", "critic")
    torsos = {"actor": parts.actor, "critic": parts.critic}
    critic = names[-1]

    def init(key: Array, log_std_init: Any) -> PyTree:
        keys = jax.random.split(key, 1 + len(names))
        cores = [core.init(each, config.hidden_sizes[-1], size) for each in keys[1:]]
        return {"net": parts.init(keys[0], log_std_init), **dict(zip(names, cores, strict=True))}

    def start(params: PyTree, num_envs: int) -> PyTree:
        return {name: core.start(num_envs, size) for name in names}

    def advance(params: PyTree, name: str, memory: PyTree, observation: PyTree) -> PyTree:
        return core.step(params[name], memory, torsos[name](params["net"], observation))

    def scan(params: PyTree, name: str, window: Window) -> PyTree:
        """Memory after each row of whole environments [B x T, ...]."""
        memory = window.memory[name]
        num_envs = jax.tree.leaves(memory)[0].shape[0]

        def in_time(leaf: Array) -> Array:  # [B x T, ...] -> [T, B, ...]
            return jnp.swapaxes(leaf.reshape(num_envs, -1, *leaf.shape[1:]), 0, 1)

        def by_environment(leaf: Array) -> Array:  # and back
            return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

        features = in_time(torsos[name](params["net"], window.observation))
        fresh = core.start(num_envs, size)

        def step(memory: PyTree, inputs: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
            x, reset = inputs
            memory = core.step(params[name], where_rows(reset, fresh, memory), x)
            return memory, memory

        after = jax.lax.scan(step, memory, (features, in_time(jnp.asarray(window.reset))))[1]
        return jax.tree.map(by_environment, after)

    def policy_of(params: PyTree, memory: PyTree) -> tuple[Any, Array]:
        features = core.output(memory)
        return parts.policy_head(params["net"], features), features

    def value_of(params: PyTree, memory: PyTree) -> Array:
        return parts.value_head(params["net"], core.output(memory))

    def act(params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, Any, Any]:
        own = advance(params, "actor", memory["actor"], observation)
        return {**memory, "actor": own}, *policy_of(params, own)

    def apply(params: PyTree, window: Window) -> tuple[Any, Any, Array]:
        after = {name: scan(params, name, window) for name in names}
        return *policy_of(params, after["actor"]), value_of(params, after[critic])

    def values(params: PyTree, window: Window) -> tuple[Array, PyTree]:
        after = scan(params, critic, window)
        return value_of(params, after), after

    return Body(
        init=init,
        start=start,
        act=act,
        apply=apply,
        policy=lambda params, window: policy_of(params, scan(params, "actor", window)),
        values=values,
        value_after=lambda params, memory, observation: value_of(
            params, advance(params, critic, memory, observation)
        ),
        carry_on=lambda memory, after: {**memory, critic: after},
        log_std_shape=parts.log_std_shape,
    )


def _gru_init(key: Array, num_inputs: int, size: int) -> PyTree:
    key_input, key_memory = jax.random.split(key)
    from_input = orthogonal(key_input, [(num_inputs, size)] * 3)
    from_memory = orthogonal(key_memory, [(size, size)] * 3)
    return {
        "input": jnp.concatenate(from_input, axis=1),  # [F, 3 H]: reset, update, candidate
        "memory": jnp.concatenate(from_memory, axis=1),  # [H, 3 H]
        "bias": jnp.zeros(3 * size, from_input[0].dtype),
        "memory_bias": jnp.zeros(size, from_input[0].dtype),  # bias of the candidate
    }


def _gru_step(params: PyTree, memory: Array, x: Array) -> Array:
    """h' = (1 - z) n + z h, n = tanh(W x + r (U h + c))  (Cho et al. 2014; cuDNN's variant)."""
    given = jnp.matmul(x, params["input"], precision=HIGHEST) + params["bias"][None]
    own = jnp.matmul(memory, params["memory"], precision=HIGHEST)
    reset, update, candidate = jnp.split(given, 3, axis=-1)
    own_reset, own_update, own_candidate = jnp.split(own, 3, axis=-1)
    reset = jax.nn.sigmoid(reset + own_reset)
    update = jax.nn.sigmoid(update + own_update)
    candidate = jnp.tanh(candidate + reset * (own_candidate + params["memory_bias"][None]))
    return (1.0 - update) * candidate + update * memory


def _zeros(num_envs: int, size: int) -> Array:
    return jnp.zeros((num_envs, size), jnp.result_type(float))


def _identity(memory: Any) -> Any:
    return memory


CORES: dict[str, Core] = {"gru": Core(_gru_init, _zeros, _gru_step, _identity)}
