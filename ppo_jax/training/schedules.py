"""Numbers that change with the environment steps taken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppo_jax.rl.types  # noqa: F401, makes pytrees of Hyper and Schedule
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.envs import params as parameters
from ppo_jax.envs import registration
from ppo_jax.kernels.reductions import map_scalars


def _is_schedule(leaf: Any) -> bool:
    return isinstance(leaf, Schedule)


def value_at(schedule: Schedule, progress: Array) -> Array:
    """The schedule's value at `progress` in [0, 1]; exactly `start` at 0 and `end` at 1."""
    bent = 0.5 - 0.5 * jnp.cos(jnp.pi * progress)
    share = jnp.where(schedule.cosine > 0.0, bent, progress)
    moving = schedule.start * (1.0 - share) + schedule.end * share
    # A constant stays itself, bit for bit, and an infinite one (inf * 0 is NaN) stays infinite.
    return jnp.where(schedule.start == schedule.end, schedule.start, moving)


def resolve(hyper: Hyper, progress: Array) -> Hyper:
    """Replace every schedule by its value at `progress`; plain numbers stay unchanged."""
    leaves, treedef = jax.tree.flatten(hyper, is_leaf=_is_schedule)
    found = [leaf for leaf in leaves if _is_schedule(leaf)]
    if not found:
        return hyper
    values = iter(map_scalars(lambda schedule: value_at(schedule, progress), found))
    return jax.tree.unflatten(
        treedef, [next(values) if _is_schedule(leaf) else leaf for leaf in leaves]
    )


def progress(config: Config, hyper: Hyper, iteration: Array) -> Array:
    """Share of the schedules that has passed before `iteration`, in [0, 1]."""
    horizon = jnp.where(
        jnp.asarray(hyper.schedule_env_steps) > 0.0,
        hyper.schedule_env_steps,
        float(config.trained_env_steps),
    )
    return jnp.clip(iteration * (config.batch_size / horizon), 0.0, 1.0)


def as_arrays(config: Config, hyper: Hyper) -> Hyper:
    """Return every number as a `Schedule` of float32 arrays, so that no value causes a compilation.

    The environment's parameters keep the environment's dtype and have no schedule.
    """
    horizon = hyper.schedule_env_steps or float(config.trained_env_steps)
    plain = {
        name: getattr(hyper, name)
        for name in Hyper.__dataclass_fields__
        if name not in ("env", "schedule_env_steps")
    }
    ends = {
        name: value if _is_schedule(value) else Schedule(value, value)
        for name, value in plain.items()
    }
    arrays = {
        name: Schedule(*(np.float32(part) for part in (ends.start, ends.end, ends.cosine)))
        for name, ends in ends.items()
    }
    env = own_types(config, hyper) if hyper.env else {}
    return Hyper(**arrays, schedule_env_steps=np.float32(horizon), env=env)


def own_types(config: Config, hyper: Hyper) -> dict[str, Any]:
    """The environment's parameters that the run sets, each in the parameter's dtype and shape.

    Raises:
        InputError: the environment refuses a value.
    """
    environment = registration.find(config.env)
    params = environment.override(environment.default_params, dict(hyper.env))
    return parameters.typed(params, hyper.env)
