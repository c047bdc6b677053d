"""XLA's options for the package's programs."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

import jax

from ppo_jax.kernels.backend import platform, xla_flags

# A CUDA graph may hold loops and branches, so that an iteration is one submission. Collectives stay
# out. A graph may be small: a program that is one loop is a short list of thunks.
GRAPHS_WITH_LOOPS = (
    "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"
)
GRAPHS = {
    "xla_gpu_enable_command_buffer": GRAPHS_WITH_LOOPS,
    "xla_gpu_graph_min_graph_size": 1,
}
GRAPHS_SINCE = 12_080  # CUDA 12.8 of the driver: before, a graph with an empty branch could hang


@cache
def driver_version() -> int:
    """The newest CUDA that NVIDIA's driver runs, 12080 for 12.8; 0 without a driver."""
    version = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def gpu_options() -> dict[str, int | str] | None:
    """Graphs that hold loops, if the driver can; XLA's own choice else, or if the user made one."""
    is_chosen = "xla_gpu_enable_command_buffer" in xla_flags()
    return None if is_chosen or driver_version() < GRAPHS_SINCE else dict(GRAPHS)


def compiler_options(level: int) -> dict[str, int | str] | None:
    """XLA's options for a program on a CPU or a GPU (measured: docs/lab-notebook.md).

    LLVM's level 1 runs as fast as its default and compiles faster; 0 is for programs that run once.
    Kernels run in the order that saves memory: concurrent kernels lose more time, because threads
    wait for each other. Vectors have the machine's full width, as in its matrix library; XLA's
    default halves 512 bits. XLA's newer tiling moves and transposes arrays faster.
    """
    if platform() != "cpu":
        return gpu_options() if platform() == "gpu" else None
    options: dict[str, int | str] = {
        "xla_backend_optimization_level": level,
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_cpu_prefer_vector_width": 512,
        "xla_disable_hlo_passes": "while-loop-invariant-code-motion",
    }
    if (0, 11, 2) <= jax.__version_info__ < (0, 12):  # the versions that are known to have it
        options["xla_cpu_use_new_xtile_lowering"] = True
    return options
