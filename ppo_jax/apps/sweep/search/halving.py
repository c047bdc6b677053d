"""Successive halving in place: at each rung the best 1 / eta go on, new settings take the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.sweep import rules
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.pack import Control, Outcome
from ppo_jax.apps.sweep.plan import Planned, Prepared
from ppo_jax.apps.sweep.search import slot_run, slots
from ppo_jax.apps.sweep.search.slot_run import Moment, Strategy
from ppo_jax.apps.sweep.search.slots import IDLE, LINEAGE, SlotPopulation, SlotStatus
from ppo_jax.config.config import Hyper
from ppo_jax.rl.types import TrainState


class Halving(NamedTuple):
    """A population that is halved at rungs."""

    population: SlotPopulation
    settings: dict[int, Values]  # all of them, in the order in which they begin
    levels: tuple[int, ...]  # iterations of the rungs, the last being the whole budget


def run_halving(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: Control
) -> Outcome:
    """Train every setting as far as it deserves."""
    population = slots.open_population(prepared, planned[0].engine, folder, control)
    config = population.config
    levels = rules.levels_of(config, prepared.sweep.options)
    halving = Halving(population, prepared.settings, levels)

    def first_status() -> SlotStatus:
        chosen = list(range(min(population.num_slots, len(prepared.settings))))
        return slots.first_status(population, chosen, [prepared.settings[i] for i in chosen])

    status = slot_run.carry_on(population, first_status, strategy_of(halving))
    everything = len(prepared.settings) * len(population.seeds) * config.num_iterations
    begun = {i: prepared.settings[i] for i in range(status.following)}
    more = {
        "share_of_grid": status.trained / everything,
        "rungs_env_steps": [level * config.batch_size for level in levels],
        "slots": population.num_slots,
    }
    return slot_run.outcome(population, begun, status, more)


def strategy_of(halving: Halving) -> Strategy:
    """The strategy of halving: look at every rung."""
    count, eta = len(halving.settings), halving.population.options.eta
    expected = rules.expected_share(count, halving.levels, eta)
    expected *= count * len(halving.population.seeds) * halving.levels[-1]
    return Strategy(
        until=partial(next_event, halving.levels),
        decide=partial(decide, halving),
        is_over=lambda status: not status.live,
        share=lambda status: min(status.trained / expected, 0.99),
    )


def next_event(levels: Sequence[int], status: SlotStatus) -> int:
    """Iterations until the first slot reaches a rung.

    Args:
        levels: iterations of the rungs, rising.
        status: with a setting in one slot at least, and every decision made, so that no slot stands
            at the last rung.
    """
    done = [status.done[slot] for slot in status.live]
    return min(min(level for level in levels if level > n) - n for n in done)


def decide(halving: Halving, hyper: Hyper, state: TrainState, status: SlotStatus) -> Moment:
    """Judge the slots that have arrived at a rung by whole episodes."""
    population = halving.population
    arrived = [slot for slot in status.live if status.done[slot] in halving.levels]
    if not arrived:
        return hyper, state, status
    finished = [slot for slot in arrived if status.done[slot] == halving.levels[-1]]
    waiting = [slot for slot in arrived if slot not in finished]
    scores: dict[int, float] = {}
    if waiting:
        found, failed, status = slots.scores(population, hyper, state, status, waiting)
        scores |= zip(waiting, found, strict=True)
        # A setting with a failed seed is dropped here, so each is counted once.
        status = status._replace(num_failed=status.num_failed + sum(failed))
    if finished:
        played, status = slots.final_returns(population, hyper, state, status, finished)
        scores |= zip(finished, map(rules.score, played), strict=True)
        named = {str(status.settings[i]): own for i, own in zip(finished, played, strict=True)}
        status = status._replace(returns={**status.returns, **named})
    pruned, records = judge(halving, status, scores, waiting)
    leaving = finished + pruned
    line = lineage_line(population, status, scores, arrived, leaving)
    moment = refill(halving, hyper, state, status._replace(records=records), leaving)
    population.logs.write(LINEAGE, line)  # last, as a stop may interrupt the new settings' start
    return moment


def judge(
    halving: Halving, status: SlotStatus, scores: Mapping[int, float], arrived: Sequence[int]
) -> tuple[list[int], list[list[Any]]]:
    """Slots that are pruned at their rung, and the records with all that arrived.

    Args:
        scores: by slot. arrived: slots at a rung before the last.
    """
    pruned: list[int] = []
    records = list(status.records)
    for level in sorted({status.done[slot] for slot in arrived}):
        here = [slot for slot in arrived if status.done[slot] == level]
        pairs = [(status.settings[slot], scores[slot]) for slot in here]
        known = [(setting, score) for rung, setting, score in records if rung == level]
        kept = rules.survivors(pairs, known, halving.population.options.eta)
        pruned += [slot for slot in here if status.settings[slot] not in kept]
        records += [[level, *pair] for pair in pairs]
    return pruned, records


def lineage_line(
    population: SlotPopulation,
    status: SlotStatus,
    scores: Mapping[int, float],
    arrived: Sequence[int],
    leaving: Sequence[int],
) -> dict[str, Any]:
    """The line of `lineage.jsonl` about the slots that arrived at a rung."""
    batch = population.config.batch_size
    return {
        "env_steps": status.clock * batch,
        "arrived": [
            {
                "setting": status.settings[slot],
                "rung_env_steps": status.done[slot] * batch,
                "score": scores[slot],
                "goes_on": slot not in leaving,
            }
            for slot in arrived
        ],
    }


def refill(
    halving: Halving,
    hyper: Hyper,
    state: TrainState,
    status: SlotStatus,
    leaving: Sequence[int],
) -> Moment:
    """Put the next settings into the slots that others left; idle if there are none."""
    settings, values, done = list(status.settings), list(status.values), list(status.done)
    following, begun = status.following, []
    for slot in leaving:
        settings[slot], done[slot] = IDLE, 0
        if following < len(halving.settings):
            settings[slot], values[slot] = following, dict(halving.settings[following])
            following += 1
            begun.append(slot)
    status = status._replace(settings=settings, values=values, done=done, following=following)
    if begun:
        hyper = slots.arrays(halving.population, values)
        state = slots.refilled(halving.population, hyper, state, begun)
    return hyper, state, status
