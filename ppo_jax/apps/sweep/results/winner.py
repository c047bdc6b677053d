"""The winner of a sweep on fresh seeds, in as many packs as the device's memory demands.

The first pack is `winner` in the sweep's folder, further ones are `winner-001` and so on.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ppo_jax.apps.sweep import engine as engines
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack
from ppo_jax.apps.sweep.axes import apply, describe
from ppo_jax.apps.sweep.engine import Engine
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.groups import Member, packs_of
from ppo_jax.apps.sweep.pack import Control, Outcome
from ppo_jax.apps.sweep.pack_files import PACK, PackJob, is_finished, read_pack, read_result
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import hosts

WINNER = "winner"


def rerun(
    sweep: Sweep, folder: Path, setting: int, outcome: Outcome, control: Control
) -> list[float | None] | None:
    """Train the winner on seeds that did not select it; None if a signal stopped it.

    Returns:
        the final return of each fresh seed.

    Raises:
        InputError: a pack is damaged, or the device is now too small for it.
    """
    options = sweep.options
    first = options.seed + options.seeds
    members = [Member(setting, first + i) for i in range(options.num_fresh_seeds)]
    begun = hosts.on_first(lambda: begun_width(folder / WINNER))
    jobs = jobs_of(sweep, folder, outcome, packs_of(members, begun or len(members)))
    results = [pack.finished_result(job) for job in jobs]
    if None in results:
        width = len(jobs[0].members)
        engine = engine_of(sweep, setting, outcome, width)
        if begun is None:
            jobs = jobs_of(sweep, folder, outcome, packs_of(members, engine.width))
        elif engine.width < width:
            raise InputError(
                f"the winner began with packs of {width} fresh seeds, and the device now has "
                f"memory for {engine.width}: free some memory, or remove {str(folder / WINNER)!r}."
            )
        train = outcome.replay or (
            lambda job, engine: pack.train_pack(engine, job, options, control)
        )
        results = []
        for job in jobs:
            result = train(job, engine)
            if result is None:
                return None
            results.append(result)
    return [value for result in results if result is not None for value in result.final_return]


def begun_width(own: Path) -> int | None:
    """Members of the winner's first pack; None if it has not begun, or is damaged."""
    with suppress(InputError):  # whoever opens the pack reports the damage
        if is_finished(own):
            return len(read_result(own).members) or None
        if (own / PACK).is_file():
            return len(read_pack(own)["members"]) or None
    return None


def jobs_of(
    sweep: Sweep, folder: Path, outcome: Outcome, packs: list[list[Member]]
) -> list[PackJob]:
    """The packs of the winner."""
    names, found = folders.pack_names(folder), []
    for number, members in enumerate(packs):
        setting = members[0].setting
        values = outcome.settings[setting]
        own = folder / (f"{WINNER}-{number:03d}" if number else WINNER)
        which = f", pack {number + 1}/{len(packs)}" if len(packs) > 1 else ""
        found.append(
            PackJob(
                folder=own,
                run_id=names(own),
                config=apply(sweep.config, sweep.hyper, values)[0],
                hyper=sweep.hyper,
                settings={setting: values},
                members=members,
                label=f"winner on fresh seeds{which}",
            )
        )
    return found


def engine_of(sweep: Sweep, setting: int, outcome: Outcome, width: int) -> Engine:
    """The program of the winner's packs: one of the sweep's own if its packs are as wide."""
    values = outcome.settings[setting]
    config, hyper = apply(sweep.config, sweep.hyper, values)
    fits = [each for each in outcome.built if each.config == config and each.width == width]
    return fits[0] if fits else engines.build(config, hyper, width, sweep.options, describe(values))
