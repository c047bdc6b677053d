"""How a lowered program is compiled: by a thread that gives way to those of XLA's compiler.

In XLA's CPU compiler (jax 0.11) one thread describes kernel after kernel, and a pool of one thread
a core translates them. A description is written into a context, which is costly to make and goes
back for another one as soon as it is translated. Where all threads have the same share of the
cores, the first runs ahead and makes contexts that are thrown away at the end. Giving way it makes
few: a sixth less time to compile (benchmarks/README.md). With jax 0.10 it changes nothing.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax

from ppo_jax.kernels.backend import is_cpu, platform

NICE = 10  # a tenth of the share of a thread that gives way to none

LOOKS = 5  # at what the machine does, a millisecond apart


def compiled(lowered: Any) -> Any:
    """`lowered.compile()`, in less time where no other work waits for a core."""
    if not (is_cpu() and sys.platform.startswith("linux") and _every_thread_has_a_core()):
        return lowered.compile()
    _start_pool()
    with ThreadPoolExecutor(1, initializer=_give_way) as pool:
        return pool.submit(lowered.compile).result()


def _every_thread_has_a_core() -> bool:
    """Whether no thread of this machine waits for its turn; one that gives way would wait longer.

    Threads also run for a moment only, so several looks are taken. False where nothing is known.
    """
    try:
        for _ in range(LOOKS):
            running = Path("/proc/loadavg").read_text("ascii").split()[3].partition("/")[0]
            if int(running) <= len(os.sched_getaffinity(0)):
                return True
            time.sleep(0.001)
    except (OSError, ValueError, IndexError):
        pass
    return False


def _give_way() -> None:
    """Leave the cores to other threads; of Linux's threads each has a priority of its own."""
    with suppress(OSError):  # where that is forbidden, a compilation only takes longer
        os.nice(NICE)


@cache
def _start_pool() -> None:
    """XLA's pool is made at the first compilation, and would inherit a low priority for good."""
    jax.jit(lambda x: x).lower(0.0).compile()


def compiler_options(level: int) -> dict[str, int | str] | None:
    """XLA's options for a program on a CPU, None elsewhere (measured: docs/lab-notebook.md).

    LLVM's level 1 runs as fast as its default and compiles faster; 0 is for what runs but once. The
    kernels follow one another in the order that saves memory: an order that runs them at the same
    time loses more by the threads' waiting for each other. Vectors are as wide as the machine has
    them, as are those of its library of products; XLA halves them where they have 512 bits. Its
    newer way of cutting arrays into tiles moves and transposes them faster.
    """
    if platform() != "cpu":
        return None
    options: dict[str, int | str] = {
        "xla_backend_optimization_level": level,
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_cpu_prefer_vector_width": 512,
        "xla_disable_hlo_passes": "while-loop-invariant-code-motion",
    }
    if (0, 11, 2) <= jax.__version_info__ < (0, 12):  # the versions that are known to have it
        options["xla_cpu_use_new_xtile_lowering"] = True
    return options
