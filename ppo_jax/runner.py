"""The host loop: compiled chunks, and between them logs, evaluation, checkpoints and progress."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ppo_jax import (
    checkpoint,
    evaluating,
    host,
    log,
    parallel,
    plots,
    rows,
    run_folder,
    schedules,
    stats,
    trainer,
    wording,
)
from ppo_jax.config import Config, Hyper, InputError, Schedule, nearest, validate
from ppo_jax.options import RunOptions, validate_options
from ppo_jax.types import TrainState

CHUNK_SECONDS = 0.5  # how long the host waits between looks at the device

Callback = Callable[[dict[str, Any]], bool | None]


class RunResult(NamedTuple):
    """What a run leaves behind."""

    summary: dict[str, Any]  # the content of summary.json
    folder: Path
    state: TrainState  # [S, ...], a leading axis of seeds on every leaf
    exit_code: int  # 0 done, 1 every seed failed, 75 or 130 stopped by a signal


class Session(NamedTuple):
    """What stays the same from the first chunk of a run to its last."""

    config: Config
    hyper: Hyper  # as arrays
    options: RunOptions
    callbacks: Sequence[Callback]
    layout: parallel.Layout
    folder: Path
    chunk: Callable[..., Any]
    play: evaluating.Play
    logs: log.LogFanout
    progress: log.Progress | Silence
    stop: dict[str, int]  # filled by a signal: {"exit_code": ...}


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
        KeyboardInterrupt: Ctrl-C while compiling, before anything is written, or Ctrl-C twice.
    """
    options = with_changes(options or RunOptions(), changes)
    validate(config, hyper)
    require_one_setting(hyper)
    validate_options(options)
    run_folder.check(options.out)
    require_services(options)
    host.prepare_jax(options)
    parts = trainer.assemble(config)
    trainer.env_params(parts.environment, hyper)  # refuses parameters that do not exist
    layout = parallel.choose_layout(config, options.seeds, host.device_count(options))
    start = time.perf_counter()
    arrays = schedules.as_arrays(config, hyper)
    state = parallel.init_population(config, arrays, options.seed, layout)
    if options.init_from:
        state = evaluating.start_from(Path(options.init_from), config, state, layout)
    with ExitStack() as stack:
        progress = stack.enter_context(open_progress(config, options))
        name, kind = run_folder.env_name(config), layout.devices[0].platform
        for line in wording.plan_lines(
            name, config, options.seeds, f"{len(layout.devices)} {kind}", source
        ):
            progress.message(line)
        chunk = parallel.make_chunk(config, layout)
        chunk = chunk.lower(arrays, state, np.int32(1)).compile()
        compile_seconds = time.perf_counter() - start
        stop = stack.enter_context(host.stop_signals())
        folder = run_folder.create(config, hyper, options, list(layout.devices))
        session = Session(
            config=config,
            hyper=arrays,
            options=options,
            callbacks=callbacks,
            layout=layout,
            folder=folder,
            chunk=chunk,
            play=evaluating.player(config, arrays, layout, options),
            logs=stack.enter_context(open_logs(folder, config, hyper, options, progress)),
            progress=progress,
            stop=stop,
        )
        return train_and_conclude(session, state, compile_seconds)


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


def require_services(options: RunOptions) -> None:
    """Refuse a logging service whose package is missing, before anything is written."""
    for is_wanted, package, extra in (
        (options.tensorboard, "tensorboardX", "tensorboard"),
        (options.wandb, "wandb", "wandb"),
    ):
        if is_wanted and find_spec(package) is None:
            raise InputError(
                f"--{extra} needs the package {package}, which is not installed: install it with "
                f"pip install 'ppo-jax[{extra}]', or leave --{extra} out."
            )


@contextmanager
def open_logs(
    folder: Path,
    config: Config,
    hyper: Hyper,
    options: RunOptions,
    progress: log.Progress | Silence,
) -> Iterator[log.LogFanout]:
    """The optional services; metrics.jsonl and timing.jsonl are written whatever they do."""
    openers: dict[str, Callable[[], log.Backend]] = {}
    if options.tensorboard:
        openers["tensorboard"] = lambda: log.TensorBoardLog(folder / "tensorboard")
    if project := options.wandb:
        described = run_folder.to_json(run_folder.describe(config, hyper, options))
        mode = os.environ.get("WANDB_MODE", "online")
        openers["wandb"] = lambda: log.WandbLog(project, mode, described, folder)
    backends: dict[str, log.Backend] = {}
    for name, opener in openers.items():
        try:
            backends[name] = opener()
        except Exception as error:  # no key, no network: the run is not its concern
            progress.message(f"logging to {name} did not start, the run goes on: {error}")
    logs = log.LogFanout(backends, progress.message)
    try:
        yield logs
    finally:
        logs.close()


def train_and_conclude(session: Session, state: TrainState, compile_seconds: float) -> RunResult:
    """The loop over chunks, the final evaluation and everything that is left in the folder."""
    config, options, layout = session.config, session.options, session.layout
    state, env_steps, train_seconds = train_loop(session, state)
    if session.stop:
        session.progress.message(
            f"stopped after {env_steps:,} environment steps a seed: saving, then evaluating "
            "(Ctrl-C once more leaves at once)"
        )
    save(session, state, env_steps)
    alive = evaluating.alive_seeds(state, layout)
    played = session.play(state, evaluating.FINAL)
    logged = log.read_jsonl(session.folder / "metrics.jsonl")
    curve = session.folder / "learning_curve.svg" if logged else None
    summary = {
        "env": run_folder.env_name(config),
        "objective": config.objective,
        "num_seeds": options.seeds,
        "env_steps": env_steps,
        **evaluating.summary(played, alive, options),
        "compile_seconds": round(compile_seconds, 3),
        "train_seconds": round(train_seconds, 3),
        "env_steps_per_second": round(env_steps * options.seeds / max(train_seconds, 1e-9)),
        "stopped_early": env_steps < config.trained_env_steps,
        "run": str(session.folder),
        "learning_curve": str(curve) if curve else None,
    }
    run_folder.write_json(session.folder / "summary.json", summary)
    if curve:
        plots.learning_curve(
            logged,
            curve,
            title=f"{summary['env']}, {config.objective}",
            subtitle=f"return while training, {options.seeds} seeds",
        )
    exit_code = session.stop.get("exit_code", 1 if not alive.any() else 0)
    return RunResult(summary, session.folder, parallel.trimmed(state, layout), exit_code)


def train_loop(session: Session, state: TrainState) -> tuple[TrainState, int, float]:
    """Chunks until the budget is spent, a signal comes or a callback or return ends the run.

    Returns:
        the last state, the environment steps taken per seed, and the seconds spent training.
    """
    config, options = session.config, session.options
    cadence = Cadence.of(config, options, has_stop=bool(session.callbacks))
    metrics = log.JsonlLog(session.folder / "metrics.jsonl")
    timing = log.JsonlLog(session.folder / "timing.jsonl")
    iteration, length, train_seconds = 0, 1, 0.0
    pending: rows.Rows | None = None
    is_done = False
    while iteration < config.num_iterations and not is_done and not session.stop:
        length = cadence.next_length(iteration, length)
        start = time.perf_counter()
        state, fresh = session.chunk(session.hyper, state, np.int32(length))
        fresh = jax.device_get(fresh)
        seconds = time.perf_counter() - start
        train_seconds += seconds
        iteration += length
        env_steps = iteration * config.batch_size
        fresh = {name: value[: options.seeds, :length] for name, value in fresh.items()}
        points, pending = rows.windows(
            pending, fresh, iteration, cadence.log, config.num_iterations
        )
        speed = length * config.batch_size * options.seeds / seconds
        shown = rows.aggregate(points[-1][1] if points else pending or fresh)
        shown_at = {"env_steps": env_steps, "env_steps_per_second": speed}
        session.progress.update(iteration, {**shown, **shown_at})
        for point, window in points:
            row = {"env_steps": point * config.batch_size, **rows.aggregate(window)}
            if point == iteration and cadence.is_due(cadence.evaluate, iteration):
                played = session.play(state, iteration)
                alive = evaluating.alive_seeds(state, session.layout)
                row["eval_return"] = evaluating.mean_returns(played, alive)
                is_done |= has_reached(row["eval_return"], options.stop_at_return)
                score = score_of(row["eval_return"])
                session.progress.message(wording.evaluation_line(env_steps, score))
            elif options.stop_at_return is not None and not cadence.evaluate:
                is_done |= has_reached(row["episode_return"], options.stop_at_return)
            metrics.write(row)
            session.logs.write(row, row["env_steps"])
            is_done |= any([callback(row) is True for callback in session.callbacks])
        timing.write(
            {
                "env_steps": env_steps,
                "wall_seconds": train_seconds,
                "env_steps_per_second": speed,
            }
        )
        if cadence.is_due(cadence.save, iteration) and iteration < config.num_iterations:
            save(session, state, env_steps)
        # Twice as many iterations where the chunk was short, and fewer where it was long: the
        # length of a chunk changes no bit of the result.
        length = max(1, int(length * min(2.0, CHUNK_SECONDS / max(seconds, 1e-3))))
    metrics.close()
    timing.close()
    return state, iteration * config.batch_size, train_seconds


class Cadence(NamedTuple):
    """When what is due, in iterations; 0 for never."""

    last: int
    log: int
    evaluate: int
    save: int
    stops_at: int  # chunks end at multiples of it, where a decision to stop is taken

    @staticmethod
    def of(config: Config, options: RunOptions, has_stop: bool) -> Cadence:
        """Environment steps rounded up to iterations; evaluations fall on logged points."""
        log_steps = options.log_every or config.trained_env_steps // 100
        log_iterations = max(1, -(-log_steps // config.batch_size))
        evaluate = -(-options.eval_every // config.batch_size)
        evaluate = -(-evaluate // log_iterations) * log_iterations
        stops = has_stop or options.stop_at_return is not None
        return Cadence(
            last=config.num_iterations,
            log=log_iterations,
            evaluate=evaluate,
            save=-(-options.checkpoint_every // config.batch_size),
            stops_at=log_iterations if stops else 0,
        )

    def is_due(self, every: int, iteration: int) -> bool:
        return bool(every) and iteration % every == 0

    def next_length(self, iteration: int, wanted: int) -> int:
        """`wanted` iterations, but no further than the next point where the host must look."""
        bounds = [self.last] + [
            (iteration // every + 1) * every
            for every in (self.evaluate, self.save, self.stops_at)
            if every
        ]
        return min(wanted, parallel.ROWS, *(bound - iteration for bound in bounds))


def score_of(returns: list[float | None]) -> float | None:
    """The IQM over the seeds that have a return."""
    known = [value for value in returns if value is not None]
    return stats.iqm(known) if known else None


def has_reached(returns: list[float | None], goal: float | None) -> bool:
    """Whether the score is at least `goal`."""
    score = score_of(returns)
    return goal is not None and score is not None and score >= goal


def save(session: Session, state: TrainState, env_steps: int) -> None:
    """The whole state of all seeds, as a checkpoint that later runs can start from."""
    checkpoint.save(
        checkpoint.checkpoint_folder(session.folder, env_steps),
        parallel.trimmed(state, session.layout),
        {"env_steps": env_steps, "num_seeds": session.options.seeds},
    )
    checkpoint.prune(session.folder, keep=2)


@contextmanager
def open_progress(config: Config, options: RunOptions) -> Iterator[log.Progress | Silence]:
    """The live display, or nothing where it is not wanted."""
    if options.quiet:
        yield Silence()
        return
    progress = log.Progress(config.num_iterations, config.trained_env_steps, options.seeds)
    try:
        yield progress
    finally:
        progress.close()


class Silence(NamedTuple):
    """A progress display that shows nothing."""

    def update(self, iteration: int, row: dict[str, Any]) -> None:
        del iteration, row

    def message(self, text: str) -> None:
        del text
