"""A sweep from its axes to its winner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppo_jax.apps.sweep import axes as axis_words
from ppo_jax.apps.sweep import folder as folders
from ppo_jax.apps.sweep import pack, plan, samplers
from ppo_jax.apps.sweep.axes import Axis
from ppo_jax.apps.sweep.crew import join, ray_engine, units
from ppo_jax.apps.sweep.crew.units import Units
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.options import SweepOptions, with_changes
from ppo_jax.apps.sweep.pack import Listener, Outcome
from ppo_jax.apps.sweep.plan import Planned, Prepared
from ppo_jax.apps.sweep.results import summary
from ppo_jax.apps.sweep.results.table import Table
from ppo_jax.apps.sweep.search import halving, pbt, storages, tpe
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import RunError
from ppo_jax.config.trust import Trust
from ppo_jax.distributed import hosts
from ppo_jax.distributed.layout import local_devices, offered_devices
from ppo_jax.runtime import devices, signals, text
from ppo_jax.storage import lock
from ppo_jax.storage.files import write_json
from ppo_jax.storage.manifest import make_manifest

SLOTS = {"halving": halving.run_halving, "pbt": pbt.run_pbt}  # samplers of one population
MANIFEST = "manifest.json"
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
    known = axis_words.from_python(axes)
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
    **joining: Any,
) -> Table:
    """Go on with a sweep that was stopped; a finished one is only written out again.

    Args:
        env, network: the same Python objects again, if the sweep was given any.
        trust: True to load the programs and open the storage that the folder names, or a list of
            them; a sweep of this user on this machine needs none.
        storage: the same storage again, with its password, which no file keeps.
        joining: `hosts`, or `coordinator`, `num_hosts` and `host_index`, see `SweepOptions`.

    Raises:
        InputError: the folder holds no sweep, one that is damaged, or one that names a program.
    """
    found = folders.read(path, env, network, trust, storage, joining)
    return carry_out(found, listener, None)


def carry_out(sweep: Sweep, listener: Listener, source: str | None) -> Table:
    """Train all settings that are left, then write the table, the winner and the pictures."""
    options = sweep.options
    if options.engine == "ray":
        return carry_out_on_ray(sweep, listener, source)
    if options.sampler == "tpe" or options.join:
        storages.require(options.storage)  # refused before anything is compiled
    wanted = options.run_options()
    with signals.listening() as own_stop, devices.joined(wanted, own_stop) as stop:
        listener = listener if hosts.is_first() else UNHEARD
        return carry_out_here(sweep, stop, listener, source)


def carry_out_here(
    sweep: Sweep, stop: signals.StopRequest, listener: Listener, source: str | None
) -> Table:
    """Plan and train on the devices of this process, or of all hosts that it has joined."""
    out = sweep.options.out
    begun = hosts.on_first(lambda: out is not None and folders.is_sweep(out))
    with signals.free():
        prepared = plan.prepare(sweep)
        planned = plan.plan_all(prepared, Path(str(out)) if begun else None)
    for line in plan.plan_lines(prepared, planned, source):
        listener.tell(line)
    folder = Path(hosts.on_first(lambda: str(folders.open_folder(sweep))))
    stop.tell = listener.tell
    control = pack.Control(stop, *listener)
    with writing(folder):
        if sweep.options.join:
            return work_together(prepared, planned, folder, control)
        with units.owned(folder):
            if hosts.is_first():
                open_files(planned, folder, listener)
            outcome = train(prepared, planned, folder, control)
            return summary.conclude(prepared.sweep, folder, outcome, control)


def open_files(planned: Sequence[Planned], folder: Path, listener: Listener) -> None:
    """Write the manifest and the plan."""
    if folders.sweep_id(folder) is None:
        listener.tell(
            "version 0.1.0 began this sweep: it goes on, but files of that version have no "
            "checksum, so damage to them may pass unnoticed"
        )
    write_json(folder / MANIFEST, make_manifest(offered_devices()))
    plan.write_plan(folder, planned)


def train(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: pack.Control
) -> Outcome:
    """Train all settings that are left in this process."""
    if prepared.sweep.options.sampler == "tpe":
        return tpe.run_tpe(prepared, planned, folder, control)
    return units.train_alone(units_of(prepared, planned, folder, control), control)


def units_of(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: pack.Control
) -> Units:
    """The packs of grid and random, or the one population of halving or pbt."""
    run = SLOTS.get(prepared.sweep.options.sampler)
    if run is None:
        return units.pack_units(prepared, planned, folder, control)
    return units.slot_unit(folder, lambda: run(prepared, planned, folder, control))


def work_together(
    prepared: Prepared, planned: Sequence[Planned], folder: Path, control: pack.Control
) -> Table:
    """Be one of several workers in one folder; the first to see the end writes the results."""
    if not plan.settle_plan(folder, planned):
        control.tell("another worker has planned packs of another size: this one takes them over")
        with signals.free():
            planned = plan.plan_all(prepared, folder)
    if not (folder / MANIFEST).exists():
        write_json(folder / MANIFEST, make_manifest(local_devices()))
    shared = units_of(prepared, planned, folder, control)
    join.train_shared(shared, prepared.sweep, folder, control)
    outcome = shared.outcome()
    with join.alone(folder, control):
        known = summary.concluded(prepared.sweep, folder, outcome)
        return known or summary.conclude(prepared.sweep, folder, outcome, control)


def carry_out_on_ray(sweep: Sweep, listener: Listener, source: str | None) -> Table:
    """Let tasks of Ray plan, train every unit and write the results; only they use devices."""
    plan.check(sweep)
    with signals.listening() as stop, ray_engine.connected(sweep.options) as ray:
        folder = folders.open_folder(sweep).resolve()
        settled = with_changes(sweep.options, {"out": str(folder)})
        sweep = sweep._replace(options=settled)
        stop.tell = listener.tell
        control = pack.Control(stop, *listener)
        with (
            writing(folder),
            lock.held(folder),
            ray_engine.tasks_of(ray, settled, folder, control) as tasks,
        ):
            count = tasks.call(plan_task, sweep, source)

            def show(done: int) -> None:
                listener.show(done / count, f"{done} of {count} packs are finished")

            tasks.call_all(unit_task, [(sweep, number) for number in range(count)], show)
            return tasks.call(conclude_task, sweep)


def plan_task(sweep: Sweep, source: str | None, tell: Callable[[str], None]) -> int:
    """Plan a sweep in a task of Ray; the number of its units."""
    folder = Path(sweep.options.out or "")
    ray_engine.require_folder(folder)
    prepared, planned = prepared_here(sweep)
    for line in plan.plan_lines(prepared, planned, source):
        tell(line)
    plan.write_plan(folder, planned)
    write_json(folder / MANIFEST, make_manifest(local_devices()))
    control = pack.Control(ray_engine.FileStop(folder), tell, pack.ignore)
    return len(units_of(prepared, planned, folder, control).folders)


def unit_task(sweep: Sweep, number: int, tell: Callable[[str], None]) -> None:
    """Train one unit in a task of Ray, unless it is finished or a stop is requested."""
    folder = Path(sweep.options.out or "")
    ray_engine.require_folder(folder)
    control = pack.Control(ray_engine.FileStop(folder), tell, pack.ignore)
    if not control.stop:
        shared = units_of(*prepared_here(sweep), folder, control)
        ray_engine.patiently(lambda: shared.train(number), control)


def conclude_task(sweep: Sweep, tell: Callable[[str], None]) -> Table:
    """Write the results in a task of Ray, which may train the winner."""
    folder = Path(sweep.options.out or "")
    ray_engine.require_folder(folder)
    control = pack.Control(ray_engine.FileStop(folder), tell, pack.ignore)
    prepared, planned = prepared_here(sweep)
    outcome = units_of(prepared, planned, folder, control).outcome()
    return summary.conclude(prepared.sweep, folder, outcome, control)


_HERE: dict[str, tuple[Prepared, list[Planned]]] = {}  # the sweep of this process, by its folder


def prepared_here(sweep: Sweep) -> tuple[Prepared, list[Planned]]:
    """The settings and compiled programs of a sweep, made once in a process of Ray."""
    out = sweep.options.out or ""
    if out not in _HERE:
        prepared = plan.prepare(sweep)
        _HERE.clear()
        _HERE[out] = prepared, plan.plan_all(prepared, Path(out))
    return _HERE[out]


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """End the sweep with one sentence if its folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Stopped, because the sweep's folder {str(folder)!r} cannot be written "
            f"({error.strerror or error}): what is in it is untouched; mend that, then "
            f"ppo-jax sweep {text.quoted(str(folder))} goes on."
        ) from error
