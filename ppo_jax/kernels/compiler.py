"""Compilation of a lowered program by a thread of low priority.

In XLA's CPU compiler (jax 0.11) one thread describes the kernels, and a pool of one thread per core
translates them. Each description is written into a context, which is costly to make and is reused
after the translation. At equal priority the first thread runs ahead and makes contexts that are
thrown away at the end. At low priority it makes few, and compiling takes a sixth less time
(docs/lab-notebook.md). With jax 0.10 the priority changes nothing.
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

NICE = 10  # a tenth of the share of a thread of normal priority

LOOKS = 5  # samples of the machine's load, a millisecond apart


def compiled(lowered: Any) -> Any:
    """Return `lowered.compile()`, in less time if no other work waits for a core."""
    if not (is_cpu() and sys.platform.startswith("linux") and _every_thread_has_a_core()):
        return lowered.compile()
    _start_pool()
    with ThreadPoolExecutor(1, initializer=_give_way) as pool:
        return pool.submit(lowered.compile).result()


def _every_thread_has_a_core() -> bool:
    """Check that no thread of this machine waits for a core; low priority would wait longer.

    Some threads run for a moment only, so several samples are taken. False if nothing is known.
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
    """Lower this thread's priority; on Linux each thread has its own."""
    with suppress(OSError):  # if that is forbidden, a compilation only takes longer
        os.nice(NICE)


@cache
def _start_pool() -> None:
    """Start XLA's thread pool, which inherits the priority of the first compilation."""
    jax.jit(lambda x: x).lower(0.0).compile()


def compiler_options(level: int) -> dict[str, int | str] | None:
    """XLA's options for a program on a CPU, None elsewhere (measured: docs/lab-notebook.md).

    LLVM's level 1 runs as fast as its default and compiles faster; 0 is for programs that run once.
    Kernels run in the order that saves memory: concurrent kernels lose more time, because threads
    wait for each other. Vectors have the machine's full width, as in its matrix library; XLA's
    default halves 512 bits. XLA's newer tiling moves and transposes arrays faster.
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
