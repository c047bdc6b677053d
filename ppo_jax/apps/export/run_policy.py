"""A trained policy as a plain JAX function, of a run folder or of a state."""

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
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Trust
from ppo_jax.config.validate import check_order
from ppo_jax.config.values import short
from ppo_jax.envs import leaves
from ppo_jax.envs.actions import own_actions
from ppo_jax.envs.interface import ObservationSpace
from ppo_jax.models.agent import acting_policy, assemble, env_params, has_memory, without_critic
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.runtime.saved_run import check_member, load_member
from ppo_jax.training import evaluation


def run_policy(
    run: Path | str,
    *,
    seed_index: int = 0,
    checkpoint: str | int = "newest",
    env: Any = None,
    network: Any = None,
    trust: Trust = False,
) -> LoadedPolicy:
    """The policy of a run folder as a JAX function; for its arguments see `load_policy`.

    Raises:
        InputError: as `load_policy`; the function raises it as that of `make_policy`.
    """
    config, hyper, member = load_member(
        run, seed_index, env, network, "seed_index", trust, checkpoint
    )
    return function_of(config, hyper, member)


def make_policy(
    config: Config, hyper: Hyper[Any], state: TrainState, *, seed_index: int | None = None
) -> LoadedPolicy:
    """The policy of a state of `init`, `iterate` or `train` as a function observation -> action.

    It holds the state's parameters and normaliser as they are now.

    Args:
        config, hyper: those that the state was trained with. A policy reads only the environment's
            own parameters in `hyper`, such as the bounds of its actions.
        state: the state of one seed, or of S seeds: each leaf [S, ...].
        seed_index: which of the S seeds, counted from 0; None for a state of one seed.

    Returns:
        the same function as `load_policy` of a run folder, with `predict` and, if the policy has
        a memory, `start`. Jit and vmap may enclose this call, too.

    Raises:
        InputError: a state of several seeds without `seed_index`, no such seed, or parameters of
            other shapes than those of `config`. Shapes alone are checked: another `activation` or
            `normalize_observations` gives other actions without an error. The function raises it
            for an observation of another shape, and for no whole number if the environment shows
            whole numbers.
    """
    check_order(config, hyper)
    if not isinstance(state, TrainState):
        raise InputError(
            f"make_policy takes a state of init, iterate or train, and not a "
            f"{type(state).__name__}: train returns the pair of a state and its metrics."
        )
    if seed_index is not None or jnp.ndim(state.iteration):
        state = seed_of(state, seed_index)
    network = assemble(config).network
    wanted = jax.eval_shape(network.init, jax.random.key(0))
    if jax.tree.map(jnp.shape, wanted) != jax.tree.map(jnp.shape, state.params):
        raise InputError(
            "The state's parameters are not those of this config: give the config that the state "
            "was trained with."
        )
    return function_of(config, hyper, state)


def seed_of(state: TrainState, seed_index: int | None) -> TrainState:
    """The state of one of S seeds, without their axis.

    Raises:
        InputError: the state has another number of axes, or no such seed.
    """
    axes = list(jnp.shape(state.iteration))
    if len(axes) != 1:
        more = f"has the leading axes {axes}" if axes else "is of one seed"
        remedy = "take one seed by jax.tree.map(lambda leaf: leaf[i, j], state)"
        raise InputError(
            f"seed_index={seed_index} needs a state [S, ...], and this one {more}: "
            f"{remedy if axes else 'leave seed_index out'}."
        )
    if seed_index is None:
        raise InputError(
            f"The state holds {axes[0]} seeds: give seed_index, from 0 to {axes[0] - 1}."
        )
    check_member(seed_index, axes[0], "seed_index")
    return jax.tree.map(lambda leaf: leaf[seed_index], state)


def function_of(config: Config, hyper: Hyper[Any], state: TrainState) -> LoadedPolicy:
    """The policy of one seed's state, without a leading axis, as `make_policy` describes it."""
    parts = assemble(config)
    world = env_params(parts.environment, hyper)
    acting = acting_policy(config, parts, state.params, state.observation_moments, world)
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

    def read_rows(observation: Any, key: Any, legal: Any) -> tuple[dict[str, Array], bool]:
        if not (key is None or hasattr(key, "dtype")):
            raise InputError(f"key={short(key)} must be a PRNG key: give jax.random.key(0).")
        try:
            rows, is_one = read(shapes, mask_size, observation, legal, jnp.asarray)
        except ValueError as error:
            raise InputError(str(error)) from error
        for name, space in spaces.items():
            require_number(space, rows[name])
        return rows, is_one

    if not has_memory(parts.network):

        def policy(observation: Any, key: Array | None = None, legal: Any = None) -> Any:
            rows, is_one = read_rows(observation, key, legal)
            action = act((), rows, key)[1]
            return as_given(observation, action, is_one)

        return LoadedPolicy(policy, sampling=sampling)

    def start(n: int | None = None) -> PyTree:
        memory = acting.network.start(acting.params, 1 if n is None else n)["actor"]
        return jax.tree.map(lambda leaf: leaf[0], memory) if n is None else memory

    def remember(
        observation: Any, memory: Any = None, key: Array | None = None, legal: Any = None
    ) -> tuple[Any, PyTree]:
        rows, is_one = read_rows(observation, key, legal)
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
