"""A population of slots, which outlives its settings: for halving and pbt.

A slot is the S members of one setting. The program, its width and the slots stay. Between chunks
settings leave, others take their place, and slots are copied on the population axis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack, rules
from ppo_jax.apps.sweep.axes import Values, apply, read_values
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.pack_files import METRICS, PackJob
from ppo_jax.apps.sweep.plan import Prepared
from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import evaluation, windows
from ppo_jax.runtime.chunk_loop import run_chunk
from ppo_jax.runtime.windows import Rows
from ppo_jax.storage.files import to_json
from ppo_jax.storage.jsonl import LogFiles

IDLE = -1
LINEAGE = "lineage.jsonl"  # each decision about a setting, with its scores
LOGS = (METRICS, LINEAGE)


class SlotStatus(NamedTuple):
    """The progress of a population of K slots, beside its state; ready for JSON."""

    clock: int  # iterations of the population, of whatever settings
    settings: list[int]  # [K], IDLE for a slot without a setting
    values: list[Values]  # [K], the numbers that each slot trains with
    done: list[int]  # [K], iterations of the slot's setting
    following: int  # the next setting that has not been begun
    records: list[list[Any]]  # [rung, setting, score] of all that arrived at a rung
    returns: dict[str, list[float | None]]  # final returns by setting, of those that are done
    trained: int  # iterations of members in all
    train_seconds: float
    evaluation_steps: int = 0  # environment steps of evaluations in all
    evaluation_seconds: float = 0.0
    num_failed: int = 0  # members that failed and left: dropped at a rung, or replaced by a copy
    decided: int = 0  # the clock of the last decision; a stop may come between training and it

    @property
    def live(self) -> list[int]:
        """Slots that have a setting to train."""
        return [slot for slot, setting in enumerate(self.settings) if setting != IDLE]


class SlotPopulation(NamedTuple):
    """All that stays the same while a population of slots trains."""

    engine: Engine
    job: PackJob  # its folder and settings; members change
    options: SweepOptions
    seeds: tuple[int, ...]  # [S], of every slot
    control: pack.Control
    logs: LogFiles

    @property
    def config(self) -> Config:
        return self.job.config

    @property
    def hyper(self) -> Hyper:
        """The sweep's base."""
        return self.job.hyper

    @property
    def folder(self) -> Path:
        return self.job.folder

    @property
    def num_slots(self) -> int:
        return self.engine.width // len(self.seeds)

    def members(self, slots: Sequence[int]) -> list[int]:
        """Places on the population axis of the members of some slots."""
        size = len(self.seeds)
        return [slot * size + i for slot in slots for i in range(size)]


def open_population(
    prepared: Prepared, engine: Engine, folder: Path, control: pack.Control
) -> SlotPopulation:
    """The population of slots for a sweep's settings, with a pack folder of its own."""
    sweep, options = prepared.sweep, prepared.sweep.options
    own = folder / "packs" / "000-000"
    job = PackJob(
        folder=own,
        run_id=folders.pack_names(folder)(own),
        config=sweep.config,
        hyper=sweep.hyper,
        settings=prepared.settings,
        members=[],
        label=options.sampler,
    )
    seeds = tuple(options.seed + i for i in range(options.seeds))
    return SlotPopulation(engine, job, options, seeds, control, LogFiles(own, LOGS))


def first_status(
    population: SlotPopulation, settings: Sequence[int], values: Sequence[Values]
) -> SlotStatus:
    """K slots with their first settings."""
    missing = population.num_slots - len(settings)
    return SlotStatus(
        clock=0,
        settings=[*settings, *[IDLE] * missing],
        values=[dict(each) for each in [*values, *[values[0]] * missing]],
        done=[0] * population.num_slots,
        following=len(settings),
        records=[],
        returns={},
        trained=0,
        train_seconds=0.0,
    )


def read_status(content: dict[str, Any]) -> SlotStatus:
    """A status from JSON, in which infinities are text.

    Earlier versions scored by training episodes, and wrote null if none had ended. They saved only
    what was decided.
    """
    known = {"decided": content["clock"], **content}
    status = SlotStatus(**{name: known[name] for name in SlotStatus._fields if name in known})
    return status._replace(
        values=[read_values(values) for values in status.values],
        records=[
            [rung, setting, -math.inf if score is None else float(score)]
            for rung, setting, score in status.records
        ],
        returns={
            setting: [None if value is None else float(value) for value in per_seed]
            for setting, per_seed in status.returns.items()
        },
    )


def arrays(population: SlotPopulation, values: Sequence[Values]) -> Hyper:
    """The numbers of every member, on the devices."""
    own = [apply(population.config, population.hyper, each)[1] for each in values]
    hypers = [hyper for hyper in own for _ in population.seeds]
    return engines.stacked(population.config, hypers, population.engine.layout)


def fresh_state(population: SlotPopulation, hyper: Hyper) -> TrainState:
    """Every slot at its start: seed i of a setting starts as in any other run of it.

    Seed i has the same random key in every slot, so settings share random numbers seed by seed.
    """
    return engines.start(population.engine, hyper, list(population.seeds) * population.num_slots)


def refilled(
    population: SlotPopulation, hyper: Hyper, state: TrainState, slots: Sequence[int]
) -> TrainState:
    """`state` with some slots at their start, the others untouched."""
    is_new = np.zeros(population.engine.layout.num_members, bool)
    is_new[population.members(slots)] = True
    return population.engine.refill(state, fresh_state(population, hyper), is_new)


def copied(population: SlotPopulation, state: TrainState, sources: Sequence[int]) -> TrainState:
    """`state` in which each slot goes on from the slot that `sources` names, seed by seed.

    Copied are weights, environments and iteration, and seed i has one random key in all slots. So a
    copy draws the same numbers as its source, and differs from it by its hyper-parameters only.

    Args:
        sources: [K], the slot that each slot goes on from.
    """
    places = np.arange(population.engine.layout.num_members)
    chosen = population.members(sources)
    places[: len(chosen)] = chosen
    return population.engine.gather(state, places)


def train_slots(
    population: SlotPopulation, hyper: Hyper, state: TrainState, status: SlotStatus, length: int
) -> tuple[TrainState, SlotStatus]:
    """Train every slot that has a setting for `length` iterations, and log one row of it."""
    live = status.live
    lengths = np.zeros(population.num_slots * len(population.seeds), np.int32)
    lengths[population.members(live)] = length

    def advance(state: TrainState, length: int) -> tuple[TrainState, Rows]:
        del length  # idle slots train for none
        return engines.advance(population.engine, hyper, state, lengths.tolist())

    chunk = run_chunk(advance, state, length)
    rows = {name: value[population.members(live)] for name, value in chunk.rows.items()}
    status = counted(population, status, length, chunk.seconds)
    population.logs.write(METRICS, logged_row(population, status, rows))
    return chunk.state, status


def counted(
    population: SlotPopulation, status: SlotStatus, length: int, seconds: float
) -> SlotStatus:
    """The status after a chunk of `length` iterations of the live slots."""
    live = status.live
    return status._replace(
        clock=status.clock + length,
        done=[n + length * (slot in live) for slot, n in enumerate(status.done)],
        trained=status.trained + length * len(population.members(live)),
        train_seconds=status.train_seconds + seconds,
    )


def logged_row(population: SlotPopulation, status: SlotStatus, rows: Rows) -> dict[str, Any]:
    """The line of `metrics.jsonl` for a chunk: a number per member of the live slots."""
    batch, seeds = population.config.batch_size, population.seeds
    slots = [slot for slot in status.live for _ in seeds]
    return {
        "env_steps": status.clock * batch,
        "setting": [status.settings[slot] for slot in slots],
        "seed": [seed for _ in status.live for seed in seeds],
        "member_env_steps": [status.done[slot] * batch for slot in slots],
        "values": [to_json(status.values[slot]) for slot in slots],
        **windows.aggregate(windows.extended(None, rows)),
    }


def scores(
    population: SlotPopulation,
    hyper: Hyper,
    state: TrainState,
    status: SlotStatus,
    slots: Sequence[int],
) -> tuple[list[float], list[int], SlotStatus]:
    """`rules.score` of some slots, from whole episodes that are played now.

    Training episodes would flatter: those that have ended by now are the short ones. Seed i of
    every setting meets the same random numbers after as many iterations.

    Returns:
        The score and the number of failed seeds of each of `slots`, in their order: a mean return,
        and -inf if a seed failed. Then the status, with the cost of the episodes counted.
    """
    chosen = (slots, [status.done[slot] for slot in slots])
    played, status = _play(population, population.engine.score, hyper, state, status, chosen)
    failed = [sum(value is None for value in returns) for returns in played]
    return [rules.score(returns) for returns in played], failed, status


def final_returns(
    population: SlotPopulation,
    hyper: Hyper,
    state: TrainState,
    status: SlotStatus,
    slots: Sequence[int],
) -> tuple[list[list[float | None]], SlotStatus]:
    """Evaluation returns of the members of some slots at their end, slot by slot."""
    chosen = (slots, [evaluation.FINAL] * len(slots))
    return _play(population, population.engine.evaluate, hyper, state, status, chosen)


def _play(
    population: SlotPopulation,
    program: Callable[..., Any],
    hyper: Hyper,
    state: TrainState,
    status: SlotStatus,
    chosen: tuple[Sequence[int], Sequence[int]],
) -> tuple[list[list[float | None]], SlotStatus]:
    """Mean returns of each seed of the chosen slots, and the status with the cost counted.

    Args:
        chosen: slots, and the stream of each; the other slots play nothing.
    """
    streams = np.full(population.engine.layout.num_members, programs.SKIP, np.uint32)
    for slot, stream in zip(*chosen, strict=True):
        streams[population.members([slot])] = stream
    begin = time.perf_counter()
    returns, env_steps = engines.play(population.engine, program, hyper, state, streams)
    status = status._replace(
        evaluation_steps=status.evaluation_steps + env_steps,
        evaluation_seconds=status.evaluation_seconds + time.perf_counter() - begin,
    )
    return [[returns[i] for i in population.members([slot])] for slot in chosen[0]], status
