"""Population-based training in place (Jaderberg et al. 2017): copy the best, change a little.

A setting's slot has S seeds. A slot that copies another takes over the whole state of each seed.
Seed i has the same random key in every slot (common random numbers), so a copy and its source draw
the same numbers and differ by their hyper-parameters only. `rules.explore` therefore moves one at
least. The result is a schedule of numbers rather than a setting, so the winner is trained again
on fresh seeds with the schedule of its line of ancestors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack, rules
from ppo_jax.apps.sweep.axes import Values, apply, read_values
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.pack import Outcome
from ppo_jax.apps.sweep.pack_files import PackJob, PackResult
from ppo_jax.apps.sweep.plan import Planned, Prepared
from ppo_jax.apps.sweep.search import slot_run, slots
from ppo_jax.apps.sweep.search.slot_run import Moment, Strategy
from ppo_jax.apps.sweep.search.slots import LINEAGE, SlotPopulation, SlotStatus
from ppo_jax.config.config import Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import validate
from ppo_jax.rl.types import TrainState
from ppo_jax.storage import jsonl
from ppo_jax.storage.files import to_json


def run_pbt(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: pack.Control
) -> Outcome:
    """Train the population to the end of the budget, exploiting at every interval."""
    population = slots.open_population(prepared, planned[0].engine, folder, control)
    chosen = sorted(prepared.settings)

    def first_status() -> SlotStatus:
        return slots.first_status(population, chosen, [prepared.settings[i] for i in chosen])

    status = slot_run.carry_on(population, first_status, strategy_of(population, prepared))
    path = population.folder / LINEAGE
    lines = jsonl.read_jsonl(path) if path.exists() else []
    lives = {i: ancestry(lines, i, prepared.settings) for i in chosen}

    def replay(job: PackJob, engine: Engine) -> PackResult | None:
        planned = job._replace(schedule=lives[next(iter(job.settings))])
        return pack.train_pack(engine, planned, prepared.sweep.options, control)

    batch = population.config.batch_size
    schedules = {
        str(i): [{"env_steps": at * batch, "values": values} for at, values in life]
        for i, life in lives.items()
    }
    values = {i: status.values[i] for i in chosen}
    found = slot_run.outcome(population, values, status, {"schedules": schedules})
    return found._replace(replay=replay)


def strategy_of(population: SlotPopulation, prepared: Prepared) -> Strategy:
    """The strategy of pbt: copy at every interval, evaluate everyone at the end."""
    config = population.config
    last, everyone = config.num_iterations, list(range(len(prepared.settings)))
    interval = rules.interval_of(config, population.options)

    def next_event(status: SlotStatus) -> int:
        return min((status.clock // interval + 1) * interval, last) - status.clock

    def decide(hyper: Hyper, state: TrainState, status: SlotStatus) -> Moment:
        if status.clock % interval or status.clock == last:
            return hyper, state, status
        return exploit(population, prepared, hyper, state, status)

    def finish(hyper: Hyper, state: TrainState, status: SlotStatus) -> SlotStatus:
        played, status = slots.final_returns(population, hyper, state, status, everyone)
        return status._replace(returns={str(i): played[i] for i in everyone})

    return Strategy(
        until=next_event,
        decide=decide,
        is_over=lambda status: status.clock >= last,
        share=lambda status: status.clock / last,
        finish=finish,
    )


def exploit(
    population: SlotPopulation,
    prepared: Prepared,
    hyper: Hyper,
    state: TrainState,
    status: SlotStatus,
) -> Moment:
    """Let the lowest slots copy the highest and move a little away; the lineage records it."""
    generation = status.clock
    generator = np.random.default_rng([*folders.sampler_seed(population.options), generation])
    count, axes = len(prepared.settings), prepared.sweep.axes
    allows = partial(can_run, population)
    found, failed, status = slots.scores(population, hyper, state, status, range(count))
    sources = rules.exploit(found, generator)
    values = list(status.values)
    copies: list[dict[str, Any]] = []
    for slot, source in enumerate(sources):
        if source != slot:
            values[slot] = rules.explore(axes, status.values[source], generator, allows)
            copies.append({"slot": slot, "from": source, "values": to_json(values[slot])})
    steps = status.clock * population.config.batch_size
    line = {"env_steps": steps, "iteration": generation, "scores": found, "copies": copies}
    population.logs.write(LINEAGE, line)
    if copies:
        replaced = sum(failed[copy["slot"]] for copy in copies)
        status = status._replace(num_failed=status.num_failed + replaced)
        idle = range(count, population.num_slots)
        state = slots.copied(population, state, [*sources, *idle])
        status = status._replace(values=values)
        hyper = slots.arrays(population, values)
    return hyper, state, status


def can_run(population: SlotPopulation, values: Values) -> bool:
    """Check whether the numbers of a setting go together, as those of drawn settings must."""
    try:
        validate(*apply(population.config, population.hyper, values))
    except InputError:
        return False
    return True


def ancestry(
    lines: list[dict[str, Any]], slot: int, first: dict[int, Values]
) -> list[tuple[int, Values]]:
    """The schedule of the weights that end in `slot`: (from this iteration on, values)."""
    schedule: list[tuple[int, Values]] = []
    for line in reversed(lines):
        for copy in line["copies"]:
            if copy["slot"] == slot:
                schedule.append((line["iteration"], read_values(copy["values"])))
                slot = copy["from"]
                break
    return [(0, first[slot]), *reversed(schedule)]
