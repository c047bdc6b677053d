"""Main loop of every worker process: compile and run on command, answer in JSON lines.

Commands on stdin: `compile` (from cold in-process caches), `run`, `evaluate`, `quit`. One JSON
object on stdout for each, and one at the start; all output of the libraries goes to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cases import ALL_CASES, Case, scaled


class Program(NamedTuple):
    """A compiled training run and functions that read its result."""

    run: Callable[[int], Any]  # seed -> trained state, on the device and finished
    env_steps: Callable[[Any], int]  # state -> environment steps actually taken, over all seeds
    returns: Callable[[Any], list[float]]  # state -> mean return of each seed's policy


def device_per_core() -> str:
    """The XLA flag for one virtual CPU device per core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"--xla_force_host_platform_device_count={cores}"


def cloned(path: str, name: str, parents: int = 1) -> str:
    """The folder of a file in one of the clones that `compare.py --source` names.

    Args:
        path: of the file in the repository of `name`. parents: 1 for its own folder, 2 for the
            folder above it.
    """
    for folder in filter(None, os.environ.get("SOURCES", "").split(os.pathsep)):
        file = Path(folder) / path
        if file.exists():
            return str(file.parents[parents - 1])
    raise SystemExit(f"{name} is no package: name a clone of its repository by --source.")


class Worker(NamedTuple):
    """One trainer: `load` imports it, `build` lowers and compiles it for a case."""

    packages: tuple[str, ...]
    layouts: Callable[[Case], tuple[str, ...]]  # the layouts to try; the first is the default
    xla_flags: Callable[[str], tuple[str, ...]]  # flags that a layout needs before JAX is imported
    load: Callable[[], None]
    build: Callable[[Case, str, Callable[[str], None]], Program]


def serve(worker: Worker) -> None:
    parser = argparse.ArgumentParser(description="one trainer behind benchmarks/speed/compare.py")
    parser.add_argument("--case", choices=sorted(ALL_CASES), required=True)
    parser.add_argument("--layout", default="")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the budget")
    parser.add_argument("--list-layouts", action="store_true")
    arguments = parser.parse_args()
    case = scaled(ALL_CASES[arguments.case], arguments.scale)
    if arguments.list_layouts:
        print(json.dumps(worker.layouts(case)))
        return

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    layout = arguments.layout or worker.layouts(case)[0]
    flags = (os.environ.get("XLA_FLAGS", ""), *worker.xla_flags(layout))
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    started = time.perf_counter()
    worker.load()
    answer(
        import_seconds=time.perf_counter() - started,
        layout=layout,
        xla_flags=os.environ["XLA_FLAGS"],
        python=sys.version.split()[0],
        versions={name: _version(name) for name in worker.packages},
        devices=_devices(),
    )
    program: Program | None = None
    state: Any = None
    seed = 0
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            return
        if command == "compile":
            program, times = _compile(worker, case, layout)
            started = time.perf_counter()
            state = program.run(seed)
            answer(**times, first_run_seconds=time.perf_counter() - started)
        elif program is None:
            answer(error=f"{command!r} before 'compile'")
        elif command == "run":
            seed += 1
            del state
            started, started_cpu = time.perf_counter(), time.process_time()
            state = program.run(seed)
            wall, cpu = time.perf_counter() - started, time.process_time() - started_cpu
            peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            steps = program.env_steps(state)
            answer(wall_seconds=wall, cpu_seconds=cpu, env_steps=steps, peak_bytes=peak_bytes)
        elif command == "evaluate":
            answer(returns=program.returns(state))
        else:
            answer(error=f"unknown command {command!r}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # ours, run from the tree
        return importlib.import_module(package.replace("-", "_")).__version__


def _devices() -> list[str]:
    import jax

    return [f"{device.platform} {device.device_kind}" for device in jax.devices()]


def _compile(worker: Worker, case: Case, layout: str) -> tuple[Program, dict[str, float]]:
    import jax

    jax.clear_caches()
    times: dict[str, float] = {}
    started, started_cpu = time.perf_counter(), time.process_time()

    def mark(name: str) -> None:
        """Add the time since the last mark to `name`."""
        nonlocal started
        now = time.perf_counter()
        times[name] = times.get(name, 0.0) + now - started
        started = now

    program = worker.build(case, layout, mark)
    times["compile_cpu_seconds"] = time.process_time() - started_cpu
    return program, times
