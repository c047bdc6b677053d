"""Successive halving in place: at each rung the best 1 / eta go on, new settings take the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ppo_jax.apps.sweep import pack, rules
from ppo_jax.apps.sweep.plan import Planned, Prepared
from ppo_jax.apps.sweep.results.summary import Outcome
from ppo_jax.apps.sweep.search import slots
from ppo_jax.apps.sweep.search.slots import IDLE, LINEAGE, Bench, Standing
from ppo_jax.config.config import Hyper
from ppo_jax.rl.types import TrainState


def run(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: pack.Control
) -> Outcome:
    """Train every setting as far as it deserves."""
    options = prepared.sweep.options
    bench = slots.open_bench(prepared, planned[0].engine, folder, control)
    config = bench.config
    first = -(-options.min_env_steps // config.batch_size)
    levels = rules.rungs(config.num_iterations, options.eta, first)

    def start() -> Standing:
        chosen = list(range(min(bench.num_slots, len(prepared.settings))))
        return slots.begin(bench, chosen, [prepared.settings[i] for i in chosen])

    standing = slots.carry_on(bench, start, partial(_loop, bench, prepared, levels), _is_over)
    everything = len(prepared.settings) * len(bench.seeds) * config.num_iterations
    begun = {i: prepared.settings[i] for i in range(standing.following)}
    more = {
        "share_of_grid": standing.trained / everything,
        "rungs_env_steps": [level * config.batch_size for level in levels],
        "slots": bench.num_slots,
    }
    return slots.outcome(bench, begun, standing, more)


def _is_over(standing: Standing) -> bool:
    return all(setting == IDLE for setting in standing.settings)


def _loop(
    bench: Bench,
    prepared: Prepared,
    levels: Sequence[int],
    hyper: Hyper,
    state: TrainState,
    standing: Standing,
) -> Standing:
    expected = rules.expected_share(len(prepared.settings), levels, bench.options.eta)
    expected *= len(prepared.settings) * len(bench.seeds) * levels[-1]
    last_saved = standing.train_seconds
    while not _is_over(standing):
        until = min(
            _event(levels, done) - done
            for setting, done in zip(standing.settings, standing.done, strict=True)
            if setting != IDLE
        )
        length = slots.next_length(bench, until)
        state, standing = slots.train(bench, hyper, state, standing, length)
        live = [slot for slot, setting in enumerate(standing.settings) if setting != IDLE]
        halfway = [slot for slot in live if standing.done[slot] in _middles(levels)]
        standing = slots.cleared(bench, standing, halfway)
        arrived = [slot for slot in live if standing.done[slot] in levels]
        if arrived:
            hyper, state, standing = decide(
                bench, prepared, levels, hyper, state, standing, arrived
            )
        is_late = standing.train_seconds - last_saved > bench.options.save_seconds
        is_stopped = bool(bench.control.stop)  # asked once
        if is_stopped or is_late:
            slots.save(bench, state, standing)
            last_saved = standing.train_seconds
        if is_stopped:
            break
        slots.show(bench, standing, min(standing.trained / expected, 0.99))
    return standing


def _middles(levels: Sequence[int]) -> set[int]:
    """Half the way to each rung, where scores begin anew: what came before it learnt is old.

    None is a rung itself, where scores are still to be read.
    """
    halves = {(low + high) // 2 for low, high in zip((0, *levels), levels, strict=False)}
    return halves - {0, *levels}


def _event(levels: Sequence[int], done: int) -> int:
    """Where a setting after `done` iterations must be looked at next."""
    return min(level for level in (*levels, *_middles(levels)) if level > done)


def decide(
    bench: Bench,
    prepared: Prepared,
    levels: Sequence[int],
    hyper: Hyper,
    state: TrainState,
    standing: Standing,
    arrived: Sequence[int],
) -> tuple[Hyper, TrainState, Standing]:
    """At a rung: finished settings are evaluated, the best go on, the rest leave their slots."""
    found = slots.scores(bench, state, standing)
    finished = [slot for slot in arrived if standing.done[slot] == levels[-1]]
    leaving = list(finished)
    returns = dict(standing.returns)
    if finished:
        played = slots.final_returns(bench, hyper, state, finished)
        for slot, values in zip(finished, played, strict=True):
            returns[str(standing.settings[slot])] = values
    records = list(standing.records)
    for level in sorted({standing.done[slot] for slot in arrived} - {levels[-1]}):
        here = [slot for slot in arrived if standing.done[slot] == level]
        pairs = [(standing.settings[slot], found[slot]) for slot in here]
        known = [
            (setting, math.nan if score is None else score)
            for rung, setting, score in records
            if rung == level
        ]
        kept = rules.survivors(pairs, known, bench.options.eta)
        leaving += [slot for slot in here if standing.settings[slot] not in kept]
        records += [[level, *pair] for pair in pairs]
    line = {
        "env_steps": standing.clock * bench.config.batch_size,
        "arrived": [
            {
                "setting": standing.settings[slot],
                "rung_env_steps": standing.done[slot] * bench.config.batch_size,
                "score": found[slot],
                "goes_on": slot not in leaving,
            }
            for slot in arrived
        ],
    }
    slots.write_line(bench.folder / LINEAGE, line)
    standing = standing._replace(records=records, returns=returns)
    standing = slots.cleared(bench, standing, arrived)
    return refill(bench, prepared, hyper, state, standing, leaving)


def refill(
    bench: Bench,
    prepared: Prepared,
    hyper: Hyper,
    state: TrainState,
    standing: Standing,
    leaving: Sequence[int],
) -> tuple[Hyper, TrainState, Standing]:
    """The next settings in the slots that others left; idle where there are none."""
    settings, values, done = list(standing.settings), list(standing.values), list(standing.done)
    following, begun = standing.following, []
    for slot in leaving:
        settings[slot], done[slot] = IDLE, 0
        if following < len(prepared.settings):
            settings[slot], values[slot] = following, dict(prepared.settings[following])
            following += 1
            begun.append(slot)
    standing = standing._replace(settings=settings, values=values, done=done, following=following)
    if begun:
        hyper = slots.arrays(bench, values)
        state = slots.refilled(bench, hyper, state, begun)
    return hyper, state, standing
