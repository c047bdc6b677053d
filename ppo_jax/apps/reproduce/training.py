"""Several cells and all their seeds in one compiled program, and what each seed brought home.

Cells that differ in numbers only (`Hyper`) share a program: their settings and seeds stand side by
side on the axis of members.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.config.config import Config
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs
from ppo_jax.kernels import compiler
from ppo_jax.runtime import evaluation as evaluating
from ppo_jax.runtime.startup import begin
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.training import evaluation, schedules

CHUNK_SECONDS = 2.0  # how long the host waits between looks at the device
MAX_MEMBERS = 256  # of one program: more bring no speed and cost memory

# What is kept of every iteration beside the episodes.
DIAGNOSTICS = (
    *("kl_old_new", "clip_fraction", "ess_fraction", "entropy", "explained_variance"),
    *("policy_loss", "value_loss", "grad_norm", "kl_coef"),
)
_KEPT = ("num_episodes", "episode_return_sum", "alive", *DIAGNOSTICS)


class Job(NamedTuple):
    """A cell, and which of its seeds are still to be run."""

    cell: Cell
    seeds: tuple[int, ...]


class Trained(NamedTuple):
    """What a program's members brought home; the first axis counts members, job by job."""

    rows: dict[str, np.ndarray]  # name -> [members, iterations]
    played: evaluation.Episodes | None  # [members, episodes]; None where training returns count
    compile_seconds: float
    train_seconds: float
    train_cpu_seconds: float  # of this process: what a busy machine does not add to
    evaluation_seconds: float
    fingerprint: dict[str, Any]


def packs(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs that one compiled program can run side by side, in the order of the first of each."""
    found: dict[Any, list[list[Job]]] = {}
    order: list[list[Job]] = []
    for job in jobs:
        cell = job.cell
        key = (
            programs.program(cell.config),
            cell.config.num_iterations,
            frozenset(cell.hyper.env),
            cell.protocol,
            cell.episodes if cell.protocol != "training" else 0,
        )
        groups = found.setdefault(key, [])
        members = sum(len(each.seeds) for each in groups[-1]) if groups else MAX_MEMBERS
        if members + len(job.seeds) > MAX_MEMBERS:
            groups.append([])
            order.append(groups[-1])
        groups[-1].append(job)
    return order


def train(pack: Sequence[Job], stop: Any, tell: Callable[[str], None]) -> Trained | None:
    """Train every seed of every job of one pack; None where `stop` came true before the end.

    Args:
        stop: looked at between chunks. tell: is given a line of progress now and then.
    """
    config = pack[0].cell.config
    members = [(job.cell, seed) for job in pack for seed in job.seeds]
    layout = layouts.choose_layout(config, len(members))
    start = time.perf_counter()
    filled = [*members, *[members[0]] * (layout.num_members - len(members))]
    numbers = [schedules.as_arrays(cell.config, cell.hyper) for cell, _ in filled]
    hyper = jax.tree.map(lambda *each: np.stack(each), *numbers)
    if layout.kind == "envs":  # every device works on every member, which share their numbers
        layout = layout._replace(kind="map", devices=layout.devices[:1])
    hyper = programs.place_hyper(hyper, layout)
    state, traced, _ = begin(config, hyper, [seed for _, seed in filled], layout)
    chunk = compiler.compiled(traced)
    compile_seconds = time.perf_counter() - start
    kept: dict[str, list[np.ndarray]] = {}
    cpu_start = time.process_time()
    iteration, length, train_seconds, told = 0, 1, 0.0, time.perf_counter()
    while iteration < config.num_iterations:
        if stop:
            return None
        start = time.perf_counter()
        state, fresh = chunk(hyper, state, np.int32(length))
        fresh = jax.device_get(fresh)
        seconds = time.perf_counter() - start
        for name in _KEPT:
            if name in fresh:
                kept.setdefault(name, []).append(fresh[name][: len(members), :length])
        train_seconds += seconds
        iteration += length
        if time.perf_counter() - told > 30.0:
            told = time.perf_counter()
            tell(_progress(config, iteration, len(members), train_seconds))
        length = max(1, int(length * min(2.0, CHUNK_SECONDS / max(seconds, 1e-3))))
        length = min(length, programs.ROWS, max(1, config.num_iterations - iteration))
    cpu_seconds = time.process_time() - cpu_start
    rows = {name: np.concatenate(parts, axis=1) for name, parts in kept.items()}
    start = time.perf_counter()
    played = _play(config, hyper, layout, pack[0].cell, state)
    if played is not None:
        played = jax.tree.map(lambda leaf: leaf[: len(members)], played)
    return Trained(
        rows=rows,
        played=played,
        compile_seconds=compile_seconds,
        train_seconds=train_seconds,
        train_cpu_seconds=cpu_seconds,
        evaluation_seconds=time.perf_counter() - start,
        fingerprint=fingerprint(layout),
    )


def _progress(config: Config, iteration: int, members: int, seconds: float) -> str:
    share = iteration / config.num_iterations
    speed = iteration * config.batch_size * members / seconds
    left = seconds * (1.0 / share - 1.0)
    return f"    {share:.0%} trained, {speed:,.0f} steps/s, {left:.0f} s left"


def _play(
    config: Config, hyper: Any, layout: layouts.Layout, cell: Cell, state: Any
) -> evaluation.Episodes | None:
    if cell.protocol == "training":
        return None
    options = RunOptions(eval_episodes=cell.episodes, policy_mode=cell.protocol)
    whole = layout._replace(num_seeds=layout.num_members)
    return evaluating.player(config, hyper, whole, options)(state, evaluating.FINAL)
