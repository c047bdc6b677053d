"""Population-based training in place (Jaderberg et al. 2017): copy the best, change a little.

A setting's slot has S seeds; a slot that copies another takes over each seed's weights and goes on
with random numbers of its own. What comes out is a schedule of numbers rather than a setting, so
the winner is shown again by training fresh seeds with the schedule of its line of ancestors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack, rules
from ppo_jax.apps.sweep.axes import Values, read_values
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.plan import Planned, Prepared
from ppo_jax.apps.sweep.results.summary import Outcome
from ppo_jax.apps.sweep.search import slots
from ppo_jax.apps.sweep.search.slots import LINEAGE, Bench, Standing
from ppo_jax.config.config import Hyper
from ppo_jax.rl.types import TrainState
from ppo_jax.storage import jsonl
from ppo_jax.storage.files import to_json

EXPLOITS = 20  # in a run, unless said otherwise


def run(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: pack.Control
) -> Outcome:
    """Train the population to the end of the budget, exploiting at every interval."""
    bench = slots.open_bench(prepared, planned[0].engine, folder, control)
    chosen = sorted(prepared.settings)

    def start() -> Standing:
        return slots.begin(bench, chosen, [prepared.settings[i] for i in chosen])

    def is_over(standing: Standing) -> bool:
        return bool(standing.returns)

    standing = slots.carry_on(bench, start, partial(_loop, bench, prepared), is_over)
    path = bench.folder / LINEAGE
    lines = jsonl.read_jsonl(path) if path.exists() else []

    def replay(work: pack.Work, engine: Engine) -> pack.Result | None:
        setting = next(iter(work.settings))
        schedule = ancestry(lines, setting, prepared.settings)
        return train_schedule(engine, work, schedule, control)

    schedules = {
        str(i): [
            {"env_steps": at * bench.config.batch_size, "values": each}
            for at, each in ancestry(lines, i, prepared.settings)
        ]
        for i in chosen
    }
    values = {i: standing.values[i] for i in chosen}
    found = slots.outcome(bench, values, standing, {"schedules": schedules})
    return found._replace(replay=replay)


def _loop(
    bench: Bench, prepared: Prepared, hyper: Hyper, state: TrainState, standing: Standing
) -> Standing:
    config, options = bench.config, bench.options
    interval = -(-options.interval // config.batch_size)
    interval = interval or max(1, config.num_iterations // EXPLOITS)
    last_saved = standing.train_seconds
    while standing.clock < config.num_iterations:
        event = min((standing.clock // interval + 1) * interval, config.num_iterations)
        length = slots.next_length(bench, event - standing.clock)
        state, standing = slots.train(bench, hyper, state, standing, length)
        is_last = standing.clock == config.num_iterations
        if standing.clock % interval == 0 and not is_last:
            hyper, state, standing = exploit(bench, prepared, hyper, state, standing)
        is_late = standing.train_seconds - last_saved > options.save_seconds
        is_stopped = not is_last and bool(bench.control.stop)  # asked once
        if is_stopped or is_late:
            slots.save(bench, state, standing)
            last_saved = standing.train_seconds
        if is_stopped:
            return standing
        slots.show(bench, standing, standing.clock / config.num_iterations)
    everyone = range(len(prepared.settings))
    played = slots.final_returns(bench, hyper, state, list(everyone))
    return standing._replace(returns={str(i): played[i] for i in everyone})


def exploit(
    bench: Bench, prepared: Prepared, hyper: Hyper, state: TrainState, standing: Standing
) -> tuple[Hyper, TrainState, Standing]:
    """The lowest slots copy the highest and move a little away; the lineage has it all."""
    generation = standing.clock
    generator = np.random.default_rng([*folders.sampler_seed(bench.options), generation])
    count = len(prepared.settings)
    found = slots.scores(bench, state, standing)[:count]
    sources = rules.exploit(found, generator)
    values = list(standing.values)
    copies: list[dict[str, Any]] = []
    for slot, source in enumerate(sources):
        if source != slot:
            values[slot] = rules.explore(prepared.sweep.axes, standing.values[source], generator)
            told = to_json(values[slot])
            copies.append({"slot": slot, "from": source, "values": told})
    steps = standing.clock * bench.config.batch_size
    line = {"env_steps": steps, "iteration": generation, "scores": found, "copies": copies}
    slots.write_line(bench.folder / LINEAGE, line)
    standing = slots.cleared(bench, standing, range(bench.num_slots))
    if copies:
        idle = range(count, bench.num_slots)
        state = slots.copied(bench, state, [*sources, *idle])
        standing = standing._replace(values=values)
        hyper = slots.arrays(bench, values)
    return hyper, state, standing


def ancestry(
    lines: list[dict[str, Any]], slot: int, first: dict[int, Values]
) -> list[tuple[int, Values]]:
    """What the weights that end in `slot` were trained with: (from which iteration on, values)."""
    schedule: list[tuple[int, Values]] = []
    for line in reversed(lines):
        for copy in line["copies"]:
            if copy["slot"] == slot:
                schedule.append((line["iteration"], read_values(copy["values"])))
                slot = copy["from"]
                break
    return [(0, first[slot]), *reversed(schedule)]


def train_schedule(
    engine: Engine,
    work: pack.Work,
    schedule: list[tuple[int, Values]],
    control: pack.Control,
) -> pack.Result | None:
    """Fresh seeds with numbers that change at given iterations; None where a signal stopped it."""
    pack.write_pack(work)
    config, count = work.config, len(work.members)
    ends = [at for at, _ in schedule[1:]] + [config.num_iterations]
    state, hyper, iteration, seconds = None, None, 0, 0.0
    for (_, values), end in zip(schedule, ends, strict=True):
        place = work.members[0].setting
        hypers = engines.hypers_of(config, work.hyper, {place: values}, work.members)
        hyper = engines.stacked(config, hypers, engine.layout)
        if state is None:
            state = engines.start(engine, hyper, [member.seed for member in work.members])
        while iteration < end:
            if control.stop:
                return None
            length = min(end - iteration, 256)
            begin = time.perf_counter()
            state, _ = engines.advance(engine, hyper, state, [length] * count)
            seconds += time.perf_counter() - begin
            iteration += length
    assert state is not None
    assert hyper is not None
    returns, _ = engines.final_returns(engine, hyper, state)
    steps = config.num_iterations * config.batch_size
    result = pack.Result(work.members, returns[:count], steps, seconds)
    pack.finish(work, result)
    return result
