"""The run of a population of slots: its loop, its checkpoints, and its end.

Halving and pbt differ in a `Strategy` only: when they look at the slots, and what they do then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from ppo_jax.apps.sweep import pack_files
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.options import log_iterations
from ppo_jax.apps.sweep.pack import Outcome
from ppo_jax.apps.sweep.search import slots
from ppo_jax.apps.sweep.search.slots import IDLE, LINEAGE, LOGS, SlotPopulation, SlotStatus
from ppo_jax.config.config import Hyper
from ppo_jax.distributed import population as populations
from ppo_jax.distributed import programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import text
from ppo_jax.runtime.signals import Stopped
from ppo_jax.storage import resume_point
from ppo_jax.storage.files import to_json
from ppo_jax.storage.resume_point import Owner

Moment = tuple[Hyper, TrainState, SlotStatus]


class Strategy(NamedTuple):
    """The decisions of a sampler between chunks."""

    until: Callable[[SlotStatus], int]  # iterations to the next event
    # After each chunk. A stop may interrupt it until it changes a state or a log.
    decide: Callable[[Hyper, TrainState, SlotStatus], Moment]
    is_over: Callable[[SlotStatus], bool]  # nothing is left to train
    share: Callable[[SlotStatus], float]  # share of the training that is done
    finish: Callable[[Hyper, TrainState, SlotStatus], SlotStatus] = lambda hyper, state, status: (
        status
    )


def carry_on(
    population: SlotPopulation, first: Callable[[], SlotStatus], strategy: Strategy
) -> SlotStatus:
    """Train a population from its last state to its end, or to a stop.

    Args:
        first: the status of a new start.
    """
    job, path = population.job, population.folder / pack_files.STATUS
    was_begun = pack_files.write_pack(job, population.control.tell)
    if path.is_file():
        # A kill may have come between the result and this removal.
        shutil.rmtree(population.folder / "checkpoints", ignore_errors=True)
        shape = {"values": [dict], "records": [list]}
        return slots.read_status(pack_files.read_written(path, job.run_id, shape))
    owner = pack_files.owner_of(job, population.engine.layout)
    try:
        begun = restore_population(population, owner, first)
        if begun is None:
            if was_begun:
                population.control.tell("no checkpoint was there yet: the training begins anew")
            begun = new_population(population, first())
            save_population(population, owner, *begun[1:])
        hyper, state, status = train_population(population, owner, strategy, begun)
        if strategy.is_over(status):
            try:
                status = strategy.finish(hyper, state, status)
            except Stopped:
                save_population(population, owner, state, status)
                return status
            pack_files.write_result(path, job.run_id, status._asdict(), population.logs)
            shutil.rmtree(population.folder / "checkpoints", ignore_errors=True)
    finally:
        population.logs.close()
    return status


def train_population(
    population: SlotPopulation, owner: Owner, strategy: Strategy, begun: Moment
) -> Moment:
    """Train chunk by chunk until the strategy is over or a stop is requested, which is saved.

    A stop may interrupt the episodes that a decision plays. The state before that decision is then
    saved, and the decision is the first thing to do when the training goes on.
    """
    hyper, state, status = begun
    last_saved = status.train_seconds
    while not strategy.is_over(status):
        if status.decided == status.clock:
            length = next_length(population, strategy.until(status))
            state, status = slots.train_slots(population, hyper, state, status, length)
        try:
            hyper, state, status = strategy.decide(hyper, state, status)
        except Stopped:
            save_population(population, owner, state, status)
            break
        status = status._replace(decided=status.clock)
        is_late = status.train_seconds - last_saved > population.options.save_seconds
        is_stopped = not strategy.is_over(status) and bool(population.control.stop)  # asked once
        if is_stopped or is_late:
            save_population(population, owner, state, status)
            last_saved = status.train_seconds
        if is_stopped:
            break
        show_progress(population, status, strategy.share(status))
    return hyper, state, status


def next_length(population: SlotPopulation, until: int) -> int:
    """Iterations of the next chunk: to the next event, but a logged point at a time."""
    return min(until, log_iterations(population.config, population.options), programs.MAX_CHUNK)


def outcome(
    population: SlotPopulation,
    settings: dict[int, Values],
    status: SlotStatus,
    more: dict[str, Any],
) -> Outcome:
    """The result of a population of slots; `more` are its sampler's own entries."""
    return Outcome(
        settings=settings,
        returns={int(setting): found for setting, found in status.returns.items()},
        env_steps=status.trained * population.config.batch_size,
        train_seconds=status.train_seconds,
        compile_seconds=population.engine.compile_seconds,
        compilations=[population.engine.compilations],
        more={
            "lineage": str(population.folder / LINEAGE),
            "num_failed_early": status.num_failed,
            "evaluation_env_steps": status.evaluation_steps,
            "evaluation_seconds": round(status.evaluation_seconds, 3),
            **more,
        },
        built=[population.engine],
    )


def new_population(population: SlotPopulation, status: SlotStatus) -> Moment:
    """A population at its start."""
    hyper = slots.arrays(population, status.values)
    return hyper, slots.fresh_state(population, hyper), status


def save_population(
    population: SlotPopulation, owner: Owner, state: TrainState, status: SlotStatus
) -> None:
    """Save all that the population goes on from."""
    env_steps = status.clock * population.config.batch_size
    tree = populations.trimmed(state, population.engine.layout)
    progress = {"standing": to_json(status._asdict())}
    resume_point.save_pack(owner, env_steps, tree, progress, population.logs)


def restore_population(
    population: SlotPopulation, owner: Owner, first: Callable[[], SlotStatus]
) -> Moment | None:
    """Load the newest state of a stopped population; None for a new one."""
    layout = population.engine.layout

    def like(_: dict[str, Any]) -> TrainState:
        example = slots.arrays(population, first().values)
        whole = populations.abstract_population(population.config, example, layout)
        return populations.of_width(whole, population.engine.width)

    found = resume_point.restore_pack(owner, like, LOGS)
    if found is None:
        return None
    for note in found.notes:
        population.control.tell(note)
    status = slots.read_status(found.metadata["standing"])
    state = populations.place(populations.padded(found.tree, layout), layout)
    return slots.arrays(population, status.values), state, status


def show_progress(population: SlotPopulation, status: SlotStatus, share: float) -> None:
    """Show that `share` of the expected training is done."""
    left = text.format_seconds(status.train_seconds * (1.0 - share) / max(share, 1e-9))
    live = sum(setting != IDLE for setting in status.settings)
    words = f"{left} left, {live} of {population.num_slots} slots busy"
    population.control.show(share, f"{population.options.sampler}: {share:.0%}, {words}")
