"""A run from its start, or from where it was stopped, to its summary."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.run import saving
from ppo_jax.apps.run.callbacks import Callback, Heard, as_callbacks
from ppo_jax.apps.run.loop import train_run
from ppo_jax.apps.run.resume import (
    blocks_of,
    find_point,
    finished_summary,
    read_run,
    record_resume,
    refuse_other_settings,
    restore_run,
)
from ppo_jax.apps.run.session import METRICS, TIMING, RunStatus, Session, claimed, kept
from ppo_jax.apps.run.summary import RunResult, conclude, conclude_stopped, exit_code_of
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError, RunError
from ppo_jax.config.options import HOSTS, RunOptions, parse_mesh, validate_options
from ppo_jax.config.reading import as_path
from ppo_jax.config.trust import Trust, vouched
from ppo_jax.config.validate import check_names, validate, without_effect
from ppo_jax.config.values import short
from ppo_jax.distributed import hosts, population, programs
from ppo_jax.distributed.layout import Layout, Wanted, choose_layout, devices_needed
from ppo_jax.distributed.memory import Use, forecast
from ppo_jax.envs import first_look
from ppo_jax.models.agent import assemble, env_params
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import evaluation, loggers, signals, text
from ppo_jax.runtime.devices import device_count, joined, prepare_jax, require_memory
from ppo_jax.runtime.progress import Progress, Silence, display
from ppo_jax.runtime.saved_run import start_from
from ppo_jax.runtime.startup import begin, compile_chunk
from ppo_jax.storage import jsonl, run_folder
from ppo_jax.storage.files import to_json
from ppo_jax.storage.fingerprint import fingerprint, program_words, spaces
from ppo_jax.training import schedules

SILENCE = Silence()


class RunJob(NamedTuple):
    """All that a process brings to a run, new or resumed."""

    config: Config
    hyper: Hyper  # as the user gave it
    options: RunOptions
    callbacks: Sequence[Heard]
    layout: Layout
    stop: signals.StopRequest
    started: float
    trust: Trust  # for the run that `init_from` names
    progress: Progress | Silence


def run(
    config: Config,
    hyper: Hyper,
    options: RunOptions | None = None,
    *,
    callbacks: Callback | Sequence[Callback] = (),
    source: str | None = None,
    screen: Progress | Silence | None = None,
    trust: Trust = False,
    **changes: Any,
) -> RunResult:
    """Train all seeds in compiled chunks, and write a run folder.

    Args:
        options: how the run is carried out; `changes` are its fields by name (`seeds=32`).
        callbacks: a function or several. Each is called with every logged row of `metrics.jsonl`,
            and with a `Moment` if it takes two arguments; one that returns True, also NumPy's or
            jax's, ends the run after that row.
        source: where the settings come from, printed at the start.
        screen: the display, if it is open already.
        trust: True to load the programs that the run of `init_from` names, or a list of them.

    Raises:
        InputError: settings that cannot run, before anything is compiled or written.
        RunError: the run's folder cannot be written any more.
        Stopped: a signal came during a start-up that takes long; nothing is left behind.
        KeyboardInterrupt: Ctrl-C twice.
    """
    validate(config, hyper)
    options = with_changes(options or RunOptions(), changes)
    heard = as_callbacks(callbacks)
    require_one_setting(hyper)
    validate_options(options)
    env, network = (None if isinstance(x, str) else x for x in (config.env, config.network))
    own = {"env": env, "network": network, "trust": vouched(trust, config)}
    with signals.listening() as own_stop, joined(options, own_stop) as stop, ExitStack() as stack:
        out = str(options.out)
        if hosts.on_first(lambda: options.resume == "auto" and run_folder.is_run(out)):
            changes = hosts.on_first(
                lambda: refuse_other_settings(Path(out), config, hyper, options)
            )
            changes |= {name: getattr(options, name) for name in (*HOSTS, "quiet")}
            return resume(out, callbacks=callbacks, screen=screen, **own, **changes)
        hosts.on_first(lambda: run_folder.check_new_folder(options.out))
        if options.init_from:  # refused now, rather than after the start of jax
            run_folder.read_settings(Path(options.init_from), env, network, vouched(trust, config))
        loggers.require(options)
        screen = screen if hosts.is_first() else None
        progress = screen or stack.enter_context(show(config, options))
        job = prepare(config, hyper, options, heard, stop, trust, progress)
        name = run_folder.env_name(config)
        progress.plan(text.plan_lines(name, config, options.seeds, source))
        devices = job.layout.devices
        folder = stack.enter_context(claimed(config, hyper, options, devices))
        with signals.free():
            arrays, state, traced = start_new(job)
        lines = [f"note: {sentence}" for sentence in without_effect(config, hyper)]
        session = open_session(stack, job, arrays, folder, RunStatus(), lines)
        # A folder that cannot hold a checkpoint is refused now; a run killed later can go on.
        return carry_out(session, job, traced, state, saving.save_run(session, state, RunStatus()))


def resume(
    folder: Path | str,
    *,
    callbacks: Callback | Sequence[Callback] = (),
    env: Any = None,
    network: Any = None,
    screen: Progress | Silence | None = None,
    trust: Trust = False,
    **changes: Any,
) -> RunResult:
    """Go on with a run from its newest undamaged checkpoint, as if it had never been stopped.

    A run that is over returns its summary. On the same fingerprint (docs/durability.md) weights and
    `metrics.jsonl` are the same to the bit as those of a run that was never stopped. Differences of
    the fingerprint are printed.

    Args:
        folder: the run's folder, wherever it lies now.
        callbacks: as for `run`; a run that a callback ended is trained on.
        env, network: the same Python objects again, if the run was given objects.
        screen: the display, if it is open already.
        trust: True to load the programs that config.json names, or a list of them; a run of this
            user on this machine needs none.
        changes: `total_env_steps` (upwards only: schedules keep ending where they did),
            `schedule_env_steps`, and what changes no weight: see `options.CHANGEABLE`.

    Raises:
        InputError: no run that can go on, a change that cannot be made, or another process writes
            into the folder.
        RunError: the folder cannot be written.
    """
    folder, heard = as_path("folder", folder), as_callbacks(callbacks)
    changes = {k: str(v) if isinstance(v, Path) else v for k, v in changes.items()}
    saved = read_run(folder, changes, env, network, trust)
    loggers.require(saved.options)
    settings = (saved.config, saved.hyper, saved.options)
    with (
        signals.listening() as own_stop,
        joined(saved.options, own_stop) as stop,
        ExitStack() as stack,
    ):
        own = stack.enter_context(kept(folder))
        screen = screen if hosts.is_first() else None
        progress = screen or stack.enter_context(show(saved.config, saved.options))
        found = find_point(folder, saved)
        job = prepare(*settings, heard, stop, trust, progress, blocks_of(found))
        finger = fingerprint(job.layout, job.config)
        state, status, notes = restore_run(folder, saved, found, finger)
        env_steps = status.iteration * saved.config.batch_size
        is_over = status.is_over(saved.config)
        summary = hosts.on_first(lambda: finished_summary(folder, env_steps) if is_over else None)
        if summary is not None and state is not None:
            progress.message(f"the run in {folder} is over: this is its summary")
            return RunResult(summary, folder, state, exit_code_of(summary))
        with signals.free():
            arrays, state, traced = start_new(job) if state is None else start_again(job, state)
        going_on = f"going on with {folder} after {env_steps:,} environment steps a seed"
        try:
            if hosts.is_first():
                record_resume(folder, saved, finger, env_steps)
            name = run_folder.env_name(saved.config)
            progress.message(going_on)
            progress.plan(text.plan_lines(name, saved.config, saved.options.seeds, None))
            session = open_session(stack, job, arrays, own, status, [*saved.notes, *notes])
        except OSError as error:
            raise RunError(
                f"{str(folder)!r} cannot be written ({error.strerror}), so its run does not go on: "
                "mend that and try again; what is in it is untouched."
            ) from error
        return carry_out(session, job, traced, state, saving.save_run(session, state, status))


def show(config: Config, options: RunOptions) -> AbstractContextManager[Progress | Silence]:
    """The live display of a run, or none if it is quiet."""
    is_quiet = options.quiet or not hosts.is_first()
    return display(config.num_iterations, config.trained_env_steps, options.seeds, is_quiet)


def prepare(
    config: Config,
    hyper: Hyper,
    options: RunOptions,
    callbacks: Sequence[Heard],
    stop: signals.StopRequest,
    trust: Trust = False,
    progress: Progress | Silence = SILENCE,
    num_blocks: int | None = None,
) -> RunJob:
    """Start jax, refuse what it cannot do here, and choose the layout on the devices.

    Args:
        num_blocks: of environments, of a run that goes on.
    """
    stop.limit(options.max_seconds)
    started = time.perf_counter()
    progress.phase("starting jax")
    wanted = Wanted(options.devices, parse_mesh(options.mesh), num_blocks)
    prepare_jax(options, lambda count: devices_needed(config, options.seeds, count, wanted))
    parts = assemble(config)
    env_params(parts.environment, hyper)  # refuses parameters that do not exist
    device_count(options)  # refuses more than there are
    own = {"callbacks": str(len(callbacks))}
    hosts.require_equal(lambda: common_settings(config, hyper, options) | own)
    layout = choose_layout(config, options.seeds, wanted=wanted)
    if not hosts.is_first():
        options = dataclasses.replace(options, quiet=True, tensorboard=False, wandb=None)
    progress.phase("compiling")
    return RunJob(config, hyper, options, callbacks, layout, stop, started, trust, progress)


def common_settings(config: Config, hyper: Hyper, options: RunOptions) -> dict[str, str]:
    """The settings and programs that all hosts of a run must have, in words."""
    described = run_folder.describe_run(config, hyper, options)
    own = {"host_index", "quiet"}
    words = {
        name: str(to_json(value))
        for table in ("config", "hyper", "options")
        for name, value in described[table].items()
        if name not in own
    }
    return {**words, **program_words(config)}


def start_new(job: RunJob) -> tuple[Hyper, TrainState, Any]:
    """The numbers as arrays, the state before the first iteration, and the traced chunk."""
    config, layout, seed = job.config, job.layout, job.options.seed
    arrays = schedules.as_arrays(config, job.hyper)
    if not job.options.init_from:
        state, traced, _ = begin(config, arrays, seed, layout, use_of(job))
        return arrays, state, traced
    shapes = population.abstract_population(config, arrays, layout)
    needed = forecast(config, layout, shapes, use_of(job))
    require_memory(needed.at_least(), layout.own_device)
    state = population.init_population(config, arrays, seed, layout)
    state = start_from(Path(job.options.init_from), config, state, layout, job.trust)
    return arrays, state, programs.make_chunk(config, layout).lower(arrays, state, np.int32(1))


def use_of(job: RunJob) -> Use:
    """The use of memory of a run beside its training."""
    return Use(job.options.eval_episodes, saves_beside=True)


def start_again(job: RunJob, state: TrainState) -> tuple[Hyper, TrainState, Any]:
    """As `start_new`, for a state [S, ...] that was loaded."""
    state = population.place(population.padded(state, job.layout), job.layout)
    arrays = schedules.as_arrays(job.config, job.hyper)
    traced = programs.make_chunk(job.config, job.layout).lower(arrays, state, np.int32(1))
    return arrays, state, traced


def open_session(
    stack: ExitStack, job: RunJob, arrays: Hyper, folder: Path, status: RunStatus, lines: list[str]
) -> Session:
    """Open the files of a run, which `stack` closes, and print its first lines."""
    config, options, layout, progress = job.config, job.options, job.layout, job.progress
    progress.evaluated(status.score, status.best)
    environment = assemble(config).environment
    world = env_params(environment, job.hyper)
    lines = [*lines, *first_look.warnings(config, job.hyper, environment, world)]
    devices = f"devices: {len(layout.devices)} {layout.devices[0].platform}"
    lines.append(devices + (f" ({layout.mesh_words})" if layout.num_shares > 1 else ""))
    for line in lines:
        progress.message(line)
    described = to_json(run_folder.describe_run(config, job.hyper, options))
    env_steps = status.iteration * config.batch_size
    openers = loggers.openers(folder, options, described, env_steps)
    logs = loggers.LogFanout(openers, progress.message)
    stack.callback(lambda: logs.close(1.0 if job.stop else 10.0))
    files = [jsonl.JsonlLog(folder / name) for name in (METRICS, TIMING)]
    for file in files:
        stack.callback(file.close)
    job.stop.tell = progress.message
    return Session(
        config=config,
        hyper=arrays,
        options=options,
        callbacks=job.callbacks,
        layout=layout,
        folder=folder,
        identity={
            "run_id": run_folder.run_id(folder),
            "config": described["config"],
            "hyper": described["hyper"],
            "fingerprint": fingerprint(layout, config),
            "spaces": spaces(config),
        },
        chunk=not_compiled,
        play=evaluation.player(config, arrays, layout, options),
        metrics=files[0],
        timing=files[1],
        logs=logs,
        progress=progress,
        stop=job.stop,
    )


def not_compiled(*_: Any) -> Any:
    """Stand in for the training program before it is compiled."""
    raise RuntimeError("the training program is not compiled yet")


def carry_out(
    session: Session, job: RunJob, traced: Any, state: TrainState, status: RunStatus
) -> RunResult:
    """Compile, train and conclude; after a stop, `resume` does the rest."""
    config = session.config
    session.stop.agree()
    if not session.stop and not status.is_over(config):
        with suppress(signals.Stopped):  # the start is saved: `train_run` trains nothing
            chunk = compile_chunk(config, session.layout, state, traced, use_of(job))
            session = session._replace(chunk=chunk)
    compile_seconds = time.perf_counter() - job.started
    with programs.released(session.chunk):
        state, status = train_run(session, state, status)
    status = saving.save_run(session, state, status)
    try:
        session.stop.check()
        return conclude(session, state, status, compile_seconds)
    except signals.Stopped:
        return conclude_stopped(session, state, status, compile_seconds)


def with_changes(options: RunOptions, changes: dict[str, Any]) -> RunOptions:
    """`options` with some fields given by name."""
    check_names(RunOptions, changes, "a run")
    if not isinstance(options, RunOptions):
        raise InputError(
            f"options={short(options)} must be a RunOptions: give its fields by name, such as "
            "seeds=4."
        )
    changes = {k: str(v) if isinstance(v, Path) else v for k, v in changes.items()}
    return dataclasses.replace(options, **changes)


def require_one_setting(hyper: Hyper) -> None:
    """Refuse arrays of settings: a run has one, and its seeds share it."""
    for spec in dataclasses.fields(hyper):
        value = getattr(hyper, spec.name)
        ends = (value.start, value.end) if isinstance(value, Schedule) else (value,)
        if spec.name != "env" and any(np.ndim(end) for end in ends):
            raise InputError(
                f"{spec.name} has shape {np.shape(ends[0])}, but a run takes one number: vmap "
                "ppo_jax.train over several, or start a run for each."
            )
