"""A sweep's folder, which describes its sweep: only the same sweep can go on in it."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.apps.sweep import axes as axis_words
from ppo_jax.apps.sweep.axes import Axis, Values
from ppo_jax.apps.sweep.options import SweepOptions, validate_sweep
from ppo_jax.config import layers, reading, trust
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import HOSTS
from ppo_jax.config.trust import Names, Trust
from ppo_jax.config.validate import validate
from ppo_jax.config.values import MASK, masked
from ppo_jax.distributed import hosts
from ppo_jax.runtime.text import quoted
from ppo_jax.storage import run_folder, sealed
from ppo_jax.storage.files import to_json
from ppo_jax.storage.sealed import read_sealed, write_first_sealed

FORMAT, OLD_FORMAT = 2, 1  # version 0.1.0 wrote format 1, without id and checksums
RECORD = "sweep.json"
# The shapes of sweep.json and of a range in it, see `reading.expect`.
_SHAPE = {"config": dict, "hyper": dict, "axes": dict, "changes": [dict], "sweep": dict}
_SHAPE |= {"sweep_id?": str}
_RANGE = {"low": float, "high": float, "is_log": bool}
STORAGE_VARIABLE = "PPO_JAX_STORAGE"

# Options that may differ when a sweep goes on: none of these changes a result.
_HOW = (
    "quiet",
    "save_seconds",
    "device_memory",
    "memory",  # the name of device_memory in 0.1.0
    "devices",
    "out",
    "grace_seconds",
    "storage",
    "join",
    "engine",
    "ray_address",
    "ray_cpus",
    "ray_gpus",
    *HOSTS,
)


class Sweep(NamedTuple):
    """The full description of a sweep."""

    config: Config
    hyper: Hyper
    axes: tuple[Axis, ...]
    changes: list[Values]  # settings from arrays in `Hyper`; [{}] if there are none
    options: SweepOptions


def is_sweep(path: Path | str) -> bool:
    return (Path(path) / RECORD).is_file()


def describe(sweep: Sweep) -> dict[str, Any]:
    """Make the content of sweep.json; a password in the storage's URL and hosts are not kept."""
    storage = sweep.options.storage
    options = {name: value for name, value in vars(sweep.options).items() if name not in HOSTS}
    options["storage"] = None if storage is None else masked(storage)
    base = run_folder.describe_run(sweep.config, sweep.hyper, sweep.options.run_options())
    return to_json(
        {
            "sweep_format": FORMAT,
            "config": base["config"],
            "hyper": base["hyper"],
            "axes": {axis.name: _axis(axis) for axis in sweep.axes},
            "changes": sweep.changes,
            "sweep": options,
        }
    )


def programs(sweep: Sweep) -> Names:
    """All that a sweep may load or open: programs, also as values of axes, and its storage."""
    pairs = list(vars(sweep.config).items())
    pairs += [(axis.name, choice) for axis in sweep.axes for choice in axis.choices]
    pairs += [pair for values in sweep.changes for pair in values.items()]
    storage = sweep.options.storage
    opened = [] if storage is None else [("storage", masked(storage))]
    return trust.code_names(pairs) | frozenset(opened)


def identity(sweep: Sweep) -> dict[str, Any]:
    """The part of a sweep on which workers of one study must agree."""
    content = describe(sweep)
    how = ("settings", "seeds", "seed", "eval_episodes", "policy_mode")
    named = {name: content["sweep"][name] for name in how}
    return {name: content[name] for name in ("config", "hyper", "axes")} | named


def _axis(axis: Axis) -> Any:
    """The choices or the range of an axis; the environment shows anew if its numbers are whole."""
    if axis.range is None:
        return list(axis.choices)
    return {name: getattr(axis.range, name) for name in ("low", "high", "is_log")}


def check(out: str | None) -> None:
    """Refuse a folder that holds other files.

    Raises:
        InputError: the folder cannot hold a new sweep.
    """
    if out is not None and not is_sweep(out):
        run_folder.check_new_folder(out)


def open_folder(sweep: Sweep) -> Path:
    """Make the sweep's folder, or open it if the same sweep was stopped.

    Raises:
        InputError: the folder cannot be made, or holds another sweep; the message names the
            difference.
    """
    path = Path(sweep.options.out) if sweep.options.out else _new_path(sweep.config)
    content = describe(sweep)
    try:
        path.mkdir(parents=True, exist_ok=True)
        more = {"sweep_id": uuid.uuid4().hex, **sealed.sign(programs(sweep))}
        if is_sweep(path) or not write_first_sealed(path / RECORD, content | more):
            found = layers.with_new_fields(_load(path))
            found["sweep"] = to_json(dataclasses.asdict(SweepOptions())) | found["sweep"]
            _require_same(path, found, content)
        return path
    except OSError as error:
        raise InputError(
            f"The sweep's folder {str(path)!r} cannot be made ({error.strerror}): name another "
            "place with --out."
        ) from error


def _new_path(config: Config) -> Path:
    """Choose runs/sweep-ENV-OBJECTIVE-UTCTIME, with a number behind it if that is taken."""
    usual = run_folder.default_path(config)
    path, number = usual.with_name(f"sweep-{usual.name}"), 1
    while path.exists():
        number += 1
        path = usual.with_name(f"sweep-{usual.name}-{number}")
    return path


def _require_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for table in ("config", "hyper", "axes", "changes", "sweep"):
        old, new = found[table], wanted[table]
        if isinstance(new, dict):
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            is_tpe = wanted["sweep"]["sampler"] == "tpe"  # whose study draws the settings
            how = (*_HOW, *(() if is_tpe else ("study",))) if table == "sweep" else ()
            names = [name for name in names if name not in how]
        else:
            names = [table] if old != new else []
        if names:
            was = old.get(names[0]) if isinstance(old, dict) else old
            now = new.get(names[0]) if isinstance(new, dict) else new
            raise InputError(
                f"out={str(path)!r} holds another sweep ({names[0]} was {was} and is {now}): give "
                f"the same options again to go on, or run `ppo-jax sweep {quoted(str(path))}`, or "
                "name another folder."
            )


def read(
    path: Path | str,
    env: Any = None,
    network: Any = None,
    trusted: Trust = False,
    storage: str | None = None,
    joining: Mapping[str, Any] | None = None,
) -> Sweep:
    """Read the sweep of a folder, to go on with it.

    Args:
        env, network: the same Python objects again, if the sweep was given any.
        trusted: the user's word for the programs and the storage that it names.
        storage: the same storage again, with its password.
        joining: options of this start that join several hosts, by name.

    Raises:
        InputError: the folder holds no sweep, one that is damaged, or one whose programs or storage
            the user does not vouch for.
    """
    path = Path(path)
    content = _load(path)
    try:
        layer = layers.file_layer(str(path / RECORD), layers.with_old_values(content))
        base = layers.resolve([layer._replace(values={**layer.values})])
        axes = tuple(_read_axis(name, axis) for name, axis in content["axes"].items())
        changes = [axis_words.read_any(values) for values in content["changes"]]
        options = SweepOptions(**{**_read_options(content["sweep"]), "out": str(path)})
        validate(base.config, base.hyper)
        validate_sweep(options)
    except InputError as error:
        raise InputError(f"{str(path / RECORD)!r} is damaged: {error}") from error
    found = Sweep(base.config, base.hyper, axes, changes, options)
    again = {name: x for name, x in (("env", env), ("network", network)) if x is not None}
    known = [getattr(base.config, name) for name in again]
    known += [] if storage is None else [masked(storage)]
    trust.require(
        programs(found),
        str(path / RECORD),
        trust.with_names(trusted, known),
        content.get("signature"),
    )
    own = {**(joining or {}), "storage": _storage(options.storage, storage)}
    options = dataclasses.replace(options, **own)
    validate_sweep(options)  # with the hosts of this start
    return found._replace(config=dataclasses.replace(base.config, **again), options=options)


def _storage(recorded: str | None, given: str | None) -> str | None:
    """The storage with its password, which no file holds.

    Raises:
        InputError: another storage, or the password is needed and not given.
    """
    needs_password = recorded is not None and MASK in recorded
    if given is None and needs_password:
        given = os.environ.get(STORAGE_VARIABLE)
    if given is not None and masked(given) != recorded:
        raise InputError(
            f"storage={masked(given)!r} is not the sweep's, which is {recorded!r}: give the same "
            "one, or leave it out."
        )
    if given is None and needs_password:
        raise InputError(
            f"The storage {recorded!r} needs its password again, which no file keeps: give "
            f"--storage URL, or set {STORAGE_VARIABLE}."
        )
    return recorded if given is None else given


def _read_options(table: Mapping[str, Any]) -> dict[str, Any]:
    known = {spec.name: spec for spec in dataclasses.fields(SweepOptions)}
    return {
        name: layers.convert(SweepOptions, known[name], value)
        for name, value in table.items()
        if name in known
    }


def _read_axis(name: str, content: Any) -> Axis:
    if isinstance(content, list):
        return axis_words.from_mapping({name: content})[0]
    return axis_words.from_ends(name, content["low"], content["high"], content["is_log"])


def _load(path: Path) -> dict[str, Any]:
    file = path / RECORD
    if not file.exists():
        raise InputError(f"{str(path)!r} holds no sweep: it has no {RECORD}.")
    remedy = "restore it from a copy, or begin the sweep again in another folder"
    content = read_sealed(file, remedy, {"sweep_format": int}, may_be_open=True)
    found = content["sweep_format"]
    if found not in (FORMAT, OLD_FORMAT):
        raise InputError(
            f"{str(file)!r} has format {found}; this version reads {OLD_FORMAT} and {FORMAT}."
        )
    content = read_sealed(file, remedy, _SHAPE, may_be_open=found == OLD_FORMAT)
    try:
        for axis in content["axes"].values():
            reading.expect(axis, _RANGE if isinstance(axis, dict) else list, "an axis")
    except ValueError as error:
        raise InputError(f"{str(file)!r} is damaged ({error}): {remedy}.") from None
    return content


def sweep_id(path: Path) -> str | None:
    """The sweep's name, which its files repeat; None if version 0.1.0 began it."""
    return _load(path).get("sweep_id")


def pack_names(path: Path) -> Callable[[Path], str | None]:
    """The names of packs of the sweep in `path`, by their folders."""
    own = hosts.on_first(lambda: sweep_id(path))
    return lambda pack: own and f"{own}/{pack.relative_to(path).as_posix()}"


def sampler_seed(options: SweepOptions) -> Sequence[int]:
    """Seed of the sampler's random stream, which is none of the members' streams."""
    return (options.seed, 0x5EED)
