"""The policy of a run folder as a plain JAX function."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from ppo_jax.apps.export.numpy_policy import read
from ppo_jax.apps.export.predict import LoadedPolicy
from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Trust
from ppo_jax.envs import leaves
from ppo_jax.envs.actions import own_actions
from ppo_jax.envs.interface import ObservationSpace
from ppo_jax.models.agent import acting_policy, assemble, env_params, has_memory, without_critic
from ppo_jax.rl.types import PyTree
from ppo_jax.runtime.saved_run import load_member
from ppo_jax.training import evaluation


def run_policy(
    run: Path | str,
    *,
    seed_index: int = 0,
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> LoadedPolicy:
    """The policy of a run folder as a JAX function; for its arguments see `load_policy`.

    Raises:
        InputError: also by the function: an observation of another shape, or no whole number of the
            environment's where it shows whole numbers.
    """
    config, hyper, member = load_member(run, seed_index, env, network, "seed_index", trust)
    parts = assemble(config)
    world = env_params(parts.environment, hyper)
    acting = acting_policy(config, parts, member.params, member.observation_moments, world)
    parts, acting = without_critic(config, parts, acting)
    environment = parts.environment
    spaces, mask_size = leaves.shown(environment), leaves.mask_size(environment)
    shapes = {name: tuple(space.shape) for name, space in spaces.items()}

    @jax.jit
    def act(memory: PyTree, rows: dict[str, Array], key: Array | None) -> tuple[PyTree, Any]:
        stored = jax.vmap(partial(leaves.to_stored, environment))(rows)
        noise, key_action = (), None
        if key is not None:
            key_noise, key_action = jax.random.split(key)
            noise = acting.family.draw_noise(key_noise, jax.tree.leaves(rows)[0].shape[0])
        memory, action = evaluation.act(acting, memory, stored, noise, key_action)
        return memory, own_actions(environment, action)

    def read_rows(observation: Any, legal: Any) -> tuple[dict[str, Array], bool]:
        try:
            rows, is_one = read(shapes, mask_size, observation, legal, jnp.asarray)
        except ValueError as error:
            raise InputError(str(error)) from error
        for name, space in spaces.items():
            require_number(space, rows[name])
        return rows, is_one

    if not has_memory(parts.network):

        def policy(observation: Any, key: Array | None = None, legal: Any = None) -> Any:
            rows, is_one = read_rows(observation, legal)
            action = act((), rows, key)[1]
            return as_given(observation, action, is_one)

        return LoadedPolicy(policy, sampling=sampling)

    def start(n: int | None = None) -> PyTree:
        memory = acting.network.start(acting.params, 1 if n is None else n)["actor"]
        return jax.tree.map(lambda leaf: leaf[0], memory) if n is None else memory

    def remember(
        observation: Any, memory: Any = None, key: Array | None = None, legal: Any = None
    ) -> tuple[Any, PyTree]:
        rows, is_one = read_rows(observation, legal)
        count = None if is_one else jax.tree.leaves(rows)[0].shape[0]
        require_memory(start(count), memory)
        if is_one:
            memory = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], memory)
        after, action = act({"actor": memory}, rows, key)
        after = jax.tree.map(lambda leaf: leaf[0], after) if is_one else after
        return as_given(observation, action, is_one), after["actor"]

    return LoadedPolicy(remember, start, sampling=sampling)


def sampling(call: int) -> Array:
    """The key of the sampled action of one call of `predict`."""
    return jax.random.fold_in(jax.random.key(0), call)


def as_given(observation: PyTree, action: PyTree, is_one: bool) -> PyTree:
    """`action` as NumPy arrays unless the observation is jax's own; its one row if there is one."""
    is_jax = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(observation))
    is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(action))
    found = action if is_jax or is_traced else jax.tree.map(np.asarray, action)
    return jax.tree.map(lambda leaf: leaf[0], found) if is_one else found


def require_memory(start: PyTree, memory: Any) -> None:
    """Refuse a recurrent policy without its memory: it would silently act differently."""
    if jax.tree.map(jnp.shape, start) != jax.tree.map(jnp.shape, memory):
        raise InputError(
            "This policy has a memory: call it as action, memory = policy(observation, memory), "
            "with memory = policy.start() at the start of an episode, or policy.start(n) of n."
        )


def require_number(space: ObservationSpace, rows: Array) -> None:
    """Refuse what is no whole number of an environment that shows whole numbers."""
    if not space.is_number:
        return
    rule = f"this policy takes one whole number from {space.low} to {space.high}, or [n] of them."
    if not jnp.issubdtype(rows.dtype, jnp.integer):
        raise InputError(f"An observation of {rows.dtype} does not fit: {rule}")
    if isinstance(rows, Tracer):
        return
    outside = (rows < space.low) | (rows > space.high)
    if outside.any():
        raise InputError(f"The observation {rows[outside][0]} does not fit: {rule}")
