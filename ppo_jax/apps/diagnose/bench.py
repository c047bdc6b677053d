"""Benchmark of this machine: the speed of a setting, its phases, and the sizes worth trying."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from ppo_jax.apps.diagnose.timing import (
    KEPT,
    Program,
    Timing,
    make_phase,
    prepare,
    time_alone,
    time_phases,
)
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.validate import check_seconds, validate, with_one_iteration
from ppo_jax.distributed.hosted import REFUSED
from ppo_jax.distributed.layout import local_devices
from ppo_jax.distributed.memory import show_bytes
from ppo_jax.envs.interface import refuse_host
from ppo_jax.models.agent import assemble
from ppo_jax.runtime import devices as host
from ppo_jax.storage.manifest import make_manifest

Tell = Callable[[str], None]

SECONDS = 30.0  # limit for one setting
SIZES_SECONDS = 120.0  # with the table of sizes
TIMING_SECONDS = 8.0  # at most these are spent on timed calls
SIZE_SECONDS = 2.0  # timed calls of each further size

# Sizes that the table tries, as factors on the setting's own environments and seeds.
FACTORS = ((4, 1), (1, 4), (16, 1), (1, 16), (64, 1), (1, 64))
GOOD_ENOUGH = 0.9  # share of the highest speed: the smallest size that reaches it is suggested
MEMORY_SHARE = 0.8  # limit of memory: a larger size is not run


def report(
    config: Config,
    hyper: Hyper,
    options: RunOptions | None = None,
    seconds: float | None = None,
    sizes: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Time the training of a setting on this machine.

    Args:
        options: `seeds`, `seed`, `devices` and `platform` are read.
        seconds: approximate limit for everything; sizes that do not fit in it are named.
            Compilation is not interrupted.
        sizes: also try more environments and more seeds.
        tell: is called with a line before each step.

    Returns:
        a JSON-ready dict whose `text` has the same as lines for people.

    Raises:
        InputError: a setting that no run would accept.
    """
    options = options or RunOptions()
    tell = tell or _nobody
    config = with_one_iteration(config)
    validate(config, hyper)
    validate_options(options)
    seconds = check_seconds((SIZES_SECONDS if sizes else SECONDS) if seconds is None else seconds)
    host.prepare_jax(options)
    refuse_host(assemble(config).environment, *REFUSED["phases"])
    devices = host.device_count(options)
    deadline = time.perf_counter() + seconds
    with no_compile_cache():
        tell(f"compiling {describe(config)}, {_count(options.seeds, 'seed')}")
        program = prepare(config, hyper, options.seeds, devices, options.seed)
        refuse_too_large(program)
        tell("compiling the phases")
        phases = {name: make_phase(program, keep) for name, keep in KEPT.items()}
        tell("timing")
        left = deadline - time.perf_counter()
        timing, phase_seconds = time_phases(
            program, phases, max(SIZE_SECONDS, min(left, TIMING_SECONDS))
        )
        found = summary(program, timing, phase_seconds)
        if sizes:
            rows = [row_of(program, timing)]
            program.state.clear()
            rows += try_sizes(program, timing, hyper, options.seed, devices, deadline, tell)
            found |= {"sizes": rows, "suggestions": suggestions(rows)}
    return {**found, "text": lines(found)}


@contextmanager
def no_compile_cache() -> Iterator[None]:
    """Context in which programs are compiled, not read from disk."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX checks only once if there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def refuse_too_large(program: Program) -> None:
    """Refuse a program that does not fit into memory.

    Raises:
        InputError: one call of the program needs more memory than there is.
    """
    limit = memory_limit()
    if limit is not None and (program.program_bytes or 0) > limit:
        raise InputError(
            f"num_envs={program.config.num_envs} with {_count(program.layout.num_seeds, 'seed')} "
            f"needs {show_bytes(program.program_bytes)} of memory, and {show_bytes(limit)} can be "
            "used here: lower num_envs, rollout_length or seeds."
        )


def memory_limit() -> int | None:
    """Memory that a program may take here, all devices together; None if it is unknown."""
    own = host.device_memory_bytes()
    total = host.memory_bytes() if own is None else own * len(local_devices())
    return None if total is None else int(MEMORY_SHARE * total)


def summary(program: Program, timing: Timing, phase_seconds: dict[str, float]) -> dict[str, Any]:
    """Results of the given setting, ready for JSON."""
    config, layout = program.config, program.layout
    manifest = make_manifest(list(layout.devices))
    return {
        "env": config.env if isinstance(config.env, str) else type(config.env).__name__,
        "objective": config.objective,
        "setting": describe(config),
        "num_envs": config.num_envs,
        "rollout_length": config.rollout_length,
        "num_seeds": layout.num_seeds,
        "layout": layout.kind,
        "devices": manifest["devices"],
        "cores": manifest["cores"],
        "versions": manifest["versions"],
        "env_steps_per_second": program.steps_per_iteration / timing.iteration_seconds,
        "env_steps_per_second_range": [
            program.steps_per_iteration / seconds
            for seconds in reversed(timing.iteration_seconds_range)
        ],
        "env_steps_per_cpu_second": program.steps_per_iteration
        / max(timing.iteration_cpu_seconds, 1e-9),
        "iteration_seconds": timing.iteration_seconds,
        "iterations_per_call": timing.iterations,
        "rounds": timing.rounds,
        "compile_seconds": program.trace_seconds + program.compile_seconds,
        "compile_cpu_seconds": program.compile_cpu_seconds,
        "trace_seconds": program.trace_seconds,
        "init_seconds": program.init_seconds,
        "phase_seconds": phase_seconds,
        "program_bytes": program.program_bytes,
    }


def row_of(program: Program, timing: Timing) -> dict[str, Any]:
    """One size of the table."""
    return {
        "num_envs": program.config.num_envs,
        "num_seeds": program.layout.num_seeds,
        "env_steps_per_second": program.steps_per_iteration / timing.iteration_seconds,
        "iteration_seconds": timing.iteration_seconds,
        "compile_seconds": program.trace_seconds + program.compile_seconds,
        "program_bytes": program.program_bytes,
        "note": "",
    }


def try_sizes(
    base: Program,
    timing: Timing,
    hyper: Hyper,
    seed: int,
    devices: int | None,
    deadline: float,
    tell: Tell,
) -> list[dict[str, Any]]:
    """Rows of larger sizes; a size that misses `deadline` or memory has a note instead."""
    rows = []
    compile_seconds = base.init_seconds + base.trace_seconds + base.compile_seconds
    limit = memory_limit()
    for factor_envs, factor_seeds in FACTORS:
        num_envs = factor_envs * base.config.num_envs
        seeds = factor_seeds * base.layout.num_seeds
        row: dict[str, Any] = {
            "num_envs": num_envs,
            "num_seeds": seeds,
            "env_steps_per_second": None,
            "program_bytes": None,
        }
        # One call to warm up and one to time, of one iteration at least; their growth is a guess.
        longest = 3 * factor_envs * factor_seeds * timing.iteration_seconds
        if time.perf_counter() + compile_seconds + max(SIZE_SECONDS, longest) > deadline:
            rows.append({**row, "note": "not measured: more --seconds would be needed"})
            continue
        tell(f"trying num_envs {num_envs}, {_count(seeds, 'seed')}")
        config = with_one_iteration(dataclasses.replace(base.config, num_envs=num_envs))
        program = prepare(config, hyper, seeds, devices, seed)
        needed = program.program_bytes
        if limit is not None and (needed or 0) > limit:
            rows.append({**row, "program_bytes": needed, "note": "does not fit into memory"})
            continue
        rows.append(row_of(program, time_alone(program, SIZE_SECONDS)))
    return rows


def suggestions(rows: list[dict[str, Any]]) -> list[str]:
    """Sentences on the environments and the seeds that make good use of this machine."""
    said = []
    for name, other in (("num_envs", "num_seeds"), ("num_seeds", "num_envs")):
        alike = [
            row for row in rows if row[other] == rows[0][other] and row["env_steps_per_second"]
        ]
        if len(alike) < 2:
            continue
        best = max(row["env_steps_per_second"] for row in alike)
        fit = next(row for row in alike if row["env_steps_per_second"] >= GOOD_ENOUGH * best)
        flag = "--num-envs" if name == "num_envs" else "--seeds"
        ratio = fit["env_steps_per_second"] / rows[0]["env_steps_per_second"]
        if fit is rows[0]:
            said.append(f"{flag} {fit[name]}: more would not be faster here.")
            continue
        cost = (
            f"batches of {fit[name] // rows[0][name]} times the samples learn differently: retune"
            if name == "num_envs"
            else f"each seed at {ratio * rows[0][name] / fit[name]:.2f} of its speed alone"
        )
        said.append(f"{flag} {fit[name]}: {ratio:.1f} times the steps per second ({cost}).")
    return said


def describe(config: Config) -> str:
    """The setting in a line."""
    env = config.env if isinstance(config.env, str) else type(config.env).__name__
    return (
        f"{env} {config.objective}, {config.num_envs} envs x {config.rollout_length} steps, "
        f"{config.num_epochs} epochs x {config.num_minibatches} minibatches"
    )


def lines(found: dict[str, Any]) -> list[str]:
    """Results as lines for people."""
    low, high = found["env_steps_per_second_range"]
    phases = found["phase_seconds"]
    whole = sum(phases.values()) or 1.0
    text = [
        f"{found['setting']}; {_count(found['num_seeds'], 'seed')} on "
        f"{len(found['devices'])} x {found['devices'][0]} (layout {found['layout']})",
        "",
        f"speed     {found['env_steps_per_second']:,.0f} env steps/s ({low:,.0f} to {high:,.0f}), "
        f"{found['env_steps_per_cpu_second']:,.0f} per CPU second",
        f"iteration {1e3 * found['iteration_seconds']:.2f} ms: "
        + ", ".join(f"{name} {100 * value / whole:.0f}%" for name, value in phases.items()),
        f"compile   {found['compile_seconds']:.1f} s without a cache "
        f"({found['trace_seconds']:.1f} s of it tracing; "
        f"{found['compile_cpu_seconds']:.1f} CPU seconds), start {found['init_seconds']:.1f} s",
        f"memory    {show_bytes(found['program_bytes'])} for the training program",
    ]
    if "sizes" not in found:
        return text
    text += ["", f"{'num_envs':>10}{'seeds':>8}{'env steps/s':>16}{'ratio':>8}{'memory':>12}"]
    first = found["sizes"][0]["env_steps_per_second"]
    for row in found["sizes"]:
        speed = row["env_steps_per_second"]
        told = (
            f"{speed:>16,.0f}{speed / first:>8.2f}{show_bytes(row['program_bytes']):>12}"
            if speed
            else f"  {row['note']}"
        )
        text.append(f"{row['num_envs']:>10,}{row['num_seeds']:>8,}{told}")
    return [*text, "", *found["suggestions"]]


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _nobody(line: str) -> None:
    del line
