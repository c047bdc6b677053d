"""The run of a population of slots: its loop, its checkpoints, and its end.

Halving and pbt differ in a `Strategy` only: when they look at the slots, and what they do then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ppo_jax.apps.sweep import pack
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.pack import Outcome
from ppo_jax.apps.sweep.search import slots
from ppo_jax.apps.sweep.search.slots import IDLE, LINEAGE, SlotPopulation, SlotStatus
from ppo_jax.config.config import Hyper
from ppo_jax.config.reading import read_record
from ppo_jax.distributed import population as populations
from ppo_jax.distributed import programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import progress
from ppo_jax.storage import checkpoint, jsonl
from ppo_jax.storage.files import to_json, write_json

STATUS = "standing.json"

Moment = tuple[Hyper, TrainState, SlotStatus]


class Strategy(NamedTuple):
    """The decisions of a sampler between chunks."""

    until: Callable[[SlotStatus], int]  # iterations to the next event
    decide: Callable[[Hyper, TrainState, SlotStatus], Moment]  # after each chunk
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
    path = population.folder / STATUS
    if path.is_file():
        return slots.read_status(read_record(path, {"values": [dict], "records": [list]}))
    begun = restore_population(population, ("metrics.jsonl", LINEAGE), first)
    hyper, state, status = train_population(population, strategy, *begun)
    if strategy.is_over(status):
        status = strategy.finish(hyper, state, status)
        write_json(path, status._asdict())
    return status


def train_population(
    population: SlotPopulation,
    strategy: Strategy,
    hyper: Hyper,
    state: TrainState,
    status: SlotStatus,
) -> Moment:
    """Train chunk by chunk until the strategy is over or a stop is requested, which is saved."""
    last_saved = status.train_seconds
    while not strategy.is_over(status):
        length = next_length(population, strategy.until(status))
        state, status = slots.train_slots(population, hyper, state, status, length)
        hyper, state, status = strategy.decide(hyper, state, status)
        is_late = status.train_seconds - last_saved > population.options.save_seconds
        is_stopped = not strategy.is_over(status) and bool(population.control.stop)  # asked once
        if is_stopped or is_late:
            save_population(population, state, status)
            last_saved = status.train_seconds
        if is_stopped:
            break
        show_progress(population, status, strategy.share(status))
    return hyper, state, status


def next_length(population: SlotPopulation, until: int) -> int:
    """Iterations of the next chunk: to the next event, but a logged point at a time."""
    return min(
        until, pack.log_iterations(population.config, population.options), programs.MAX_CHUNK
    )


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
        more={"lineage": str(population.folder / LINEAGE), **more},
        built=[population.engine],
    )


def save_population(population: SlotPopulation, state: TrainState, status: SlotStatus) -> None:
    """Save all that the population goes on from."""
    env_steps = status.clock * population.config.batch_size
    checkpoint.save(
        checkpoint.checkpoint_folder(population.folder, env_steps),
        populations.trimmed(state, population.engine.layout),
        {"env_steps": env_steps, "standing": to_json(status._asdict())},
    )
    checkpoint.prune(population.folder, keep=2)


def restore_population(
    population: SlotPopulation, logs: Sequence[str], first: Callable[[], SlotStatus]
) -> tuple[Hyper, TrainState, SlotStatus]:
    """Load the newest state of a stopped population, or make its start."""
    newest, _ = checkpoint.latest(population.folder)
    if newest is None:
        for name in logs:
            (population.folder / name).unlink(missing_ok=True)
        status = first()
        hyper = slots.arrays(population, status.values)
        return hyper, slots.fresh_state(population, hyper), status
    example = slots.arrays(population, first().values)
    whole = populations.abstract_population(population.config, example, population.engine.layout)
    like = pack.of_width(whole, population.engine.width)
    state, metadata = checkpoint.load(newest, like)
    for name in logs:
        jsonl.rewind_jsonl(population.folder / name, metadata["env_steps"])
    status = slots.read_status(metadata["standing"])
    layout = population.engine.layout
    state = populations.place(populations.padded(state, layout), layout)
    return slots.arrays(population, status.values), state, status


def show_progress(population: SlotPopulation, status: SlotStatus, share: float) -> None:
    """Show that `share` of the expected training is done."""
    left = progress.format_seconds(status.train_seconds * (1.0 - share) / max(share, 1e-9))
    live = sum(setting != IDLE for setting in status.settings)
    words = f"{left} left, {live} of {population.num_slots} slots busy"
    population.control.show(share, f"{population.options.sampler}: {share:.0%}, {words}")
