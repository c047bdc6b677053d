"""This machine: its devices, their memory, and the compilation cache."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, has_hosts
from ppo_jax.distributed import hosts
from ppo_jax.distributed.layout import local_devices, offered_devices
from ppo_jax.distributed.memory import Forecast, show_bytes
from ppo_jax.runtime import signals
from ppo_jax.storage.manifest import core_count

VISIBLE = "CUDA_VISIBLE_DEVICES"
_GPUS = Path("/proc/driver/nvidia/gpus")  # one entry for each GPU that the driver sees
_MEMINFO = Path("/proc/meminfo")
# The limit of a container, and the memory that it has taken (version 2 of Linux' control groups).
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory.current")
PARTING = 2.0  # seconds that the first host, whose end ends all, leaves others to print an error
_SMALL_MACHINE = 8 * 2**30  # bytes assumed if the system reports no memory


def prepare_jax(options: RunOptions, needed: Callable[[int], int] | None = None) -> None:
    """Set the platform, one device per CPU core, and the persistent compilation cache.

    If jax has already started, its platform and devices stay as they are.

    Args:
        needed: devices there -> devices that are used. The command line leaves the others to other
            processes; in a program of the user's, a later run may want them.

    Raises:
        InputError: the platform has no device here, or jax has started on another one, or compiles
            nothing.
    """
    if jax.config.values["jax_disable_jit"]:
        raise InputError(
            "jax is asked to compile nothing (jax_disable_jit), and all programs here are compiled "
            "before they run; unset JAX_DISABLE_JIT, and use `ppo-jax debug RUN` to look for NaN."
        )
    is_own = signals.owns_process and not hosts.is_joined()
    if needed is not None and is_own and options.platform != "cpu":
        with suppress(InputError):  # the layout refuses it, and knows the devices
            leave_unused(needed)
    choose_platform(options)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with suppress(RuntimeError):  # jax has started: take the devices that there are
            jax.config.update("jax_num_cpu_devices", core_count() or 1)
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("MUJOCO_GL", "egl")  # else MuJoCo draws in windows only
    if not cache_folder():
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "ppo_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    try:
        found = local_devices()[0].platform
    except Exception as error:  # a missing plugin is a RuntimeError, an AssertionError, ...
        reason = "".join(f" ({line})" for line in str(error).splitlines()[:1])
        named, remedy = f"platform={options.platform!r}", "leave --platform out"
        if options.platform is None and (wanted := os.environ.get("JAX_PLATFORMS")):
            named, remedy = f"JAX_PLATFORMS={wanted!r}", "unset JAX_PLATFORMS"
        raise InputError(
            f"{named} has no device here{reason}; {remedy} to take what there is."
        ) from error
    if options.platform not in (None, found):
        raise InputError(
            f"platform={options.platform!r} cannot be had any more: jax has already started with "
            f"{found} in this process; leave platform out, or start a new process."
        )


def choose_platform(options: RunOptions) -> None:
    """Set the platform, if one is asked for."""
    if options.platform:
        jax.config.update(
            "jax_platforms", {"gpu": "cuda", "tpu": "tpu", "cpu": "cpu"}[options.platform]
        )


@contextmanager
def joined(options: RunOptions, stop: signals.StopRequest) -> Iterator[signals.StopRequest]:
    """Join the hosts that the options name, part from them at the end; yield their common stop.

    Raises:
        Stopped: another host is gone.
        InputError: the hosts cannot be joined.
    """
    if not has_hosts(options) or signals.is_shared(stop):
        yield stop
        return
    if not hosts.is_joined():
        choose_platform(options)
        hosts.join(options.coordinator, options.num_hosts, options.host_index)
        signals.leaves_at_once = True
        if signals.after_join is not None:
            signals.after_join()
        prepare_jax(options)
    signals.prints = hosts.is_first()
    shared = signals.SharedStop(stop, hosts.exchange)
    try:
        with shared.taking_over():
            yield shared
            if signals.owns_process:
                hosts.leave()
                signals.leaves_at_once = False
    except Exception as error:
        if not hosts.is_loss(error):
            if signals.owns_process and hosts.is_joined() and hosts.is_first():
                time.sleep(PARTING)
            raise
        raise signals.Stopped("the end of another host", signals.STOPPED) from error


def leave_unused(needed: Callable[[int], int]) -> None:
    """Hide the GPUs that are not used from CUDA, because jax reserves memory of all that it sees.

    The variable may list indices, UUIDs and MIG instances. Its first entries stay.
    """
    given = os.environ.get(VISIBLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
    else:
        names = [str(i) for i, _ in enumerate(_GPUS.glob("*"))]
    count = needed(len(names)) if names and all(names) else 0
    if 0 < count < len(names):
        os.environ[VISIBLE] = ",".join(names[:count])


def device_count(options: RunOptions) -> int | None:
    """The number of devices to use, None for all.

    Raises:
        InputError: there are fewer.
    """
    count = len(offered_devices())
    if options.devices is not None and options.devices > count:
        raise InputError(
            f"devices={options.devices} is more than the {count} that this process has; "
            f"use at most {count}."
        )
    if (options.devices or 0) % hosts.count():
        raise InputError(
            f"devices={options.devices} of {hosts.count()} hosts must be as many of each: take a "
            f"multiple of {hosts.count()}."
        )
    return options.devices


def cache_folder() -> str | None:
    """The folder that keeps compiled programs between processes."""
    return jax.config.values["jax_compilation_cache_dir"]


def memory_bytes() -> int | None:
    """Bytes of main memory, None if the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def free_memory_bytes() -> int:
    """Bytes of main memory that are free or can be freed; all of it if the system reports less.

    The limit of a container counts, if it leaves less.
    """
    free = memory_bytes() or _SMALL_MACHINE
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * int(line.split()[1])
    with suppress(OSError, ValueError):  # no such file, or the word "max"
        limit, taken = (int((_CGROUP / name).read_text("ascii")) for name in _LIMITS)
        free = min(free, max(limit - taken, 0))
    return free


def device_memory_bytes() -> int | None:
    """Bytes of the first accelerator's memory, None on a CPU."""
    stats = local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def free_device_bytes(device: Any, num_devices: int) -> int:
    """Bytes that are free on one of `num_devices` devices; those of a CPU share main memory."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return free_memory_bytes() // num_devices


def require_memory(needed: Forecast, device: Any, held: int = 0) -> None:
    """Refuse training that this machine has no memory for, before it takes any.

    Args:
        device: one of those that it would run on. held: bytes of it that are taken already.

    Raises:
        InputError: a sentence with both numbers and the remedy.
    """
    remedy = (
        "take fewer seeds, environments (num_envs), steps (rollout_length), hidden_sizes or "
        "eval_episodes."
    )
    offered = free_memory_bytes()
    if needed.main - (held if needed.is_cpu else 0) > offered:
        raise InputError(
            f"{needed.num_members:,} members need about {show_bytes(needed.main)} of main memory "
            f"(states {show_bytes(needed.state)}, temporaries {show_bytes(needed.working)}), and "
            f"{show_bytes(offered)} are free: {remedy}"
        )
    if needed.is_cpu:
        return
    offered = free_device_bytes(device, needed.num_devices)
    if needed.device - held // needed.num_devices > offered:
        raise InputError(
            f"{needed.num_members:,} members need about {show_bytes(needed.device)} on each of "
            f"{needed.num_devices} devices, and {show_bytes(offered)} are free there: {remedy}"
        )
