"""A sweep from its axes to its winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppo_jax.apps.sweep import axes as axis_words
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack, pack_files, plan, samplers
from ppo_jax.apps.sweep.axes import Axis
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import SweepOptions, with_changes
from ppo_jax.apps.sweep.pack import Listener, Outcome
from ppo_jax.apps.sweep.pack_files import PackJob, PackResult
from ppo_jax.apps.sweep.results import summary
from ppo_jax.apps.sweep.results.table import Table
from ppo_jax.apps.sweep.search import halving, pbt, study, tpe
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import RunError
from ppo_jax.config.trust import Trust
from ppo_jax.distributed.layout import local_devices
from ppo_jax.runtime import signals
from ppo_jax.storage import lock
from ppo_jax.storage.files import write_json
from ppo_jax.storage.manifest import make_manifest

# Samplers with a training of their own; the others train each setting for the whole budget.
HOW = {"halving": halving.run_halving, "pbt": pbt.run_pbt, "tpe": tpe.run_tpe}
UNHEARD = Listener()


def sweep(
    config: Config,
    axes: Mapping[str, Any] | Sequence[Axis] = (),
    hyper: Hyper | None = None,
    options: SweepOptions | None = None,
    *,
    tell: Callable[[str], None] = pack.ignore,
    source: str | None = None,
    **changes: Any,
) -> Table:
    """Train settings x seeds as populations, one compiled program per compile group.

    Args:
        config, hyper: shared by all settings. Arrays [P] in fields of `hyper` are P settings of
            their own, which are crossed with `axes`.
        axes: name -> values, or the text that the command line takes (`"1e-4..1e-2:log"`). Names
            are fields of `Config` and `Hyper`, and env.NAME for the environment's own parameters.
        options: the options of the sweep; `changes` are its fields by name (`seeds=8`).
        tell: receives lines about the plan and the progress.
        source: the origin of the shared settings, printed at the start.

    Returns:
        The tidy table (setting x seed x logged point) with a score for each setting.

    Raises:
        InputError: the sweep cannot run; nothing is written.
    """
    options = with_changes(options or SweepOptions(), changes)
    known = axis_words.from_mapping(axes) if isinstance(axes, Mapping) else tuple(axes)
    plain, arrays = samplers.from_arrays(hyper or Hyper())
    return carry_out(Sweep(config, plain, known, arrays, options), Listener(tell), source)


def resume(
    path: Path | str,
    *,
    env: Any = None,
    network: Any = None,
    listener: Listener = UNHEARD,
    trust: Trust = False,
    storage: str | None = None,
) -> Table:
    """Go on with a sweep that was stopped; a finished one is only written out again.

    Args:
        env, network: the same Python objects again, if the sweep was given any.
        trust: True to load the programs and open the storage that the folder names, or a list of
            them; a sweep of this user on this machine needs none.
        storage: the same storage again, with its password, which no file keeps.

    Raises:
        InputError: the folder holds no sweep, one that is damaged, or one that names a program.
    """
    return carry_out(folders.read(path, env, network, trust, storage), listener, None)


def carry_out(sweep: Sweep, listener: Listener, source: str | None) -> Table:
    """Train all settings that are left, then write the table, the winner and the pictures."""
    if sweep.options.sampler == "tpe":
        study.load()  # refused before anything is compiled
    out = sweep.options.out
    begun = Path(out) if out is not None and folders.is_sweep(out) else None
    with signals.free():
        prepared = plan.prepare(sweep)
        planned = plan.plan_all(prepared, begun)
    for line in plan.plan_lines(prepared, planned, source):
        listener.tell(line)
    folder = folders.open_folder(sweep)
    with writing(folder), signals.listening() as stop, lock.held(folder):
        stop.tell = listener.tell
        if folders.sweep_id(folder) is None:
            listener.tell(
                "version 0.1.0 began this sweep: it goes on, but files of that version have no "
                "checksum, so damage to them may pass unnoticed"
            )
        write_json(folder / "manifest.json", make_manifest(local_devices()))
        plan.write_plan(folder, planned)
        control = pack.Control(stop, *listener)
        how = HOW.get(sweep.options.sampler, train_packs)
        outcome = how(prepared, planned, folder, control)
        return summary.conclude(prepared.sweep, folder, outcome, control)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """End the sweep with one sentence if its folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Stopped, because the sweep's folder {str(folder)!r} cannot be written "
            f"({error.strerror or error}): what is in it is untouched; mend that, then "
            f"ppo-jax sweep {folder} goes on."
        ) from error


def train_packs(
    prepared: plan.Prepared,
    planned: Sequence[plan.Planned],
    folder: Path,
    control: pack.Control,
) -> Outcome:
    """Train every setting with every seed for the whole budget, pack by pack."""
    results: list[PackResult] = []
    is_cut = False
    for number, each in enumerate(planned):
        for place, members in enumerate(each.packs):
            chosen = sorted({member.setting for member in members})
            words = f"group {number + 1}/{len(planned)}, pack {place + 1}/{len(each.packs)}"
            own = folder / "packs" / f"{number:03d}-{place:03d}"
            work = PackJob(
                folder=own,
                run_id=folders.pack_id(folder, own),
                config=each.group.config,
                hyper=prepared.sweep.hyper,
                settings={setting: prepared.settings[setting] for setting in chosen},
                members=members,
                label=words,
            )
            if control.stop and not pack_files.is_finished(work.folder):
                continue
            result = pack.train_pack(each.engine, work, prepared.sweep.options, control)
            is_cut = is_cut or result is None
            results += [] if result is None else [result]
    members = [member for result in results for member in result.members]
    values = [value for result in results for value in result.final_return]
    whole = pack.by_setting(members, values)
    seeds = prepared.sweep.options.seeds
    return Outcome(
        settings=prepared.settings,
        returns={setting: found for setting, found in whole.items() if len(found) == seeds},
        env_steps=sum(result.env_steps * len(result.members) for result in results),
        train_seconds=sum(result.train_seconds for result in results),
        compile_seconds=sum(each.engine.compile_seconds for each in planned),
        compilations=[each.engine.compilations for each in planned],
        more={
            "finished": f"{len(results)} of {sum(len(each.packs) for each in planned)} packs"
            + ", and the one in work is saved" * is_cut
        },
        built=[each.engine for each in planned],
    )
