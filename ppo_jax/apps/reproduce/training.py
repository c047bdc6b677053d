"""Training of several cells with all their seeds in one compiled program.

Cells that differ in numbers only (`Hyper`) share a program: their settings and seeds lie side by
side on the axis of members. An environment that is stepped outside jax has no such axis: there each
seed of a cell is a pack of its own, and the seeds of a cell share their compiled programs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.apps.reproduce import unfinished
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.unfinished import Job, Pack, Reached
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions
from ppo_jax.distributed import hosts, population
from ppo_jax.distributed.layout import Layout, choose_member_layout
from ppo_jax.distributed.memory import Use
from ppo_jax.distributed.programs import released
from ppo_jax.envs.registration import find
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime.background import called
from ppo_jax.runtime.chunk_loop import Advance, advance_by, chunks, until
from ppo_jax.runtime.evaluation import FINAL, Play, player
from ppo_jax.runtime.signals import Stopped, StopRequest
from ppo_jax.runtime.startup import begin, compile_chunk
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.training import schedules
from ppo_jax.training.evaluation import Episodes

CHUNK_SECONDS = 2.0  # how long a chunk should take: the host only watches for a stop
MAX_MEMBERS = 256  # members of one program: more bring no speed and cost memory

# Metrics that are kept for every iteration beside the episodes.
DIAGNOSTICS = (
    *("kl_old_new", "clip_fraction", "ess_fraction", "entropy", "explained_variance"),
    *("policy_loss", "value_loss", "grad_norm", "kl_coef"),
)
_KEPT = ("num_episodes", "episode_return_sum", "alive", *DIAGNOSTICS)


class Trained(NamedTuple):
    """The results of a program's members; the first axis counts members, job by job."""

    rows: dict[str, np.ndarray]  # name -> [members, iterations]
    played: Episodes | None  # [members, episodes]; None if training returns count
    compile_seconds: float
    train_seconds: float
    train_cpu_seconds: float  # CPU time of this process, which a busy machine does not lengthen
    evaluation_seconds: float
    fingerprint: dict[str, Any]


def packs(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs that one compiled program can run side by side, in the order of the first of each."""
    found: dict[Any, list[list[Job]]] = {}
    order: list[list[Job]] = []
    for job in jobs:
        cell = job.cell
        if is_hosted(cell.config):
            order.extend([Job(cell, (seed,))] for seed in job.seeds)
            continue
        key = (
            population.without_budget(cell.config),
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


def is_hosted(config: Config) -> bool:
    """Check for an environment that is stepped outside jax."""
    return find(config.env).host is not None


class Programs(NamedTuple):
    """The compiled programs of a pack, which the next seed of a hosted cell uses again."""

    start: Any
    chunk: Any
    play: Play | None  # None if training returns count


def train_jobs(
    pack: Pack,
    save_seconds: float,
    stop: Any,
    tell: Callable[[str], None],
    kept: dict[str, Programs] | None = None,
) -> Trained | None:
    """Train every seed of every job of one pack; None on a stop, with all of it saved.

    Args:
        save_seconds: of training between two checkpoints.
        stop: looked at between chunks. tell: is called with a line of progress now and then.
        kept: programs of the last hosted cell by its name, which is changed to this one's.

    Raises:
        InputError: the pack was begun before, and none of its checkpoints can be used.
    """
    cell = pack.jobs[0].cell
    config = cell.config
    members = [(job.cell, seed) for job in pack.jobs for seed in job.seeds]
    start = time.perf_counter()
    layout, hyper, seeds = arrange(config, members)
    was_begun = hosts.on_first(pack.folder.exists)
    owner = unfinished.begin(pack, layout)
    state, programs = prepared(cell, hyper, seeds, layout, {} if kept is None else kept)
    reached = unfinished.restore(owner, layout, state, tell)
    if reached is None:
        if was_begun:
            tell("    it had no checkpoint yet: its training begins anew")
        reached = Reached(state, {}, 0, 0.0, 0.0)
    elif is_hosted(config):
        tell("    its environments start anew, because no checkpoint has their state")
    advance = advance_by(programs.chunk, hyper, len(members))
    compile_seconds = time.perf_counter() - start
    save = partial(unfinished.save, owner, layout, config.batch_size)
    with released(programs.chunk):
        reached = train_all(config, advance, reached, save, (save_seconds, stop, tell))
    if reached.iteration < config.num_iterations:
        return None
    start = time.perf_counter()
    try:
        played = programs.play(reached.state, FINAL) if programs.play else None
    except Stopped:
        save(reached)
        return None
    if played is not None:
        played = jax.tree.map(lambda leaf: leaf[: len(members)], played)
    return Trained(
        rows=reached.rows,
        played=played,
        compile_seconds=compile_seconds,
        train_seconds=reached.train_seconds,
        train_cpu_seconds=reached.train_cpu_seconds,
        evaluation_seconds=time.perf_counter() - start,
        fingerprint=fingerprint(layout),
    )


def prepared(
    cell: Cell, hyper: Hyper, seeds: list[int], layout: Layout, kept: dict[str, Programs]
) -> tuple[TrainState, Programs]:
    """The population at its start, and its programs: those kept of its cell's seed before, or new.

    Raises:
        InputError: the machine has too little memory to train.
        Stopped: a stop was requested.
    """
    if cell.name in kept:
        found = kept[cell.name]
        keys = population.member_keys(seeds, layout)
        return population.place(called(found.start, hyper, keys), layout), found
    use = Use(cell.episodes)
    state, traced, start = begin(cell.config, hyper, seeds, layout, use)
    chunk = compile_chunk(cell.config, layout, state, traced, use)
    found = Programs(start, chunk, play_of(cell, hyper, layout))
    kept.clear()
    if is_hosted(cell.config):
        kept[cell.name] = found
    return state, found


def arrange(config: Config, members: Sequence[tuple[Cell, int]]) -> tuple[Layout, Hyper, list[int]]:
    """The devices, each member's numbers and seed; the first member fills up the devices."""
    layout = choose_member_layout(config, len(members))
    filled = [*members, *[members[0]] * (layout.num_members - len(members))]
    numbers = [schedules.as_arrays(cell.config, cell.hyper) for cell, _ in filled]
    if is_hosted(config):  # one member
        return layout, population.place_hyper(numbers[0], layout), [seed for _, seed in filled]
    hyper = jax.tree.map(lambda *leaves: np.stack(leaves), *numbers)
    return layout, population.place_hyper(hyper, layout), [seed for _, seed in filled]


def train_all(
    config: Config,
    advance: Advance,
    begun: Reached,
    save: Callable[[Reached], None],
    watch: tuple[float, Any, Callable[[str], None]],
) -> Reached:
    """Train to the end of the budget or to a stop, and save that.

    Args:
        watch: seconds between checkpoints, the request to stop, and the function for progress.
    """
    save_seconds, stop, tell = watch
    kept = {name: [value] for name, value in begun.rows.items()}
    reached, saved, told = begun, begun, time.perf_counter()
    cpu_start = time.process_time() - begun.train_cpu_seconds
    bound = until(config.num_iterations)
    for chunk in chunks(
        *(advance, begun.state, bound), start=begun.iteration, seconds=CHUNK_SECONDS, stop=stop
    ):
        for name in _KEPT:
            if name in chunk.rows:
                kept.setdefault(name, []).append(chunk.rows[name])
        reached = Reached(
            state=chunk.state,
            rows={},
            iteration=reached.iteration + chunk.length,
            train_seconds=reached.train_seconds + chunk.seconds,
            train_cpu_seconds=time.process_time() - cpu_start,
        )
        if isinstance(stop, StopRequest):
            stop.progress()
        if reached.train_seconds - saved.train_seconds > save_seconds:
            save(_with_rows(reached, kept))
            saved = reached
        if time.perf_counter() - told > 30.0:
            told = time.perf_counter()
            tell(_progress(config, reached, len(chunk.rows["alive"])))
    reached = _with_rows(reached, kept)
    if reached.iteration > saved.iteration:
        save(reached)
    return reached


def _with_rows(reached: Reached, kept: dict[str, list[np.ndarray]]) -> Reached:
    rows = {name: np.concatenate(parts, axis=1) for name, parts in kept.items()}
    return reached._replace(rows=rows)


def _progress(config: Config, reached: Reached, members: int) -> str:
    share = reached.iteration / config.num_iterations
    speed = reached.iteration * config.batch_size * members / reached.train_seconds
    left = reached.train_seconds * (1.0 / share - 1.0)
    return f"    {share:.0%} trained, {speed:,.0f} steps/s, {left:.0f} s left"


def play_of(cell: Cell, hyper: Hyper, layout: Layout) -> Play | None:
    """The evaluation after training; None if training returns count."""
    if cell.protocol == "training":
        return None
    options = RunOptions(eval_episodes=cell.episodes, policy_mode=cell.protocol)
    whole = layout._replace(num_seeds=layout.num_members)
    return player(cell.config, hyper, whole, options)
