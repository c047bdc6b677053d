"""A run from its first moment to its summary: begun, or gone on with where it was stopped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.run import loop
from ppo_jax.apps.run import resume as resuming
from ppo_jax.apps.run import summary as conclusion
from ppo_jax.apps.run.loop import Callback, Point, Session
from ppo_jax.apps.run.summary import RunResult
from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError, RunError, nearest
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.validate import validate
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs
from ppo_jax.envs import first_look
from ppo_jax.kernels import compiler
from ppo_jax.rl.types import TrainState
from ppo_jax.runtime import devices as host
from ppo_jax.runtime import evaluation, loggers, signals, text
from ppo_jax.runtime.progress import display
from ppo_jax.runtime.startup import begin
from ppo_jax.storage import jsonl, lock, run_folder
from ppo_jax.storage.fingerprint import fingerprint
from ppo_jax.training import schedules, trainer


class Work(NamedTuple):
    """What a process brings to a run, whether it begins or goes on."""

    config: Config
    hyper: Hyper  # as the user gave it
    options: RunOptions
    callbacks: Sequence[Callback]
    layout: layouts.Layout
    stop: signals.StopRequest
    started: float


def run(
    config: Config,
    hyper: Hyper,
    options: RunOptions | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    source: str | None = None,
    **changes: Any,
) -> RunResult:
    """Train all seeds in compiled chunks and leave a run folder behind.

    Args:
        options: how the run is carried out; `changes` are its fields by name (`seeds=32`).
        callbacks: each is called with every logged row of `metrics.jsonl`; one that returns True
            ends the run after that row.
        source: where the settings come from, to be told at the start.

    Raises:
        InputError: settings that cannot run, before anything is compiled or written.
        RunError: the run's folder cannot be written any more.
        KeyboardInterrupt: Ctrl-C twice.
    """
    options = with_changes(options or RunOptions(), changes)
    validate(config, hyper)
    require_one_setting(hyper)
    validate_options(options)
    if options.resume == "auto" and run_folder.is_run(str(options.out)):
        changes = resuming.refuse_other_settings(Path(str(options.out)), config, hyper, options)
        given = [None if isinstance(x, str) else x for x in (config.env, config.network)]
        return resume(
            str(options.out), callbacks=callbacks, env=given[0], network=given[1], **changes
        )
    run_folder.check(options.out)
    loggers.require(options)
    with signals.listening() as stop, ExitStack() as stack:
        work = prepare(config, hyper, options, callbacks, stop)
        claim = run_folder.claimed(config, hyper, options, list(work.layout.devices))
        folder = stack.enter_context(claim)
        arrays, state, traced = start(work)
        told = [] if source is None else [f"settings: {source}"]
        session = open_session(stack, work, arrays, folder, Point(), told)
        # What the folder cannot hold is found out now, and a run killed from here on can go on.
        return carry_out(session, work, traced, state, loop.save(session, state, Point()))


def resume(
    folder: Path | str,
    *,
    callbacks: Sequence[Callback] = (),
    env: Any = None,
    network: Any = None,
    **changes: Any,
) -> RunResult:
    """Go on with a run from its newest undamaged checkpoint, as if it had never been stopped.

    A run that is over gives back its summary. On the same fingerprint (docs/durability.md) weights
    and `metrics.jsonl` are the same to the bit as those of a run that was never stopped; what is
    different on another one is told.

    Args:
        folder: the run's folder, wherever it lies now.
        callbacks: as for `run`; of a run that a callback ended, training goes on.
        env, network: where the run was given Python objects, the same ones again.
        changes: `total_env_steps` (upwards only: schedules keep ending where they did),
            `schedule_env_steps`, and what changes no weight: see `options.CHANGEABLE`.

    Raises:
        InputError: no run that can go on, a change that cannot be made, or another process writes
            into the folder.
        RunError: the folder cannot be written.
    """
    folder = Path(folder)
    changes = {k: str(v) if isinstance(v, Path) else v for k, v in changes.items()}
    saved = resuming.read(folder, changes, env, network)
    loggers.require(saved.options)
    with signals.listening() as stop, ExitStack() as stack:
        try:
            stack.enter_context(lock.held(folder))
        except OSError as error:
            raise InputError(
                f"{str(folder)!r} cannot be written ({error.strerror}), so its run cannot go on: "
                "make it writable, or copy it to a place that is."
            ) from error
        work = prepare(saved.config, saved.hyper, saved.options, callbacks, stop)
        finger = fingerprint(work.layout)
        state, point, notes = resuming.restore(folder, saved, finger)
        env_steps = point.iteration * saved.config.batch_size
        is_over = point.iteration >= saved.config.num_iterations or point.ended_by is not None
        summary = resuming.finished_summary(folder, env_steps) if is_over else None
        if summary is not None and state is not None:
            with display(0, 0, 0, saved.options.quiet) as progress:
                progress.message(f"the run in {folder} is over: this is its summary")
            return RunResult(summary, folder, state, conclusion.exit_code_of(summary))
        if state is None:
            arrays, state, traced = start(work)
        else:
            state = programs.place(programs.padded(state, work.layout), work.layout)
            arrays = schedules.as_arrays(saved.config, saved.hyper)
            traced = programs.make_chunk(saved.config, work.layout).lower(
                arrays, state, np.int32(1)
            )
        notes = [*saved.notes, *notes]
        told = [f"going on with {folder} after {env_steps:,} environment steps a seed", *notes]
        try:
            resuming.record(folder, saved, finger, env_steps)
            session = open_session(stack, work, arrays, folder, point, told)
        except OSError as error:
            raise RunError(
                f"{str(folder)!r} cannot be written ({error.strerror}), so its run does not go on: "
                "mend that and try again; what is in it is untouched."
            ) from error
        point = loop.save(session, state, point)
        return carry_out(session, work, traced, state, point)


def prepare(
    config: Config,
    hyper: Hyper,
    options: RunOptions,
    callbacks: Sequence[Callback],
    stop: signals.StopRequest,
) -> Work:
    """Start jax, refuse what it cannot do here, and choose who computes what."""
    stop.limit(options.max_seconds)
    started = time.perf_counter()
    host.prepare_jax(options)
    parts = trainer.assemble(config)
    trainer.env_params(parts.environment, hyper)  # refuses parameters that do not exist
    layout = layouts.choose_layout(config, options.seeds, host.device_count(options))
    return Work(config, hyper, options, callbacks, layout, stop, started)


def start(work: Work) -> tuple[Hyper, TrainState, Any]:
    """The numbers as arrays, the state before the first iteration, and the loop, traced."""
    config, layout, seed = work.config, work.layout, work.options.seed
    arrays = schedules.as_arrays(config, work.hyper)
    if not work.options.init_from:
        state, traced, _ = begin(config, arrays, seed, layout)
        return arrays, state, traced
    state = programs.init_population(config, arrays, seed, layout)
    state = evaluation.start_from(Path(work.options.init_from), config, state, layout)
    return arrays, state, programs.make_chunk(config, layout).lower(arrays, state, np.int32(1))


def open_session(
    stack: ExitStack, work: Work, arrays: Hyper, folder: Path, point: Point, told: list[str]
) -> Session:
    """The files and the display that stay open while a process works on a run."""
    config, options, layout = work.config, work.options, work.layout
    progress = stack.enter_context(
        display(config.num_iterations, config.trained_env_steps, options.seeds, options.quiet)
    )
    name, kind = run_folder.env_name(config), layout.devices[0].platform
    devices = f"{len(layout.devices)} {kind}"
    environment = trainer.assemble(config).environment
    params = trainer.env_params(environment, work.hyper)
    told = [*told, *first_look.warnings(config, work.hyper, environment, params)]
    for line in [*told, *text.plan_lines(name, config, options.seeds, devices, None)]:
        progress.message(line)
    described = run_folder.to_json(run_folder.describe(config, work.hyper, options))
    env_steps = point.iteration * config.batch_size
    openers = loggers.openers(folder, options, described, env_steps)
    logs = loggers.LogFanout(openers, progress.message)
    stack.callback(lambda: logs.close(1.0 if work.stop else 10.0))
    files = [jsonl.JsonlLog(folder / name) for name in (loop.METRICS, loop.TIMING)]
    for file in files:
        stack.callback(file.close)
    work.stop.tell = progress.message
    return Session(
        config=config,
        hyper=arrays,
        options=options,
        callbacks=work.callbacks,
        layout=layout,
        folder=folder,
        identity={
            "run_id": run_folder.run_id(folder),
            "config": described["config"],
            "hyper": described["hyper"],
            "fingerprint": fingerprint(layout),
        },
        chunk=not_compiled,
        play=evaluation.player(config, arrays, layout, options),
        metrics=files[0],
        timing=files[1],
        logs=logs,
        progress=progress,
        stop=work.stop,
    )


def not_compiled(*_: Any) -> Any:
    """In the place of a program before it is compiled."""
    raise RuntimeError("the training program is not compiled yet")


def carry_out(
    session: Session, work: Work, traced: Any, state: TrainState, point: Point
) -> RunResult:
    """Compile, train and conclude; what a stop leaves out, a resume does."""
    config = session.config
    is_over = point.iteration >= config.num_iterations or point.ended_by is not None
    if not session.stop and not is_over:
        session = session._replace(chunk=compiler.compiled(traced))
    compile_seconds = time.perf_counter() - work.started
    state, point = loop.train(session, state, point)
    point = loop.save(session, state, point)
    if session.stop:
        return conclusion.stopped(session, state, point, compile_seconds)
    return conclusion.concluded(session, state, point, compile_seconds)


def with_changes(options: RunOptions, changes: dict[str, Any]) -> RunOptions:
    """`options` with some fields given by name."""
    known = [field.name for field in dataclasses.fields(RunOptions)]
    for name in changes:
        if name not in known:
            raise InputError(f"{name!r} is no option of a run." + nearest(name, known))
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
