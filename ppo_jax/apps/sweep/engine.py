"""A compiled population: settings x seeds of one compile group as one program on the devices."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax.apps.sweep.axes import ENV, Values, apply
from ppo_jax.apps.sweep.groups import Member, Memory, largest_pack
from ppo_jax.apps.sweep.options import SweepOptions, parse_bytes
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import door, hosts, memory, programs
from ppo_jax.distributed import population as populations
from ppo_jax.distributed.layout import (
    Layout,
    choose_member_layout,
    local_devices,
    offered_devices,
)
from ppo_jax.kernels import backend
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import evaluation
from ppo_jax.runtime.background import called, compiled, interruptible
from ppo_jax.runtime.devices import device_count, free_device_bytes, require_memory
from ppo_jax.runtime.windows import Rows
from ppo_jax.training import schedules

MEMBER_BYTES = 10_000  # on the host: the numbers of one member, as Python objects
PROGRAMS = 3 * memory.PROGRAM  # compiled after the training: start, evaluation, copies of members
MEMORY_SHARE = 0.8  # share of the free memory: evaluation and the runtime need some, too


class Engine(NamedTuple):
    """One compile group's programs, for packs of `layout.num_seeds` members."""

    config: Config
    layout: Layout
    chunk: Callable[..., Any]  # compiled: (hyper, state, n) -> (state, rows)
    init: Callable[..., TrainState]
    evaluate: Callable[..., Any]  # (hyper, state, stream) -> Episodes [members, n], at the end
    score: Callable[..., Any]  # the same with `score_episodes`, for decisions during training
    gather: Callable[..., TrainState]  # see populations.make_gather
    refill: Callable[..., TrainState]  # see populations.make_refill
    memory: Memory  # on one device
    limit: int  # bytes that one device offers
    compilations: int  # programs compiled for training: 1, and more only if it did not fit at once
    compile_seconds: float

    @property
    def width(self) -> int:
        """Members of a pack; `layout.num_members` counts the padding of the devices, too."""
        return self.layout.num_seeds


def build(
    config: Config, hyper: Hyper, num_members: int, options: SweepOptions, what: str
) -> Engine:
    """Compile a group's training program for as many of its members as the device holds.

    Args:
        config: the group's. hyper: one of its settings, for the shapes of its numbers; that of
            the longest episodes, which an evaluation does not cut, see `longest`.
        what: the group in words, for the error if it does not fit.

    Raises:
        InputError: the device is too small for one member.
    """
    start = time.perf_counter()
    limit, compilations, (layout, program) = compile_widest(
        config, hyper, num_members, options, what
    )
    if not backend.is_cpu_device(layout.devices[0]):  # the host's memory is another one
        require_memory(forecast_of(config, layout, program, options), layout.own_device)
    evaluate, score = (
        interruptible(
            programs.make_evaluation(
                config,
                layout,
                num_episodes,
                evaluation.max_steps(config, hyper),
                evaluation.policy_mode(config, options.policy_mode) == "deterministic",
            )
        )
        for num_episodes in (options.eval_episodes, options.score_episodes)
    )
    return Engine(
        config=config,
        layout=layout,
        chunk=program,
        init=interruptible(populations.make_init(config)),
        evaluate=evaluate,
        score=score,
        gather=populations.make_gather(layout),
        refill=populations.make_refill(layout),
        memory=memory_of(config, layout, program, options),
        limit=limit,
        compilations=compilations,
        compile_seconds=time.perf_counter() - start,
    )


def compile_widest(
    config: Config, hyper: Hyper, num_members: int, options: SweepOptions, what: str
) -> tuple[int, int, tuple[Layout, Any]]:
    """Bytes that a device offers, the number of compilations, and the widest program that fits."""
    found: dict[int, tuple[Layout, Any]] = {}
    count = device_count(options.run_options())
    arrays = schedules.as_arrays(config, hyper)

    def compile_for(members: int) -> Memory:
        layout = choose_pack_layout(config, members, count, options.layout)
        if members not in found:
            found[members] = layout, compiled(lower(config, arrays, layout))
        return memory_of(config, *found[members], options)

    devices = offered_devices(count)
    own = devices if hosts.count() == 1 else local_devices(len(devices) // hosts.count())
    limit = min(hosts.exchange(device_bytes(own[0], len(own), options.device_memory)))
    width = largest_pack(compile_for, num_members, len(devices), limit, what)
    num_packs = -(-num_members // width)
    width = -(-num_members // num_packs)  # packs of equal size
    compile_for(width)
    return limit, len(found), found[width]


def fastest(
    config: Config, hyper: Hyper, num_members: int, options: SweepOptions, what: str
) -> Engine:
    """Build an engine; if the layout is to be measured, the faster one of the two."""
    if options.layout != "measure":
        return build(config, hyper, num_members, options, what)
    built = [
        build(config, hyper, num_members, dataclasses.replace(options, layout=kind), what)
        for kind in ("map", "vmap")
    ]

    def seconds(engine: Engine) -> float:
        return seconds_per_iteration(engine, [hyper] * engine.width) / engine.width

    best = min(built, key=seconds)
    return best._replace(
        compilations=sum(engine.compilations for engine in built),
        compile_seconds=sum(engine.compile_seconds for engine in built),
    )


def longest(config: Config, hyper: Hyper, settings: Sequence[Values]) -> Hyper:
    """The numbers of the setting whose episodes may last longest, the first of several.

    Members of a pack share the step at which an evaluation cuts an episode. It must not come before
    the time limit of any of them.
    """
    if not any(name.startswith(ENV) for values in settings for name in values):
        return apply(config, hyper, settings[0])[1]

    def steps(numbers: Hyper) -> int:
        with suppress(InputError):  # an end of an axis that no setting can have beside the others
            return evaluation.max_steps(config, numbers)
        return 0

    return max((apply(config, hyper, values)[1] for values in settings), key=steps)


def choose_pack_layout(
    config: Config, num_members: int, num_devices: int | None, wanted: str
) -> Layout:
    """The layout asked for, or the usual one for a run; no member is split over devices."""
    layout = choose_member_layout(config, num_members, num_devices)
    return layout._replace(kind=wanted) if wanted in ("map", "vmap") else layout


def lower(config: Config, arrays: Hyper, layout: Layout) -> Any:
    """Lower the training program from shapes alone: nothing is allocated."""
    hyper = populations.place_hyper(widened(arrays, layout.num_members), layout)
    state = populations.abstract_population(config, hyper, layout)
    n = np.int32(1) if layout.kind == "vmap" else np.ones(layout.num_members, np.int32)
    n = populations.place_lengths(n, layout)
    return programs.make_chunk(config, layout).lower(hyper, state, n)


def widened(arrays: Hyper, count: int) -> Hyper:
    """Repeat one setting's numbers for `count` members."""
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), arrays)


def stacked(config: Config, hypers: Sequence[Hyper], layout: Layout) -> Hyper:
    """Stack the members' numbers on the member axis; the first one fills up the devices."""
    hypers = [*hypers, *[hypers[0]] * (layout.num_members - len(hypers))]
    known = {id(hyper): schedules.as_arrays(config, hyper) for hyper in _distinct(hypers)}
    arrays = [known[id(hyper)] for hyper in hypers]
    joined = jax.tree.map(lambda *leaves: np.stack(leaves), *arrays)
    return populations.place_hyper(joined, layout)


def hypers_of(
    config: Config, hyper: Hyper, settings: Mapping[int, Values], members: Sequence[Member]
) -> list[Hyper]:
    """The members' own numbers; the seeds of a setting share one object."""
    known = {place: apply(config, hyper, values)[1] for place, values in settings.items()}
    return [known[member.setting] for member in members]


def _distinct(hypers: Sequence[Hyper]) -> list[Hyper]:
    """Each object once."""
    return list({id(hyper): hyper for hyper in hypers}.values())


def start(engine: Engine, hyper: Hyper, seeds: Sequence[int]) -> TrainState:
    """The members' first states, equal to those of a run of that seed alone."""
    seeds = [*seeds, *[seeds[0]] * (engine.layout.num_members - len(seeds))]
    keys = populations.member_keys(seeds, engine.layout)
    # Members start one after the other on one device. From numbers that are spread over devices XLA
    # would make a loop of collectives, in which the devices of a CPU wait for each other.
    here = door.fetch(hyper)
    return populations.place(engine.init(here, keys), engine.layout)


def advance(
    engine: Engine, hyper: Hyper, state: TrainState, lengths: int | Sequence[int]
) -> tuple[TrainState, Rows]:
    """Train all members for one length, or each for its own; return the rows of the pack.

    If members run side by side, all of them train for the longest of `lengths`.
    """
    each = lengths_of(engine, lengths)
    state, rows = engine.chunk(hyper, state, populations.place_lengths(each, engine.layout))
    longest = int(each.max())
    rows = door.fetch_rows(rows, longest)
    return state, {name: value[: engine.width, :longest] for name, value in rows.items()}


def lengths_of(engine: Engine, lengths: int | Sequence[int]) -> np.ndarray | np.int32:
    """Iterations of each member; the longest of them if all run side by side."""
    given = np.atleast_1d(np.asarray(lengths, np.int32))
    each = np.zeros(engine.layout.num_members, np.int32)
    count = engine.width if np.ndim(lengths) == 0 else len(given)
    each[:count] = given  # padding of the pack and of the devices need not train
    return np.int32(each.max()) if engine.layout.kind == "vmap" else each


def advance_all(
    engine: Engine, hyper: Hyper, count: int, state: TrainState, length: int
) -> tuple[TrainState, Rows]:
    """Train the first `count` members for `length` iterations each, see `advance`."""
    return advance(engine, hyper, state, [length] * count)


def final_returns(engine: Engine, hyper: Hyper, state: TrainState) -> list[float | None]:
    """Mean evaluation return of each member, None if it failed."""
    return play(engine, engine.evaluate, hyper, state, np.uint32(evaluation.FINAL))[0]


def play(
    engine: Engine, program: Callable[..., Any], hyper: Hyper, state: TrainState, stream: Any
) -> tuple[list[float | None], int]:
    """Mean return of each member's whole episodes, None if it failed, and environment steps.

    Args:
        program: `engine.evaluate` or `engine.score`.
        stream: of the random numbers, for all or for each member, see `programs.make_evaluation`.
    """
    played = door.fetch(program(hyper, state, stream))
    played = jax.tree.map(lambda leaf: leaf[: engine.width], played)
    alive = evaluation.alive_seeds(state, engine.layout)
    return evaluation.mean_returns(played, alive), int(played.length.sum(dtype=np.int64))


def seconds_per_iteration(engine: Engine, hypers: Sequence[Hyper]) -> float:
    """Time of the second of two iterations of a pack, on a throw-away state."""
    hyper = stacked(engine.config, hypers, engine.layout)
    state = start(engine, hyper, range(engine.width))
    lengths = populations.place_lengths(lengths_of(engine, 1), engine.layout)
    seconds = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        state, rows = called(engine.chunk, hyper, state, lengths)
        door.fetch_rows(rows, 1)
        seconds = time.perf_counter() - begin
    return hosts.from_first(seconds)


def memory_of(config: Config, layout: Layout, program: Any, options: SweepOptions) -> Memory:
    """One device's share of the forecast of a pack."""
    found = forecast_of(config, layout, program, options)
    total = found.main // found.num_devices if found.is_cpu else found.device
    state, tables = (size // found.num_devices for size in (found.state, found.tables))
    return Memory(state, tables, total - state - tables)


def forecast_of(
    config: Config, layout: Layout, program: Any, options: SweepOptions
) -> memory.Forecast:
    """Forecast a pack's memory from its compiled program."""
    hyper = widened(schedules.as_arrays(config, Hyper()), layout.num_members)
    shapes = populations.abstract_population(config, hyper, layout)
    use = memory.Use(options.eval_episodes, MEMBER_BYTES, programs=0)  # see `device_bytes`
    return memory.forecast(config, layout, shapes, use).with_program(program)


def device_bytes(device: Any, num_devices: int, wanted: str | None) -> int:
    """Bytes that a pack may use on one device: `wanted`, or a share of the free memory."""
    if wanted is not None:
        return parse_bytes(wanted)
    offered = int(MEMORY_SHARE * free_device_bytes(device, num_devices))
    is_main = backend.is_cpu_device(device)
    return max(offered - is_main * PROGRAMS // num_devices, 0)
