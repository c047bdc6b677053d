"""Networks with a memory, made of streams: one each for actor and critic, or one for both.

A stream takes observations and its memory, and gives features for the heads. A built-in stream is
a torso with a core on it; a user's network is one stream as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config
from ppo_jax.models.attention import CoreShape
from ppo_jax.models.body import Body
from ppo_jax.models.cores import find_core
from ppo_jax.rl.types import PyTree, Window


class Stream(NamedTuple):
    """A function of the observations so far; its memory is a tree [B, ...]."""

    start: Callable[[PyTree, int], PyTree]  # (params, B) -> memory of a new episode
    step: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Any]]
    # (params, memory, observation [B, *O]) -> (memory, features [B, ...])
    scan: Callable[[PyTree, PyTree, Window], tuple[PyTree, Any]]
    # (params, memory, rows [B x T]) -> the same after each row, [B x T, ...]


class Heads(NamedTuple):
    """Parameters of a network, and what it makes of features."""

    init: Callable[[Array, Any], PyTree]  # (key, log_std_init) -> params
    policy: Callable[[PyTree, Any], tuple[Any, Any]]  # features -> (output, features)
    value: Callable[[PyTree, Any], Array]
    log_std_shape: tuple[int, ...] | None


class Parts(NamedTuple):
    """A feed-forward network cut between torso and heads; functions of its parameters."""

    init: Callable[[Array, Any], PyTree]  # (key, log_std_init) -> params
    actor: Callable[[PyTree, PyTree], Array]  # observation -> features [..., F]
    critic: Callable[[PyTree, PyTree], Array]  # the same function if the torso is shared
    policy_head: Callable[[PyTree, Array], Any]  # features [..., H] -> output
    value_head: Callable[[PyTree, Array], Array]
    log_std_shape: tuple[int, ...] | None


def join_streams(streams: Mapping[str, Stream], heads: Heads) -> Body:
    """A body of a stream each for "actor" and "critic", or of "actor" alone for both."""
    critic = "critic" if "critic" in streams else "actor"

    def scan(params: PyTree, name: str, window: Window) -> tuple[PyTree, Any]:
        return streams[name].scan(params, window.memory[name], window)

    def act(params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, Any, Any]:
        own, features = streams["actor"].step(params, memory["actor"], observation)
        return {**memory, "actor": own}, *heads.policy(params, features)

    def apply(params: PyTree, window: Window) -> tuple[Any, Any, Array]:
        features = {name: scan(params, name, window)[1] for name in streams}
        return *heads.policy(params, features["actor"]), heads.value(params, features[critic])

    def values(params: PyTree, window: Window) -> tuple[Array, PyTree]:
        after, features = scan(params, critic, window)
        return heads.value(params, features), after

    def value_after(params: PyTree, memory: PyTree, observation: PyTree) -> Array:
        return heads.value(params, streams[critic].step(params, memory, observation)[1])

    return Body(
        init=heads.init,
        start=lambda params, n: {name: each.start(params, n) for name, each in streams.items()},
        act=act,
        apply=apply,
        policy=lambda params, window: heads.policy(params, scan(params, "actor", window)[1]),
        values=values,
        value_after=value_after,
        carry_on=lambda memory, after: {**memory, critic: after},
        log_std_shape=heads.log_std_shape,
    )


def make_recurrent_body(config: Config, parts: Parts) -> Body:
    """A built-in network with a core each for actor and critic, or one core for a shared torso."""
    core = find_core(config)
    shape = CoreShape(config.hidden_sizes[-1], config.memory_size, config.memory_window)
    names = ("actor",) if config.shared_torso else ("actor", "critic")
    torsos = {"actor": parts.actor, "critic": parts.critic}

    def init(key: Array, log_std_init: Any) -> PyTree:
        keys = jax.random.split(key, 1 + len(names))
        cores = {name: core.init(k, shape) for name, k in zip(names, keys[1:], strict=True)}
        params = {"net": parts.init(keys[0], log_std_init), **cores}
        if config.memory_start == "learned":
            zeros = jax.tree.map(lambda leaf: leaf[0], core.start(1, shape))
            params["start"] = dict.fromkeys(names, zeros)
        return params

    def stream(name: str) -> Stream:
        def start(params: PyTree, num_envs: int) -> PyTree:
            if config.memory_start == "zero":
                return core.start(num_envs, shape)
            return jax.tree.map(
                lambda leaf: jnp.broadcast_to(leaf, (num_envs, *leaf.shape)), params["start"][name]
            )

        def step(params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, Array]:
            return core.step(params[name], memory, torsos[name](params["net"], observation))

        def scan(params: PyTree, memory: PyTree, window: Window) -> tuple[PyTree, Array]:
            num_envs = count_envs(memory)
            x = torsos[name](params["net"], window.observation)
            x, reset = in_time((x, window.reset), num_envs)
            found = core.scan(params[name], memory, x, reset, start(params, num_envs))
            return by_rows(found)

        return Stream(start, step, scan)

    heads = Heads(
        init=init,
        policy=lambda params, x: (parts.policy_head(params["net"], x), x),
        value=lambda params, x: parts.value_head(params["net"], x),
        log_std_shape=parts.log_std_shape,
    )
    return join_streams({name: stream(name) for name in names}, heads)


def count_envs(memory: PyTree) -> int:
    """B of a memory [B, ...]."""
    return jax.tree.leaves(memory)[0].shape[0]


def in_time(rows: PyTree, num_envs: int) -> PyTree:
    """Rows of whole environments [B x T, ...] as [T, B, ...]."""

    def turned(leaf: Array) -> Array:
        return jnp.swapaxes(leaf.reshape(num_envs, -1, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(turned, rows)


def by_rows(steps: PyTree) -> PyTree:
    """[T, B, ...] as rows of whole environments [B x T, ...]."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), steps)
