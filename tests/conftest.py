"""Settings that must be there before any test imports jax."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

# Two devices, so that sharding is tested on a machine with one; and programs that compile fast, as
# most of them run but once. jaxlib refuses flags that it does not know.
_flags = ["--xla_force_host_platform_device_count=2", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):
    _flags.append("--xla_cpu_use_fusion_emitters=false")
_given = os.environ.get("XLA_FLAGS", "")
_missing = [flag for flag in _flags if flag.split("=")[0] not in _given]
os.environ["XLA_FLAGS"] = " ".join(filter(None, [_given, *_missing]))

_root = Path(__file__).resolve().parent.parent

# The commands that tests start, from whatever folder, run this checkout.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_root), os.environ.get("PYTHONPATH")]))

# A runner under `nohup` ignores this signal, and so would its tests.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A vector that meets a matrix is a mistake, unless it says so.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

# One compile cache for all test workers and for the commands that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_root / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# A key of the tests' own signs what they train, not that of the user who runs them.
os.environ["XDG_STATE_HOME"] = str(_root / ".cache" / "state")


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Double precision, in the hidden layers as well."""
    import jax
    import jax.numpy as jnp

    from ppo_jax.models import torsos

    kinds = (jnp.float64, jax.lax.Precision.HIGHEST)
    monkeypatch.setitem(torsos.PRECISIONS, "float32", kinds)
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of the tiny environment with 3 seeds; nobody changes its folder."""
    from tiny import tiny_run

    return tiny_run(tmp_path_factory.mktemp("runs") / "walked")


@pytest.fixture(scope="session")
def peaked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny run of steps so large that its policies get worse; every checkpoint is kept."""
    import dataclasses

    from tiny import BATCH, HYPER, tiny_run

    every = dict.fromkeys(("eval_every", "log_every", "checkpoint_every"), BATCH)
    hyper = dataclasses.replace(HYPER, learning_rate=2.0)
    folder = tmp_path_factory.mktemp("runs") / "peaked"
    return tiny_run(folder, hyper=hyper, keep=100, **every)


@pytest.fixture(scope="session")
def swung(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One iteration of gSDE on Pendulum: noise, bounds of the actions, a normaliser, a picture."""
    from ppo_jax.apps.run.runner import run
    from ppo_jax.config.config import Config, Hyper
    from ppo_jax.config.options import RunOptions
    from ppo_jax.runtime import evaluation

    config = Config(
        env="Pendulum-v1",
        total_env_steps=16,
        num_envs=2,
        rollout_length=8,
        num_epochs=1,
        num_minibatches=1,
        hidden_sizes=(8,),
        policy="gsde",
        normalize_observations=True,
    )
    folder = tmp_path_factory.mktemp("runs") / "swung"
    options = RunOptions(out=str(folder), quiet=True, eval_episodes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "MAX_STEPS", 5)
        return run(config, Hyper(), options)
