"""From what a user names to an `Environment`: gymnax, suites, probes, own classes and objects."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, NamedTuple

from ppo_jax.config.errors import RAISED, InputError, nearest
from ppo_jax.config.loading import load_attribute, require_own
from ppo_jax.envs import suite_table as table
from ppo_jax.envs.interface import ActionSpace, Discrete, Environment, MultiDiscrete, Product
from ppo_jax.envs.names import known
from ppo_jax.envs.suites.gymnax import names as gymnax_names

PROBE_PREFIX = "probe:"


class Row(NamedTuple):
    """A line of `ppo-jax envs`."""

    name: str
    suite: str
    action_space: str
    observation_shape: Any  # a tree of shapes for a tree; None: unknown without a download
    note: str


def make(env: Any) -> Environment:
    """The environment that `env` means.

    Args:
        env: a gymnax name (`CartPole-v1`), a suite's name (`brax/ant`), `probe:NAME`,
            `module:attribute`, an `Environment`, or an object of gymnax's API: instance, class,
            factory, or the (instance, parameters) pair that `gymnax.make` returns.

    Raises:
        InputError: unknown, or not to be trained on; the sentence says why and what to do.
    """
    if not isinstance(env, str):
        return _from_object(env, None)
    if env.startswith(PROBE_PREFIX):
        return _probe(env)
    if env in gymnax_names.registered_names():
        return _from_gymnax(env)
    if table.is_suite_name(env):
        return _from_suite(env)
    known.require_colon(env)
    return _from_object(load_attribute(env), env)


def find(env: Any) -> Environment:
    """`make(env)`, made once a process: a sweep asks for every setting.

    It may be called within a trace: the environment's constants are never part of that.
    """
    try:
        hash(env)
    except TypeError:  # an environment object that holds arrays, such as a Box's bounds
        return _made.__wrapped__(env)
    return _made(env)


@lru_cache(maxsize=64)
def _made(env: Any) -> Environment:
    import jax

    with jax.ensure_compile_time_eval():
        return make(env)


def check_name(env: str, must_be_installed: bool = True) -> None:
    """Refuse a mistyped name of gymnax or a suite without loading jax, gymnax or the suite.

    `probe:NAME` and `module:attribute` can only be judged by `make`.

    Args:
        must_be_installed: False if it need not be made here, such as to show stored results.

    Raises:
        InputError: with the nearest names, or with the command that installs the suite.
    """
    if env in gymnax_names.registered_names() or env.startswith(PROBE_PREFIX):
        return
    if table.is_suite_name(env):
        (known.require_known if must_be_installed else known.split_known)(env)
    else:
        known.require_colon(env)


def is_ready(env: str) -> bool:
    """Check for a name of gymnax: `make` refuses none that needs no download."""
    return env in gymnax_names.GYMNAX_NAMES and env not in gymnax_names.NEEDS_DOWNLOAD


def available() -> list[Row]:
    """Every environment of gymnax and every probe; `table.SUITES` has those of other suites."""
    from ppo_jax.envs.suites.gymnax import adapter as gymnax
    from ppo_jax.envs.suites.probes import PROBES

    gymnax_names.import_gymnax()
    rows = []
    for name in gymnax_names.registered_names():
        suite = name.rpartition("-")[2] if name in gymnax_names.GYMNAX_NAMES else "registered"
        suite = "classic control" if suite.startswith("v") else suite
        if name in gymnax_names.NEEDS_DOWNLOAD:
            rows.append(Row(name, suite, "", None, "downloads its data when it is made"))
            continue
        try:
            env, params = gymnax_names.construct(name)
            space = describe_space(gymnax.action_space(env, params, name))
            rows.append(Row(name, suite, space, gymnax.observation_shape(env, params, name), ""))
        except InputError as error:
            rows.append(Row(name, suite, "", None, str(error)))
    for name, probe in PROBES.items():
        environment = probe.environment
        space = describe_space(environment.action_space)
        rows.append(Row(PROBE_PREFIX + name, "probe", space, environment.observation_shape, ""))
    return rows


def describe_space(space: ActionSpace) -> str:
    """An action space in a few words."""
    if isinstance(space, Product):
        return " and ".join(describe_space(part) for part in space.parts)
    if isinstance(space, Discrete):
        return f"discrete {space.n}"
    if isinstance(space, MultiDiscrete):
        return f"multi-discrete {' '.join(str(n) for n in space.ns)}"
    low, high = (float(end) for end in (space.low.min(), space.high.max()))
    return f"box {'x'.join(str(size) for size in space.shape)} in [{low:g}, {high:g}]"


def _from_gymnax(name: str) -> Environment:
    from ppo_jax.envs.suites.gymnax import adapter as gymnax

    return gymnax.make(name)


def _from_suite(env: str) -> Environment:
    suite, own = known.require_known(env)
    try:
        made = importlib.import_module(f"ppo_jax.envs.suites.{suite.name}").make(own)
    except ImportError as error:
        if suite.is_ours:
            raise
        what = f"the package {suite.name}, whose import fails ({error})"
        if isinstance(error, ModuleNotFoundError):
            what = f"the module {error.name!r}, which is missing"
        raise InputError(f"{env!r} needs {what}: {table.install_hint(suite)}.") from error
    from ppo_jax.envs import leaves  # here, as it loads numpy and jax

    leaves.require_fitting(made)
    return made


def _probe(name: str) -> Environment:
    from ppo_jax.envs.suites.probes import PROBES

    short = name.removeprefix(PROBE_PREFIX)
    if short not in PROBES:
        raise InputError(
            f"{name!r} is no probe; there are {', '.join(PROBES)}.{nearest(short, PROBES)}"
        )
    return PROBES[short].environment


def _from_object(env: Any, name: str | None) -> Environment:
    """An `Environment` from whatever a user's module or program holds."""
    label = name or getattr(env, "__qualname__", type(env).__name__)
    if isinstance(env, type) or (callable(env) and not hasattr(type(env), "step_env")):
        if name is not None and not _is_class_of_environments(env):
            require_own(name, env, "environment")
        try:
            env = env()
        except RAISED as error:
            raise InputError(
                f"{label} could not be made ({type(error).__name__}: {error}): it must be "
                "callable without arguments; pass an instance or a factory that fills them in."
            ) from error
        if env is None or isinstance(env, type):
            made = "nothing" if env is None else f"the class {env.__name__}"
            raise InputError(f"{label} returns {made}: return an environment, an instance.")
    if isinstance(env, Environment):
        return _sound(env)
    from ppo_jax.envs.suites.gymnax import adapter as gymnax

    if isinstance(env, tuple) and len(env) == 2:
        return _sound(gymnax.adapt(env[0], env[1], name=name))
    if isinstance(env, tuple):
        raise InputError(
            f"{label} is a tuple of {len(env)}: give an environment, or the pair (environment, "
            "parameters)."
        )
    return _sound(gymnax.adapt(env, name=name))


def _is_class_of_environments(env: Any) -> bool:
    """Check for a class with gymnax's two functions, wherever it is defined."""
    return isinstance(env, type) and hasattr(env, "reset_env") and hasattr(env, "step_env")


def _sound(environment: Environment) -> Environment:
    """`environment`, unless no policy can act in it."""
    from ppo_jax.envs import actions, bounds, leaves, slips  # here, as they load numpy and jax

    box = actions.box_of(environment.action_space)
    if box is not None:
        bounds.require_sound(box.low, box.high, environment.name)
    leaves.require_fitting(environment)
    if environment.host is None:
        slips.require_batch(environment, actions.example_action(environment.action_space))
    leaves.metric_names(environment)  # refuses what is no dict of numbers
    if (mode := environment.evaluation_mode) not in ("deterministic", "sampled"):
        raise InputError(
            f"{environment.name} has evaluation_mode={mode!r}, which is no mode: declare "
            "deterministic or sampled."
        )
    return environment
