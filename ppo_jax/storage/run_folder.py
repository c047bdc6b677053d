"""The folder of a run: its files, so that it can be read, repeated and trusted.

config.json      all that is needed to run it again
manifest.json    versions, device, flags, git revision, times
run.lock         while a process writes here: which one, see `lock`
metrics.jsonl    one object per logged point, nothing that depends on the clock
timing.jsonl     env_steps, wall_seconds, env_steps_per_second
summary.json     what `train --json` prints
checkpoints/     step_..., see `checkpoint`
learning_curve.svg
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ppo_jax.config import layers, reading, trust
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions, validate_options
from ppo_jax.config.trust import Trust
from ppo_jax.config.validate import validate
from ppo_jax.storage import files, lock, sealed
from ppo_jax.storage.files import is_temporary, write_json
from ppo_jax.storage.manifest import make_manifest

FORMAT = 1
# The shape of summary.json, see `reading.expect`.
SUMMARY = {
    "env": str,
    "env_steps": int,
    "num_seeds": int,
    "num_failed": int,
    "policy_mode": str,
    "episodes_per_seed": int,
    "final_return": {
        "per_seed": [(float, None)],
        "iqm": (float, None),
        "ci95": ([float, float], None),
        "mean?": (float, None),
    },
    "stopped_by?": (str, None),
    "stopped_early?": bool,
    "compile_seconds?": (float, None),
    "train_seconds?": (float, None),
    "env_steps_per_second?": (float, None),
    "episodes_cut?": int,
    "episodes_stalled?": int,
    "run?": (str, None),
    "learning_curve?": (str, None),
}
OBJECT = " (an object)"  # ends the description of what cannot be written to a file
_MAY_BE_OBJECTS = ("env", "network")
_WRITTEN = (*(lock.LOCK, "metrics.jsonl", "timing.jsonl", "checkpoints", "tensorboard", "wandb"),)
RUNS = Path("runs")  # parent of the folders of runs without --out


def default_path(config: Config, now: datetime | None = None) -> Path:
    """runs/ENV-OBJECTIVE-UTCTIME."""
    now = now or datetime.now(UTC)
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in env_name(config))
    return RUNS / f"{name}-{config.objective}-{now:%Y%m%dT%H%M%S}"


def env_name(config: Config) -> str:
    """The environment's name, also of one given as an object."""
    return config.env if isinstance(config.env, str) else _label(config.env)


def _label(given: Any) -> str:
    """A short name of an object that only its program can make again."""
    given = given[0] if type(given) is tuple and given else given  # a gymnax (env, params) pair
    names = (getattr(given, attribute, None) for attribute in ("name", "__qualname__"))
    return next((name for name in names if isinstance(name, str)), type(given).__name__)


def check_new_folder(out: str | None) -> None:
    """Refuse a folder that cannot become a new run's, before anything is compiled.

    Args:
        out: the folder, None for a new one in runs/.

    Raises:
        InputError: it exists and is not empty, or it cannot be made or written.
    """
    path = RUNS / "new" if out is None else Path(out)
    if path.is_file():
        raise InputError(f"out={str(path)!r} is a file: name a new folder.")
    if path.is_dir():
        lock.refuse_if_held(path)
        _refuse_used(path)
    parent = path if path.exists() else path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"The run's folder {str(path if out else RUNS)!r} cannot be made, because "
            f"{str(parent.absolute())!r} is no writable folder: name another place with --out."
        )


@contextmanager
def claimed(config: Config, hyper: Hyper, options: RunOptions, devices: list) -> Iterator[Path]:
    """A new run's folder with its config.json and manifest.json, locked against other writers.

    If the body fails before it has saved anything, the folder is left as it was found.

    Raises:
        InputError: the folder cannot be made or written, is another run's, or is locked.
    """
    path = Path(options.out) if options.out else default_path(config)
    was_there = bool(options.out) and path.is_dir()
    with ExitStack() as stack:
        try:
            if options.out:
                path.mkdir(parents=True, exist_ok=True)
            else:
                path = _new_folder(path)
            stack.enter_context(lock.held(path))
            _refuse_used(path)  # by one that was quicker
            _remove_leftovers(path)
            write_config(path, config, hyper, options, uuid.uuid4().hex)
            write_json(path / "manifest.json", make_manifest(devices))
        except OSError as error:
            raise InputError(
                f"The run's folder {str(path)!r} cannot be made ({error.strerror}): name another "
                "place with --out."
            ) from error
        try:
            yield path
        except Exception:
            if not (path / "checkpoints").exists():
                _undo(path)
                stack.close()  # the lock is a file of the folder, too
                if not was_there:
                    with suppress(OSError):
                        path.rmdir()
            raise


def write_config(
    path: Path, config: Config, hyper: Hyper, options: RunOptions, run_id: str | None
) -> None:
    """Write config.json, with a signature of the programs in it."""
    described = describe_run(config, hyper, options)
    signed = sealed.sign(trust.code_names(described["config"]))
    write_json(path / "config.json", described | {"run_id": run_id} | signed)


def _undo(path: Path) -> None:
    """Remove the files that `claimed` and a run write before its first checkpoint."""
    for name in ("config.json", "manifest.json", "metrics.jsonl", "timing.jsonl"):
        with suppress(OSError):
            (path / name).unlink()


def refuse_links(path: Path) -> None:
    """Refuse symbolic links in place of the files and folders that a run writes into."""
    files.refuse_links(*(path / name for name in _WRITTEN))


def is_run(path: Path | str) -> bool:
    """Check whether a run was begun in this folder."""
    return (Path(path) / "config.json").is_file()


def run_id(path: Path) -> str | None:
    """The name of the run in a folder; None if the run is older than names."""
    try:
        found = reading.read_json(path / "config.json").get("run_id")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _refuse_used(path: Path) -> None:
    """Refuse a folder that holds more than a killed start leaves."""
    if any(file.name != lock.LOCK and not is_temporary(file.name) for file in path.iterdir()):
        again = " (or go on with its run: ppo-jax resume)" if is_run(path) else ""
        raise InputError(f"out={str(path)!r} exists and is not empty: name a new folder{again}.")


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of a killed start."""
    for file in path.iterdir():
        if is_temporary(file.name):
            file.unlink()


def _new_folder(wanted: Path) -> Path:
    """Make `wanted`, or the same with a number if another run has the same second."""
    path, number = wanted, 1
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
            path = wanted.with_name(f"{wanted.name}-{number}")


def describe_run(config: Config, hyper: Hyper, options: RunOptions) -> dict[str, Any]:
    """The content of config.json; of an environment or network object only its name."""
    recorded = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    for name in _MAY_BE_OBJECTS:
        if recorded[name] is not None and not isinstance(recorded[name], str):
            recorded[name] = _label(recorded[name]) + OBJECT
    return {
        "format": FORMAT,
        "config": recorded,
        "hyper": {f.name: getattr(hyper, f.name) for f in dataclasses.fields(hyper)},
        "options": dataclasses.asdict(options),
    }


def read_settings(
    path: Path, env: Any = None, network: Any = None, trusted: Trust = False
) -> layers.Settings:
    """The settings of a finished or interrupted run.

    Args:
        env, network: the run's own, needed if they were objects rather than names.
        trusted: the user's word for the programs that config.json names, see `config.trust`.

    Raises:
        InputError: no run folder, one of another format, an object that must be given again, or a
            program that the user does not vouch for.
    """
    file = path / "config.json"
    if not file.is_file():
        raise InputError(f"{str(path)!r} is no run folder: it has no config.json.")
    try:
        content = reading.expect(reading.read_json(file), {"format": int}, "it")
        given = layers.resolve([layers.file_layer(str(file), layers.with_old_values(content))])
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} is damaged: {error}") from error
    if (found := content["format"]) != FORMAT:
        raise InputError(f"{str(file)!r} has format {found}; this version reads {FORMAT}.")
    again = {
        name: value for name, value in (("env", env), ("network", network)) if value is not None
    }
    config = dataclasses.replace(given.config, **again)
    for name in _MAY_BE_OBJECTS:
        if str(getattr(config, name)).endswith(OBJECT):
            raise InputError(
                f"The run {str(path)!r} was given its {name} as a Python object, which no file can "
                f"hold: give it again from Python, for example "
                f"ppo_jax.evaluate({str(path)!r}, {name}=...)."
            )
    replaced = [getattr(given.config, name) for name in again]
    names = trust.code_names(vars(given.config))
    known = trust.with_names(trusted, replaced)
    trust.require(names, str(file), known, content.get("signature"))
    try:
        validate(config, given.hyper)
        validate_options(given.options)
    except InputError as error:
        raise InputError(f"{str(file)!r} is no setting that can run: {error}") from None
    return given._replace(config=config)
