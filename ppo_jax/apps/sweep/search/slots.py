"""A population of slots that outlives its settings: what halving and pbt have in common.

A slot is the S members of one setting. The program, its width and the slots stay; between chunks
settings leave, others take their place, and copies are made on the population axis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.analysis import stats
from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep import pack as population
from ppo_jax.apps.sweep.axes import Values, apply, read_values
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.plan import Prepared
from ppo_jax.apps.sweep.results.summary import Outcome
from ppo_jax.config.config import Config, Hyper
from ppo_jax.distributed import programs
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import progress, windows
from ppo_jax.storage import checkpoint, jsonl
from ppo_jax.storage.files import to_json, write_json

IDLE = -1
LINEAGE = "lineage.jsonl"  # what became of whom, and why


class Standing(NamedTuple):
    """Where a population of K slots stands, beside its state; ready for JSON."""

    clock: int  # iterations of the population, of whatever settings
    settings: list[int]  # [K], IDLE where a slot has nothing to do
    values: list[Values]  # [K], what each slot trains with
    done: list[int]  # [K], iterations of the slot's setting
    return_sum: list[float]  # [K * S], of episodes since the scores were last cleared
    num_episodes: list[float]  # [K * S]
    following: int  # the next setting that has not been begun
    records: list[list[Any]]  # [rung, setting, score] of all that arrived at a rung
    returns: dict[str, list[float | None]]  # final returns by setting, of those that are done
    trained: int  # iterations of members in all
    train_seconds: float


class Bench(NamedTuple):
    """What stays the same while a population of slots trains."""

    engine: Engine
    config: Config
    hyper: Hyper
    options: SweepOptions
    folder: Path
    seeds: tuple[int, ...]  # [S], of every slot
    control: population.Control

    @property
    def num_slots(self) -> int:
        return self.engine.width // len(self.seeds)

    def members(self, slots: Sequence[int]) -> list[int]:
        """Places on the population axis of the members of some slots."""
        size = len(self.seeds)
        return [slot * size + i for slot in slots for i in range(size)]


def open_bench(
    prepared: Prepared, engine: Engine, folder: Path, control: population.Control
) -> Bench:
    """The bench of a sweep's settings, and the folder that its population trains in."""
    sweep, options = prepared.sweep, prepared.sweep.options
    pack = folder / "packs" / "000-000"
    work = population.Work(pack, sweep.config, sweep.hyper, prepared.settings, [], options.sampler)
    population.write_pack(work)
    seeds = tuple(options.seed + i for i in range(options.seeds))
    return Bench(engine, sweep.config, sweep.hyper, options, pack, seeds, control)


def carry_on(
    bench: Bench,
    first: Callable[[], Standing],
    loop: Callable[[Hyper, TrainState, Standing], Standing],
    is_over: Callable[[Standing], bool],
) -> Standing:
    """Where the population stands at its end, or at a stop, wherever it was before.

    Args:
        first: the standing of a new start.
        loop: trains from a standing on.
        is_over: whether nothing is left to train, so that the standing is kept for good.
    """
    path = bench.folder / "standing.json"
    if path.is_file():
        return read(json.loads(path.read_text("utf-8")))
    standing = loop(*restore(bench, ("metrics.jsonl", LINEAGE), first))
    if is_over(standing):
        write_json(path, standing._asdict())
    return standing


def outcome(
    bench: Bench, settings: dict[int, Values], standing: Standing, more: dict[str, Any]
) -> Outcome:
    """What a population of slots brought, beside what its sampler knows."""
    return Outcome(
        settings=settings,
        returns={int(setting): found for setting, found in standing.returns.items()},
        env_steps=standing.trained * bench.config.batch_size,
        train_seconds=standing.train_seconds,
        compile_seconds=bench.engine.compile_seconds,
        compilations=[bench.engine.compilations],
        more={"lineage": str(bench.folder / LINEAGE), **more},
        built=[bench.engine],
    )


def begin(bench: Bench, settings: Sequence[int], values: Sequence[Values]) -> Standing:
    """K slots with their first settings."""
    missing = bench.num_slots - len(settings)
    size = bench.num_slots * len(bench.seeds)
    return Standing(
        clock=0,
        settings=[*settings, *[IDLE] * missing],
        values=[dict(each) for each in [*values, *[values[0]] * missing]],
        done=[0] * bench.num_slots,
        return_sum=[0.0] * size,
        num_episodes=[0.0] * size,
        following=len(settings),
        records=[],
        returns={},
        trained=0,
        train_seconds=0.0,
    )


def read(content: dict[str, Any]) -> Standing:
    """A standing from JSON."""
    standing = Standing(**content)
    return standing._replace(values=[read_values(values) for values in standing.values])


def arrays(bench: Bench, values: Sequence[Values]) -> Hyper:
    """The numbers of every member, on the devices."""
    hypers = [apply(bench.config, bench.hyper, each)[1] for each in values for _ in bench.seeds]
    return engines.stacked(bench.config, hypers, bench.engine.layout)


def fresh_state(bench: Bench, hyper: Hyper) -> TrainState:
    """Every slot at its start: seed i of a setting starts as in any other run of it."""
    return engines.start(bench.engine, hyper, list(bench.seeds) * bench.num_slots)


def refilled(bench: Bench, hyper: Hyper, state: TrainState, slots: Sequence[int]) -> TrainState:
    """`state` with some slots at their start, the others untouched."""
    is_new = np.zeros(bench.engine.layout.num_members, bool)
    is_new[bench.members(slots)] = True
    return bench.engine.refill(state, fresh_state(bench, hyper), is_new)


def copied(bench: Bench, state: TrainState, sources: Sequence[int]) -> TrainState:
    """`state` in which each slot goes on from the slot that `sources` names, seed by seed."""
    places = np.arange(bench.engine.layout.num_members)
    chosen = bench.members(sources)
    places[: len(chosen)] = chosen
    return bench.engine.gather(state, places)


def train(
    bench: Bench, hyper: Hyper, state: TrainState, standing: Standing, length: int
) -> tuple[TrainState, Standing]:
    """One chunk of `length` iterations of every slot that has a setting; its rows are logged."""
    size = len(bench.seeds)
    live = [slot for slot, setting in enumerate(standing.settings) if setting != IDLE]
    lengths = np.zeros(bench.num_slots * size, np.int32)
    lengths[bench.members(live)] = length
    begin_seconds = time.perf_counter()
    state, fresh = engines.advance(bench.engine, hyper, state, lengths.tolist())
    seconds = time.perf_counter() - begin_seconds
    done = [n + length * (slot in live) for slot, n in enumerate(standing.done)]
    mine = bench.members(live)
    fresh = {name: value[mine] for name, value in fresh.items()}
    sums = np.array(standing.return_sum)
    counts = np.array(standing.num_episodes)
    sums[mine] += fresh["episode_return_sum"].sum(axis=1, dtype=np.float64)
    counts[mine] += fresh["num_episodes"].sum(axis=1, dtype=np.float64)
    standing = standing._replace(
        clock=standing.clock + length,
        done=done,
        return_sum=sums.tolist(),
        num_episodes=counts.tolist(),
        trained=standing.trained + length * len(mine),
        train_seconds=standing.train_seconds + seconds,
    )
    batch = bench.config.batch_size
    line = {
        "env_steps": standing.clock * batch,
        "setting": [standing.settings[slot] for slot in live for _ in bench.seeds],
        "seed": [seed for _ in live for seed in bench.seeds],
        "member_env_steps": [done[slot] * batch for slot in live for _ in bench.seeds],
        "values": [to_json(standing.values[slot]) for slot in live for _ in bench.seeds],
        **windows.aggregate(windows.extended(None, fresh)),
    }
    write_line(bench.folder / "metrics.jsonl", line)
    return state, standing


def write_line(path: Path, line: dict[str, Any]) -> None:
    """Append one object to a log."""
    log_file = jsonl.JsonlLog(path)
    log_file.write(line)
    log_file.close()


def scores(bench: Bench, state: TrainState, standing: Standing) -> list[float]:
    """Each slot's IQM over seeds of the returns since the scores were cleared.

    NaN where no episode of any seed ended, -inf where a seed has failed.
    """
    alive = np.asarray(state.alive)
    found = []
    for slot in range(bench.num_slots):
        mine = bench.members([slot])
        pairs = [(standing.return_sum[i], standing.num_episodes[i]) for i in mine]
        known = [total / count for total, count in pairs if count]
        failed = not alive[mine].all()
        found.append(-np.inf if failed else float(stats.iqm(known)) if known else np.nan)
    return found


def cleared(bench: Bench, standing: Standing, slots: Sequence[int]) -> Standing:
    """The scores of some slots begin anew."""
    sums, counts = list(standing.return_sum), list(standing.num_episodes)
    for member in bench.members(slots):
        sums[member] = counts[member] = 0.0
    return standing._replace(return_sum=sums, num_episodes=counts)


def save(bench: Bench, state: TrainState, standing: Standing) -> None:
    """Everything that the population goes on from."""
    env_steps = standing.clock * bench.config.batch_size
    checkpoint.save(
        checkpoint.checkpoint_folder(bench.folder, env_steps),
        programs.trimmed(state, bench.engine.layout),
        {"env_steps": env_steps, "standing": to_json(standing._asdict())},
    )
    checkpoint.prune(bench.folder, keep=2)


def restore(
    bench: Bench, logs: Sequence[str], first: Callable[[], Standing]
) -> tuple[Hyper, TrainState, Standing]:
    """The newest state of a population that was stopped, or its start."""
    newest, _ = checkpoint.latest(bench.folder)
    if newest is None:
        for name in logs:
            (bench.folder / name).unlink(missing_ok=True)
        standing = first()
        hyper = arrays(bench, standing.values)
        return hyper, fresh_state(bench, hyper), standing
    example = arrays(bench, first().values)
    whole = programs.abstract_population(bench.config, example, bench.engine.layout)
    like = population.of_width(whole, bench.engine.width)
    state, metadata = checkpoint.load(newest, like)
    for name in logs:
        jsonl.rewind_jsonl(bench.folder / name, metadata["env_steps"])
    standing = read(metadata["standing"])
    layout = bench.engine.layout
    state = programs.place(programs.padded(state, layout), layout)
    return arrays(bench, standing.values), state, standing


def final_returns(
    bench: Bench, hyper: Hyper, state: TrainState, slots: Sequence[int]
) -> list[list[float | None]]:
    """Evaluation returns of the members of some slots, slot by slot."""
    returns, _ = engines.final_returns(bench.engine, hyper, state)
    return [[returns[member] for member in bench.members([slot])] for slot in slots]


def show(bench: Bench, standing: Standing, share: float) -> None:
    """Progress: `share` of what is expected to be trained is done."""
    left = progress.format_seconds(standing.train_seconds * (1.0 - share) / max(share, 1e-9))
    live = sum(setting != IDLE for setting in standing.settings)
    words = f"{left} left, {live} of {bench.num_slots} slots busy"
    bench.control.show(share, f"{bench.options.sampler}: {share:.0%}, {words}")


def next_length(bench: Bench, until: int) -> int:
    """Iterations of the next chunk: to the next event, but a logged point at a time."""
    return min(until, population.log_iterations(bench.config, bench.options), programs.ROWS)
