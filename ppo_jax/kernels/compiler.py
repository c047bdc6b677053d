"""XLA's options for the package's programs."""

from __future__ import annotations

import jax

from ppo_jax.kernels.backend import platform


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
