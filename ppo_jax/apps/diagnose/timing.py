"""The time of a training loop on this machine, and its split into phases.

The timed program is the one that a run executes: the same compiled chunk in the same layout, with
rows fetched after each call. The split is by differences. Two shorter programs, of the rollout
alone and of rollout and advantages, run as many iterations, alternating with the whole one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import door, memory, population, programs
from ppo_jax.distributed import layout as layouts
from ppo_jax.rl.types import PyTree, TrainState
from ppo_jax.runtime.devices import require_memory
from ppo_jax.training import schedules
from ppo_jax.training.trainer import Estimates, Experience

CALL_SECONDS = 0.3  # target length of a timed call, which sets its iterations


class Program(NamedTuple):
    """A compiled training loop and its state, ready to be timed."""

    config: Config
    hyper: Hyper
    layout: layouts.Layout
    chunk: Callable[..., tuple[TrainState, dict[str, Array]]]
    state: list[TrainState]  # one state, replaced by each call, because it is donated
    init_seconds: float  # compiling and running the start
    trace_seconds: float
    compile_seconds: float
    compile_cpu_seconds: float  # CPU time of both; far less than their sum if the machine is busy
    program_bytes: int | None  # arguments, results and temporaries of one call

    def call(self, n: int) -> None:
        """Run n iterations and fetch their rows, as a run does."""
        state, rows = self.chunk(self.hyper, self.state.pop(), jnp.asarray(n))
        self.state.append(state)
        door.fetch_rows(rows, n)

    @property
    def steps_per_iteration(self) -> int:
        return self.config.batch_size * self.layout.num_seeds


class Timing(NamedTuple):
    """Medians over the timed calls of n iterations each."""

    iterations: int  # n
    rounds: int
    iteration_seconds: float
    iteration_cpu_seconds: float
    iteration_seconds_range: tuple[float, float]
    call_seconds: float  # time of a call without iterations: dispatch and fetching of rows


def prepare(
    config: Config, hyper: Hyper, seeds: int, devices: int | None = None, seed: int = 0
) -> Program:
    """Compile and run the start, then compile the training loop."""
    numbers = schedules.as_arrays(config, hyper)
    layout = layouts.choose_layout(config, seeds, devices)
    began = time.perf_counter()
    shapes = population.abstract_population(config, numbers, layout)
    needed = memory.forecast(config, layout, shapes)
    require_memory(needed.at_least(), layout.devices[0])
    state = population.init_population(config, numbers, seed, layout)
    jax.block_until_ready(state)
    started, started_cpu = time.perf_counter(), time.process_time()
    lowered = programs.make_chunk(config, layout).lower(numbers, state, jnp.asarray(1))
    traced = time.perf_counter()
    chunk = lowered.compile()
    compiled = time.perf_counter()
    return Program(
        config=config,
        hyper=population.place_hyper(numbers, layout),
        layout=layout,
        chunk=chunk,
        state=[state],
        init_seconds=started - began,
        trace_seconds=traced - started,
        compile_seconds=compiled - traced,
        compile_cpu_seconds=time.process_time() - started_cpu,
        program_bytes=_program_bytes(chunk),
    )


# Parts of an iteration's first half to keep; parts that no kept one depends on are not computed. So
# the values of all samples, their log-probabilities and GAE belong to the advantages.
KEPT: dict[str, Callable[[Experience, Estimates], PyTree]] = {
    "rollout": lambda experience, estimates: experience.rollout[:2],
    "advantages": lambda experience, estimates: (experience.observation, estimates),
}


def make_phase(
    program: Program, keep: Callable[[Experience, Estimates], PyTree]
) -> Callable[[int], None]:
    """`run(n)`: n first halves of iterations from the program's state, which stays unchanged."""
    compiled = compile_phase(program, keep)
    return lambda n: door.fetch(compiled(program.hyper, program.state[0], jnp.asarray(n)))


def compile_phase(program: Program, keep: Callable[[Experience, Estimates], PyTree]) -> Any:
    """The compiled loop over first halves of iterations."""
    phase = programs.make_phase(program.config, program.layout, keep)
    return phase.lower(program.hyper, program.state[0], jnp.asarray(1)).compile()


def time_phases(
    program: Program, phases: dict[str, Callable[[int], None]], seconds: float
) -> tuple[Timing, dict[str, float]]:
    """The speed, and seconds of an iteration by phase, from alternating calls."""
    n = iterations_per_call(program)
    for run in phases.values():
        run(1)
    taken: dict[str, list[float]] = {name: [] for name in ("all", *phases)}
    timing, until = [], time.perf_counter() + seconds
    while not timing or time.perf_counter() < until:
        timing.append(_time_call(program, n))
        taken["all"].append(timing[-1][0] / n)
        for name, run in phases.items():
            started = time.perf_counter()
            run(n)
            taken[name].append((time.perf_counter() - started) / n)
    found = _medians(timing, n)
    host_seconds = found.call_seconds / n
    middle = {name: statistics.median(values) for name, values in taken.items()}
    rollout = max(0.0, middle["rollout"] - host_seconds)
    return found, {
        "rollout": rollout,
        "advantages": max(0.0, middle["advantages"] - middle["rollout"]),
        "update": max(0.0, middle["all"] - middle["advantages"]),
        "host": host_seconds,
    }


def time_alone(program: Program, seconds: float) -> Timing:
    """The speed without a split into phases."""
    n = iterations_per_call(program)
    timing, until = [], time.perf_counter() + seconds
    while not timing or time.perf_counter() < until:
        timing.append(_time_call(program, n))
    return _medians(timing, n)


def iterations_per_call(program: Program) -> int:
    """Warm up, and choose iterations for a call of about CALL_SECONDS, at most a chunk."""
    for _ in range(2):
        started = time.perf_counter()
        program.call(1)
        seconds = time.perf_counter() - started
        if seconds > CALL_SECONDS:  # too long for the first call's own costs to matter
            return 1
    return max(1, min(programs.MAX_CHUNK, int(CALL_SECONDS / seconds)))


def _time_call(program: Program, n: int) -> tuple[float, float, float]:
    """Wall and CPU seconds of a call of n iterations, wall seconds of a call of none."""
    started, started_cpu = time.perf_counter(), time.process_time()
    program.call(n)
    wall, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    started = time.perf_counter()
    program.call(0)
    return wall, cpu, time.perf_counter() - started


def _medians(timing: list[tuple[float, float, float]], n: int) -> Timing:
    walls, cpus, empty = zip(*timing, strict=True)
    return Timing(
        iterations=n,
        rounds=len(timing),
        iteration_seconds=statistics.median(walls) / n,
        iteration_cpu_seconds=statistics.median(cpus) / n,
        iteration_seconds_range=(min(walls) / n, max(walls) / n),
        call_seconds=statistics.median(empty),
    )


def _program_bytes(compiled: Any) -> int | None:
    """Memory that one call needs on all devices together, None if the compiler reports none."""
    told = compiled.memory_analysis()
    if told is None:
        return None
    return (
        told.argument_size_in_bytes
        + told.output_size_in_bytes
        + told.temp_size_in_bytes
        - told.alias_size_in_bytes
    )
