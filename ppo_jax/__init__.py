"""Policy gradients in JAX, from L^PG to PPO: pure functions, compiled loops, vmapped seeds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppo_jax.config import Config as Config
    from ppo_jax.config import Hyper as Hyper
    from ppo_jax.config import InputError as InputError
    from ppo_jax.config import Schedule as Schedule
    from ppo_jax.debugging import debug as debug
    from ppo_jax.envs import make as make
    from ppo_jax.envs.interface import Environment as Environment
    from ppo_jax.evaluating import evaluate as evaluate
    from ppo_jax.exporting import export as export
    from ppo_jax.options import RunOptions as RunOptions
    from ppo_jax.policies import load_policy as load_policy
    from ppo_jax.presets import preset as preset
    from ppo_jax.replaying import replay as replay
    from ppo_jax.reporting.writing import report as report
    from ppo_jax.runner import resume as resume
    from ppo_jax.runner import run as run
    from ppo_jax.sweeping.driver import sweep as sweep
    from ppo_jax.trainer import init as init
    from ppo_jax.trainer import iterate as iterate
    from ppo_jax.trainer import train as train

__version__ = "0.1.0"

# Loaded when first asked for: `import ppo_jax` itself must not cost jax's start-up.
_HOMES = {
    "Config": "config",
    "Hyper": "config",
    "InputError": "config",
    "Schedule": "config",
    "Environment": "envs.interface",
    "RunOptions": "options",
    "debug": "debugging",
    "evaluate": "evaluating",
    "export": "exporting",
    "init": "trainer",
    "iterate": "trainer",
    "load_policy": "policies",
    "make": "envs",
    "preset": "presets",
    "replay": "replaying",
    "report": "reporting.writing",
    "resume": "runner",
    "run": "runner",
    "sweep": "sweeping.driver",
    "train": "trainer",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ppo_jax' has no attribute {name!r}")
    return getattr(import_module(f"ppo_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
