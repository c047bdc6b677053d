"""This process and this machine: devices and the compilation cache."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import jax

from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions


def prepare_jax(options: RunOptions) -> None:
    """Platform, one device per CPU core, and the persistent compilation cache.

    What jax has already started with stays as it is.
    """
    if options.platform:
        jax.config.update(
            "jax_platforms", {"gpu": "cuda", "tpu": "tpu", "cpu": "cpu"}[options.platform]
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with suppress(RuntimeError):  # jax has started: take the devices that there are
            jax.config.update("jax_num_cpu_devices", cores or 1)
    if not cache_folder():
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "ppo_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    try:
        there = jax.local_devices()[0].platform
    except Exception as error:  # a missing plugin is a RuntimeError, an AssertionError, ...
        reason = "".join(f" ({line})" for line in str(error).splitlines()[:1])
        raise InputError(
            f"platform={options.platform!r} has no device here{reason}; leave --platform out to "
            "take what there is."
        ) from error
    if options.platform not in (None, there):
        raise InputError(
            f"platform={options.platform!r} cannot be had any more: jax has already started with "
            f"{there} in this process; leave platform out, or start a new process."
        )


def device_count(options: RunOptions) -> int | None:
    """How many devices to use, None for all; refuses more than there are."""
    there = len(jax.local_devices())
    if options.devices is not None and options.devices > there:
        raise InputError(
            f"devices={options.devices} is more than the {there} that this process has; "
            f"use at most {there}."
        )
    return options.devices


def cache_folder() -> str | None:
    """Where compiled programs are kept between processes."""
    return jax.config.values["jax_compilation_cache_dir"]
