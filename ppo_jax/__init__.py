"""Policy gradients in JAX, from L^PG to PPO: pure functions, compiled loops, vmapped seeds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppo_jax.apps.diagnose.debug import debug as debug
    from ppo_jax.apps.diagnose.replay import replay as replay
    from ppo_jax.apps.export.export import export as export
    from ppo_jax.apps.export.load_policy import load_policy as load_policy
    from ppo_jax.apps.export.run_policy import make_policy as make_policy
    from ppo_jax.apps.report.write import report as report
    from ppo_jax.apps.run.evaluate import evaluate as evaluate
    from ppo_jax.apps.run.runner import resume as resume
    from ppo_jax.apps.run.runner import run as run
    from ppo_jax.apps.sweep.driver import sweep as sweep
    from ppo_jax.config.config import Config as Config
    from ppo_jax.config.config import Hyper as Hyper
    from ppo_jax.config.config import Schedule as Schedule
    from ppo_jax.config.errors import InputError as InputError
    from ppo_jax.config.options import RunOptions as RunOptions
    from ppo_jax.config.presets import preset as preset
    from ppo_jax.envs.interface import Environment as Environment
    from ppo_jax.envs.registration import make as make
    from ppo_jax.training.trainer import init as init
    from ppo_jax.training.trainer import iterate as iterate
    from ppo_jax.training.trainer import train as train

__version__ = "0.1.0"

# Loaded when first asked for: `import ppo_jax` itself must not cost jax's start-up.
_HOMES = {
    "Config": "config.config",
    "Hyper": "config.config",
    "InputError": "config.errors",
    "Schedule": "config.config",
    "Environment": "envs.interface",
    "RunOptions": "config.options",
    "debug": "apps.diagnose.debug",
    "evaluate": "apps.run.evaluate",
    "export": "apps.export.export",
    "init": "training.trainer",
    "iterate": "training.trainer",
    "load_policy": "apps.export.load_policy",
    "make": "envs.registration",
    "make_policy": "apps.export.run_policy",
    "preset": "config.presets",
    "replay": "apps.diagnose.replay",
    "report": "apps.report.write",
    "resume": "apps.run.runner",
    "run": "apps.run.runner",
    "sweep": "apps.sweep.driver",
    "train": "training.trainer",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ppo_jax' has no attribute {name!r}")
    return getattr(import_module(f"ppo_jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
