"""The plan of a sweep: its settings, compile groups, packs, memory and expected time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.sweep import axes as axis_words
from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import groups as plan
from ppo_jax.apps.sweep import rules, samplers
from ppo_jax.apps.sweep.axes import Values
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import (
    LAYOUTS,
    MAX_MEMBERS,
    NUMERIC_ONLY,
    SweepOptions,
    log_iterations,
    validate_sweep,
    with_changes,
)
from ppo_jax.apps.sweep.results import table
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.reading import read_record
from ppo_jax.config.validate import check_count, validate
from ppo_jax.distributed import hosts
from ppo_jax.distributed.hosted import REFUSED
from ppo_jax.envs.interface import refuse_host
from ppo_jax.models.agent import assemble, env_params
from ppo_jax.runtime import devices, signals, text
from ppo_jax.storage import run_folder
from ppo_jax.storage.fingerprint import program_words
from ppo_jax.storage.sealed import checksum, read_sealed, write_first_sealed, write_sealed

PLAN = "plan.json"


class Prepared(NamedTuple):
    """A sweep whose settings are known and have been checked."""

    sweep: Sweep  # with the budget settled
    settings: dict[int, Values]
    groups: list[plan.Group]


class Planned(NamedTuple):
    """A group with its compiled program, its packs and its expected time."""

    group: plan.Group
    engine: engines.Engine
    packs: list[list[plan.Member]]
    seconds: float  # expected


def check(sweep: Sweep) -> None:
    """Refuse every error that can be found without jax.

    Raises:
        InputError: an option or axis is wrong; the message names value, rule and remedy.
    """
    validate_sweep(sweep.options)
    validate(sweep.config, sweep.hyper)
    if sweep.axes or sweep.changes == [{}]:
        axis_words.check(sweep.axes, sweep.options)
    if len(sweep.changes) > 1 and sweep.options.sampler != "grid":
        raise InputError(
            f"arrays in hyper are settings of their own, and sampler {sweep.options.sampler} "
            "cannot choose them: name axes instead."
        )
    axis_words.check_values(sweep.axes, sweep.config, sweep.hyper)
    folders.check(sweep.options.out)


def prepare(sweep: Sweep) -> Prepared:
    """Draw the settings of grid and random, or the first settings of the other samplers.

    Raises:
        InputError: the sweep cannot run.
    """
    check(sweep)
    options = sweep.options
    devices.prepare_jax(options.run_options())
    devices.device_count(options.run_options())
    hosts.require_equal(lambda: common_settings(sweep))
    environment = assemble(sweep.config).environment
    refuse_host(environment, *REFUSED["sweep"])
    axes = samplers.whole_env_ranges(sweep.axes, environment.default_params)
    if options.sampler == "grid":
        points = math.prod(len(axis.choices) for axis in axes)
        count_members(points * len(sweep.changes), options.seeds)
        chosen = samplers.crossed(sweep.changes, axis_words.grid(axes))
        config, _ = samplers.settle_budget(
            sweep.config, "grid", options.budget, len(chosen), options.seeds
        )
    elif axis_words.takes_points(sweep.axes, options):
        config, chosen = sweep.config, samplers.shuffled_grid(axes, folders.sampler_seed(options))
        if options.budget is not None:
            config, count = samplers.settle_budget(
                config, options.sampler, options.budget, None, options.seeds
            )
            chosen = chosen[:count]
        options = dataclasses.replace(options, settings=len(chosen))
    else:
        config, count = samplers.settle_budget(
            sweep.config, options.sampler, options.budget, options.settings, options.seeds
        )
        options = dataclasses.replace(options, settings=count)
        generator = np.random.default_rng(folders.sampler_seed(options))
        chosen = samplers.random(axes, count, generator)
        if options.sampler == "tpe":  # its settings come from the study: these represent programs
            chosen = axis_words.grid([a._replace(choices=a.examples()[:1]) for a in axes])
    rules.require_some(config, options)
    count = options.settings or len(chosen)
    count_members(count, options.seeds)
    if count * options.seeds < hosts.count():
        raise InputError(
            f"{count} settings x {options.seeds} seeds do not keep {hosts.count()} hosts busy: "
            "take fewer hosts, or more settings or seeds."
        )
    count_members(options.batch if options.sampler == "tpe" else 1, options.seeds)
    groups = plan.compile_groups(config, sweep.hyper, chosen)
    for values in chosen:
        signals.check()
        one, numbers = axis_words.apply(config, sweep.hyper, values)
        env_params(assemble(one).environment, numbers)  # refuses unknown names
    hosts.on_first(lambda: require_table(config, options, count))
    settled = sweep._replace(config=config, axes=axes, options=options)
    return Prepared(settled, dict(enumerate(chosen)), groups)


def common_settings(sweep: Sweep) -> dict[str, str]:
    """The settings and programs that all hosts of a sweep must have, in words."""
    content = folders.describe(sweep)
    named = {**content["config"], **content["hyper"], **content["sweep"], **content["axes"]}
    words = {name: str(value) for name, value in named.items() if name != "quiet"}
    changes = checksum({"changes": content["changes"]})
    return {**words, "changes": changes, **program_words(sweep.config)}


def count_members(num_settings: int, num_seeds: int) -> None:
    """Refuse a sweep of too many runs, before any is listed."""
    if num_settings * num_seeds > MAX_MEMBERS:
        raise InputError(
            f"{num_settings} settings x {num_seeds} seeds are {num_settings * num_seeds} runs, and "
            f"a sweep takes at most {MAX_MEMBERS}: take fewer settings or seeds."
        )


def require_table(config: Config, options: SweepOptions, num_settings: int) -> None:
    """Refuse a sweep whose table of all logged points needs more memory than there is."""
    points = -(-config.num_iterations // log_iterations(config, options))
    needed = table.ROW_BYTES * points * num_settings * options.seeds
    offered = devices.free_memory_bytes()
    if needed > offered:
        raise InputError(
            f"The table of {num_settings * options.seeds:,} runs x {points:,} logged points needs "
            f"about {plan.show_bytes(needed)} of main memory, and {plan.show_bytes(offered)} are "
            "free: raise --log-every, or take fewer settings or seeds."
        )


def plan_group(prepared: Prepared, group: plan.Group, known: Mapping[str, Any] | None) -> Planned:
    """Compile a group's program and measure an iteration.

    Args:
        known: width and layout of a sweep that goes on and keeps its packs; None for a new one.

    Raises:
        InputError: the device has too little memory for one member, or for the packs of `known`.
    """
    sweep, options = prepared.sweep, prepared.sweep.options
    members = plan.members_of(group, options.seed, options.seeds)
    own = [prepared.settings[place] for place in group.settings]
    example = engines.longest(group.config, sweep.hyper, own)
    width = -(-len(members) // min(options.packs, len(members)))
    if known is not None:
        width = known["width"]
        options = with_changes(options, {"layout": known["layout"]})
    engine = engines.fastest(group.config, example, width, options, group.words)
    if known is not None and engine.width < width:
        raise InputError(
            f"this sweep began with packs of {width} members, and the device now has memory "
            f"for {engine.width}: free some memory, or start again in another folder."
        )
    packs = plan.packs_of(members, engine.width)
    each = engines.seconds_per_iteration(engine, [example] * engine.width)
    return Planned(group, engine, packs, each * group.config.num_iterations * len(packs))


def plan_slots(prepared: Prepared, known: Mapping[str, Any] | None) -> Planned:
    """Compile the one program of a sampler that keeps a population of slots.

    Raises:
        InputError: the slots do not fit the device.
    """
    sweep, options, group = prepared.sweep, prepared.sweep.options, prepared.groups[0]
    members = plan.members_of(group, options.seed, options.seeds)
    reached = list(prepared.settings.values())
    if options.sampler == "pbt":  # its numbers move between the ends of the axes
        reached += axis_words.env_ends(sweep.axes, reached[0])
    example = engines.longest(group.config, sweep.hyper, reached)
    count, total = len(prepared.settings), sweep.config.num_iterations
    kind = engines.choose_pack_layout(group.config, len(members), None, options.layout).kind
    num_slots = count
    if options.sampler == "halving":
        num_slots = min(count, options.slots or idle_free(count, kind, options.eta))
    if known:  # memory may have narrowed them at the start
        num_slots = known["width"] // options.seeds
    width = known["width"] if known else num_slots * options.seeds
    options = with_changes(options, {"layout": known["layout"] if known else kind})
    engine = engines.build(group.config, example, width, options, group.words)
    fits = engine.width // options.seeds
    if fits < (num_slots if options.sampler == "pbt" or known else 1):
        raise InputError(
            f"{num_slots} settings x {options.seeds} seeds of sampler {options.sampler} train at "
            f"the same time, and only {engine.width} members fit into the "
            f"{plan.show_bytes(engine.limit)} of the device: take fewer settings or seeds, or a "
            "smaller num_envs."
        )
    iterations = float(total)
    if options.sampler == "halving":
        levels = rules.levels_of(sweep.config, options)
        share = rules.expected_share(count, levels, options.eta)
        iterations = max(total, share * total * count / fits)
    each = engines.seconds_per_iteration(engine, [example] * engine.width)
    return Planned(group, engine, [members[: fits * options.seeds]], each * iterations)


def plan_batches(prepared: Prepared) -> Planned:
    """Compile the first program of a study; further ones follow when a setting needs them."""
    options, group = prepared.sweep.options, prepared.groups[0]
    example = longest_to_come(prepared, group.config, prepared.settings[0])
    width = options.batch * options.seeds
    engine = engines.fastest(group.config, example, width, options, group.words)
    each = engines.seconds_per_iteration(engine, [example] * engine.width)
    members = plan.members_of(group, options.seed, options.seeds)  # represent those to come
    packs = plan.packs_of(members * (options.settings or 1), engine.width)
    return Planned(group, engine, packs, each * group.config.num_iterations * len(packs))


def longest_to_come(prepared: Prepared, config: Config, values: Values) -> Hyper:
    """The numbers with the longest episodes that a study may propose to the program of `values`."""
    settings = [values, *axis_words.env_ends(prepared.sweep.axes, values)]
    return engines.longest(config, prepared.sweep.hyper, settings)


def idle_free(count: int, kind: str, eta: int) -> int:
    """Slots of a halving: one per setting if idle members cost nothing, else 1 / eta of that.

    Members that run side by side train with or without a setting. Fewer slots, refilled more
    often, then waste less.
    """
    return count if kind == "map" else -(-count // eta)


def plan_lines(prepared: Prepared, planned: Sequence[Planned], source: str | None) -> list[str]:
    """Describe the plan in lines of text."""
    sweep, options = prepared.sweep, prepared.sweep.options
    num_settings = options.settings or len(prepared.settings)
    count = num_settings * options.seeds
    steps = sweep.config.trained_env_steps
    words = ", ".join(f"{axis.name} ({len(axis.choices) or 'range'})" for axis in sweep.axes)
    lines = [] if source is None else [f"settings: {source}"]
    unread = axis_words.without_readers(sweep.axes, sweep.config, sweep.hyper)
    lines += [f"note: {sentence}" for sentence in unread]
    lines.append(
        f"{run_folder.env_name(sweep.config)}: {num_settings} settings x "
        f"{options.seeds} seeds = {count} members of {steps:,} environment steps each "
        f"({text.format_steps(count * steps)} in all), {options.sampler} over "
        f"{words or 'hyper'}"
    )
    for number, each in enumerate(planned, 1):
        lines.append(f"group {number} of {len(planned)}, {group_line(each)}")
    if options.sampler == "tpe" and not all(axis.is_numeric for axis in sweep.axes):
        lines[-1] += "; further programs are compiled when a setting needs them"
    total = sum(each.seconds for each in planned)
    lines.append(f"expected: {text.format_seconds(total)} of training")
    if options.sampler in NUMERIC_ONLY:
        lines[-1] += f", and {num_scores(prepared) * options.score_episodes:,} whole episodes"
        lines[-1] += f" ({options.score_episodes} of a member) for the decisions"
    if options.num_fresh_seeds:
        lines[-1] += f", then the winner on {options.num_fresh_seeds} fresh seeds"
    return lines


def num_scores(prepared: Prepared) -> int:
    """Members that halving or pbt scores in all, each time that it decides about them."""
    options, config = prepared.sweep.options, prepared.sweep.config
    count = len(prepared.settings)
    if options.sampler == "halving":
        levels = rules.levels_of(config, options)
        return options.seeds * rules.expected_arrivals(count, levels, options.eta)
    interval = rules.interval_of(config, options)
    return options.seeds * count * ((config.num_iterations - 1) // interval)


def group_line(planned: Planned) -> str:
    """Describe one group of the plan in a line."""
    engine, packs = planned.engine, planned.packs
    device = engine.layout.devices[0].platform
    sizes = f"{len(packs)} packs of {engine.width}" if len(packs) > 1 else "1 pack"
    return (
        f"{planned.group.words}: {sum(map(len, packs))} members in "
        f"{sizes} ({engine.layout.kind} on {len(engine.layout.devices)} {device}), "
        f"{plan.show_bytes(engine.memory.total)} of {plan.show_bytes(engine.limit)} a device, "
        f"compiled in {engine.compile_seconds:.1f} s, about "
        f"{text.format_seconds(planned.seconds)}"
    )


def plan_all(prepared: Prepared, folder: Path | None) -> list[Planned]:
    """Plan every group; a sweep that goes on keeps the packs of its start."""
    known = hosts.on_first(lambda: read_plan(folder))
    if prepared.sweep.options.sampler in NUMERIC_ONLY:
        return [plan_slots(prepared, known[0] if known else None)]
    if prepared.sweep.options.sampler == "tpe":
        return [plan_batches(prepared)]
    return [
        plan_group(prepared, group, known[i] if known else None)
        for i, group in enumerate(prepared.groups)
    ]


def read_plan(folder: Path | None) -> list[dict[str, Any]]:
    """Read width and layout of each group of a sweep that has begun; empty for a new one."""
    if folder is None or not (folder / PLAN).is_file():
        return []
    path, own = folder / PLAN, folders.sweep_id(folder)
    shape = [{"width": int, "layout": str}]
    if own is None and path.read_bytes().startswith(b"["):  # version 0.1.0 wrote the list alone
        known = read_record(path, shape)
    else:
        remedy = "restore it from a copy, or remove it, and the packs are planned anew"
        content = read_sealed(path, remedy, {"sweep_id": (str, None), "groups": shape})
        if content["sweep_id"] != own:
            raise InputError(f"{str(path)!r} belongs to another sweep: {remedy}.")
        known = content["groups"]
    for each in known:
        check_count(f"{path}: width", each["width"], 1, 2**31)
        if each["layout"] not in LAYOUTS:
            raise InputError(f"{str(path)!r} is damaged: no layout is {each['layout']!r}.")
    return known


def write_plan(folder: Path, planned: Sequence[Planned]) -> None:
    write_sealed(folder / PLAN, _recorded(folder, planned))


def settle_plan(folder: Path, planned: Sequence[Planned]) -> bool:
    """Write the plan unless another worker has; True if the folder's plan is this one."""
    wanted = _recorded(folder, planned)
    write_first_sealed(folder / PLAN, wanted)
    return read_plan(folder) == wanted["groups"]


def _recorded(folder: Path, planned: Sequence[Planned]) -> dict[str, Any]:
    groups = [{"width": each.engine.width, "layout": each.engine.layout.kind} for each in planned]
    return {"sweep_id": folders.sweep_id(folder), "groups": groups}


def plan_only(sweep: Sweep, source: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Data and lines of `--plan`: groups, members, memory and expected time; writes nothing."""
    wanted = sweep.options.run_options()
    with signals.listening() as own_stop, devices.joined(wanted, own_stop):
        prepared = prepare(sweep)
        planned = plan_all(prepared, None)
    options = prepared.sweep.options
    is_study = options.sampler == "tpe"  # its settings are still to come
    groups = [
        {
            "program": each.group.words,
            "settings": options.settings if is_study else len(each.group.settings),
            "members": sum(map(len, each.packs)),
            "packs": len(each.packs),
            "width": each.engine.width,
            "layout": each.engine.layout.kind,
            "memory_bytes": each.engine.memory.total,
            "memory_limit_bytes": each.engine.limit,
            "compile_seconds": round(each.engine.compile_seconds, 3),
            "expected_seconds": round(each.seconds, 1),
        }
        for each in planned
    ]
    data = {
        "settings": options.settings if is_study else len(prepared.settings),
        "seeds": options.seeds,
        "env_steps": prepared.sweep.config.trained_env_steps,
        "groups": groups,
        "expected_seconds": round(sum(each.seconds for each in planned), 1),
    }
    return data, plan_lines(prepared, planned, source)
