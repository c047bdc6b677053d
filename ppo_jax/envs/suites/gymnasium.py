"""Gymnasium: any id that it knows, its own or one that another package registers.

These environments are stepped outside jax, one after the other or in worker processes. Spaces are
read as gymnax's of the same meaning, so that observations and actions of every kind are stored as
everywhere else. `module:ID` imports the module first, as in `gymnasium.make`.
"""

from __future__ import annotations

import inspect
import math
import statistics
import sys
import time
import warnings
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.errors import RAISED, InputError, install, name_nearest
from ppo_jax.envs import params as parameters
from ppo_jax.envs import suite_table as table
from ppo_jax.envs.interface import ACTION_MASK, Environment, Host, HostVector, Raw
from ppo_jax.envs.names.closest import closest_ids
from ppo_jax.envs.suites.gymnasium_lanes import lanes, made, workers_for
from ppo_jax.envs.suites.gymnax import actions as gymnax_actions
from ppo_jax.envs.suites.gymnax import observations as gymnax_observations
from ppo_jax.envs.suites.gymnax import spaces

suite: Any = import_module("gymnasium")

LIMIT = "max_episode_steps"
PROBED = 16  # steps that are timed before a vector is made; a fixed number, so that runs repeat


def make(name: str, **settings: Any) -> Environment:
    """The environment that `gymnasium.make(name, **settings)` makes.

    Raises:
        InputError: an unknown id, an environment whose own package is missing, or spaces that
            cannot be trained on.
    """
    label = f"gymnasium/{name}"
    spec = _spec(name, label)
    env = _construct(label, spec, settings)
    try:
        return _described(label, spec, settings, env)
    finally:
        env.close()


def _spec(name: str, label: str) -> Any:
    try:
        return suite.spec(name) if ":" not in name else _own_spec(name)
    except ModuleNotFoundError as error:
        guest = table.GUESTS.get(str(error.name))
        raise InputError(
            f"{label!r} needs the module {error.name!r}, which is not installed: "
            f"{guest.install if guest else 'install it'}, or start from the folder that holds it."
        ) from error
    except ImportError as error:
        raise InputError(
            f"{label!r} cannot be made, because an import failed ({_first_line(error)}): mend the "
            "module that registers it."
        ) from error
    except suite.error.Error:
        raise InputError(_unknown(name, label)) from None


def _unknown(name: str, label: str) -> str:
    """The sentence for an id that is not registered."""
    package, slash, own = name.partition("/")
    guest = table.GUESTS.get(package.lower()) if slash else None
    if guest is not None:
        return (
            f"{label!r} is an id of another package, which needs the form "
            f"gymnasium/package.module:ID: {guest.install}, and write {guest.name(own)}."
        )
    module, colon, own = name.rpartition(":")
    near = [f"gymnasium/{module}{colon}{each}" for each in closest_ids(own, suite.registry)]
    return (
        f"{label!r} is no id that Gymnasium knows: `ppo-jax envs gymnasium` lists its own, and "
        "gymnasium/package.module:ID imports the module that registers another."
        f"{name_nearest(near)}"
    )


def _own_spec(name: str) -> Any:
    """The specification of `module:ID`; the current folder is importable meanwhile."""
    module, _, own = name.partition(":")
    sys.path.insert(0, "")
    try:
        import_module(module)
    finally:
        sys.path.remove("")
    return suite.spec(own)


def _construct(label: str, spec: Any, settings: dict[str, Any]) -> Any:
    """One environment, or a sentence that says why it cannot be made."""
    try:
        return made(spec, settings)
    except (ImportError, suite.error.DependencyNotInstalled) as error:
        is_mujoco = "mujoco" in str(spec.entry_point).lower()
        remedy = install("gymnasium") if is_mujoco else _first_line(error)
        package = "MuJoCo" if is_mujoco else "another package"
        raise InputError(f"{label!r} needs {package}, which is missing: {remedy}.") from error
    except RAISED as error:
        raise InputError(
            f"{label!r} cannot be made ({type(error).__name__}: {_first_line(error)}): correct its "
            "parameters, or choose another environment."
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _described(label: str, spec: Any, settings: dict[str, Any], env: Any) -> Environment:
    """The contract's words for an environment of Gymnasium."""
    shim = SimpleNamespace(
        action_space=lambda _: _translated(env.action_space, f"{label} (action)"),
        observation_space=lambda _: _translated(env.observation_space, f"{label} (observation)"),
    )
    shown = _shapes(env.observation_space)
    actions = gymnax_actions.actions(shim, (), label)
    observations = gymnax_observations.observations(shim, (), (shown, shown), label)
    stored = jax.eval_shape(observations.encode, shown)
    params = _parameters(label, spec, settings)
    pictures = "rgb_array" in env.metadata.get("render_modes", ())

    def refused(*_: Any) -> Any:
        raise InputError(
            f"{label} is stepped outside jax, and only `ppo_jax.run`, `ppo_jax.evaluate` and their "
            "commands do so: choose a gymnax name or another suite for anything else."
        )

    def blank(key: Any, params: Any) -> tuple[Any, tuple[()]]:
        del key, params  # the first true observation comes with the first step
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), stored), ()

    return Environment(
        name=label,
        reset=blank,
        transition=refused,
        default_params=params,
        observation=stored,
        action_space=actions.space,
        max_episode_steps=_limit,
        override=partial(_override, label, spec, settings, params, env),
        render=refused if pictures else None,
        raw=Raw(observations.space, refused, refused, actions.form),
        host=Host(
            make=partial(_vector, label, spec, settings, params),
            encode=observations.encode,
            observation=shown,
            check=partial(_check, label, spec, settings),
        ),
    )


def _override(
    label: str,
    spec: Any,
    settings: dict[str, Any],
    defaults: dict[str, Any],
    example: Any,
    params: dict[str, Any],
    values: Mapping[str, Any],
) -> dict[str, Any]:
    """`params` with `values`, which are tried before anything is written.

    Args:
        example: an environment under the parameters `defaults`, whose spaces they must leave.

    Raises:
        InputError: no environment can be made of them, or it has other spaces.
    """
    found = parameters.override(params, values)
    if spaces.is_traced(found):  # as in a compiled program, after the same values were tried
        return found
    changed = _changed(found, defaults)
    if not set(changed) - {LIMIT}:
        return found
    env = _construct(label, spec, {**settings, **changed})
    env.close()
    for word in ("observation", "action"):
        before, after = (getattr(each, f"{word}_space") for each in (example, env))
        if before != after:
            raise InputError(
                f"{label} has the {word} space {after} under {changed}, and {before} without: name "
                "parameters that leave the spaces alone, or register an id of your own."
            )
    return found


def _changed(params: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The parameters that differ from the defaults, as arguments of the constructor."""
    changed = {
        name: _plain(value)
        for name, value in params.items()
        if not np.array_equal(np.asarray(value), np.asarray(defaults[name]))
    }
    return changed | ({LIMIT: int(changed[LIMIT])} if LIMIT in changed else {})


def _vector(
    label: str,
    spec: Any,
    settings: dict[str, Any],
    defaults: dict[str, Any],
    num_envs: int,
    params: Any,
    for_pictures: bool,
    cut_at: int | None,
) -> HostVector:
    """B environments under some parameters; those with dear steps in a worker for each core."""
    given = {**settings, **_changed(params, defaults)}
    given |= {"render_mode": "rgb_array"} if for_pictures else {}
    first = _construct(label, spec, given)
    seconds = 0.0 if for_pictures else _seconds_of_step(first)
    first.close()
    num_workers = workers_for(seconds, num_envs)
    return lanes(partial(made, spec, given), num_envs, num_workers, cut_at)


def _seconds_of_step(env: Any) -> float:
    """The median time of a step under random actions; 0 if one fails, as training reports it."""
    found = []
    try:
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(PROBED):
            action, began = env.action_space.sample(), time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            found.append(time.perf_counter() - began)
            if terminated or truncated:
                env.reset()
    except RAISED:
        return 0.0
    return statistics.median(found)


def _plain(value: Any) -> Any:
    """A parameter as Python's own number or tuple of numbers; 9.8 is no 9.800000190734863."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    own = np.asarray(value)
    return float(str(own)) if own.dtype.kind == "f" else own.item()


def _limit(params: dict[str, Any]) -> int | None:
    limit = float(params[LIMIT])
    return None if math.isinf(limit) else math.ceil(limit)


def _parameters(label: str, spec: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The numbers that `--env.NAME` may set: the time limit, and arguments of the constructor."""
    creator = spec.entry_point
    if isinstance(creator, str):
        creator = suite.envs.registration.load_env_creator(creator)
    found = {
        name: argument.default
        for name, argument in inspect.signature(creator).parameters.items()
        if argument.default is not inspect.Parameter.empty
    }
    found = {**found, **spec.kwargs, **settings}
    found = {name: value for name, value in found.items() if _is_number(value)}
    limit = settings.get(LIMIT, spec.max_episode_steps)
    return parameters.as_numbers({**found, LIMIT: limit or np.inf}, label)


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_number, value))
    return isinstance(value, bool | int | float)


def _check(label: str, spec: Any, settings: dict[str, Any]) -> list[str]:
    """The complaints of Gymnasium's own checker.

    Environments with an action mask are not checked, because the checker plays forbidden actions.
    """
    env = _construct(label, spec, settings)
    if ACTION_MASK in getattr(env.observation_space, "spaces", ()):
        env.close()
        return []
    checker = import_module("gymnasium.utils.env_checker").check_env
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            checker(env.unwrapped, skip_render_check=True, skip_close_check=True)
        except RAISED as error:
            return [f"{type(error).__name__}: {_first_line(error)}"]
        finally:
            env.close()
    return [_first_line(Warning(_uncoloured(str(each.message)))) for each in told]


def _uncoloured(text: str) -> str:
    return text.replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ")


def _translated(space: Any, label: str) -> Any:
    """A space of Gymnasium as gymnax's of the same meaning."""
    own, ours = suite.spaces, spaces.library()
    if isinstance(space, own.Discrete):
        found = ours.Discrete(int(space.n))
        found.start = int(space.start)
        return found
    if isinstance(space, own.MultiDiscrete):
        first = np.asarray(space.start)
        return ours.Box(first, first + space.nvec - 1, space.shape, np.int32)
    if isinstance(space, own.MultiBinary):
        return ours.Box(0, 1, space.shape, np.int8)
    if isinstance(space, own.Box):
        return ours.Box(space.low, space.high, space.shape, space.dtype)
    if isinstance(space, own.Dict):
        inner = {str(name): _translated(each, label) for name, each in space.spaces.items()}
        return ours.Dict(inner)
    if isinstance(space, own.Tuple):
        return ours.Tuple(tuple(_translated(each, label) for each in space.spaces))
    raise InputError(
        f"{label} has the space {space}: only Box, Discrete, MultiDiscrete, MultiBinary, and a "
        "Dict or Tuple of them can be trained; wrap the environment in one that has these."
    )


def _shapes(space: Any) -> Any:
    """Shapes and dtypes of one observation, as jax takes them."""
    own = suite.spaces
    if isinstance(space, own.Dict):
        return {name: _shapes(space.spaces[name]) for name in sorted(space.spaces)}
    if isinstance(space, own.Tuple):
        return tuple(map(_shapes, space.spaces))
    dtype = jax.dtypes.canonicalize_dtype(space.dtype or np.float32)
    return jax.ShapeDtypeStruct(space.shape or (), dtype)
