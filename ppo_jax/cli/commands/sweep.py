"""`ppo-jax sweep ENV AXIS...`, and `ppo-jax sweep FOLDER` to resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_jax.apps.sweep import axes
from ppo_jax.apps.sweep.axes import Axis
from ppo_jax.apps.sweep.options import SweepOptions, validate_sweep
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser, choices_and_help
from ppo_jax.cli.settings import add_setting_flags, find_settings, source_of
from ppo_jax.cli.trust import find_trust
from ppo_jax.config import layers
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import Settings
from ppo_jax.config.options import HOSTS
from ppo_jax.config.trust import CODE_FIELDS, with_names
from ppo_jax.config.validate import validate
from ppo_jax.envs import registration
from ppo_jax.runtime import signals

if TYPE_CHECKING:
    from ppo_jax.apps.sweep.pack import Listener
    from ppo_jax.apps.sweep.results.table import Table

_METAVARS = {"out": "DIR", "storage": "URL", "device_memory": "SIZE", "study": "NAME"}
_METAVARS |= {"coordinator": "HOST:PORT"}


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    env = next((word for word in words if not word.startswith("-") and "=" not in word), None)
    parser.rest = "axes"
    parser.add_argument("env", nargs="?", metavar="ENV", help="`ppo-jax envs`, or module:attribute")
    parser.add_argument_group(
        "axes", "NAME=VALUE,VALUE or NAME=LOW..HIGH[:POINTS][:log]; env.NAME for the environment's"
    )
    group = parser.add_argument_group("the sweep (steps are environment steps of one seed)")
    parser.add_switch(group, "--plan", "print groups, members, memory and time, train nothing")
    for spec in dataclasses.fields(SweepOptions):
        flag = f"--{spec.name.replace('_', '-')}"
        if spec.type == "bool":
            parser.add_switch(group, flag, spec.metadata["help"])
        else:
            default = "" if spec.default is None else f" [default: {spec.default}]"
            parser.add_value(group, flag, choices_and_help(spec) + default, _metavar(spec))
    add_setting_flags(parser, env)
    same = parser.add_argument_group("to go on with a sweep of somebody else, beside --trust")
    same.add_argument("--env", dest="same_env", metavar="NAME", help="the same environment again")
    parser.names.append("--env")


def _metavar(spec: dataclasses.Field) -> str:
    if spec.metadata["choices"]:
        return "NAME"
    return _METAVARS.get(spec.name, "N" if "int" in str(spec.type) else "X")


def read_options(flags: Mapping[str, Any]) -> SweepOptions:
    """Convert and check the sweep's own flags."""
    options = SweepOptions(**converted(flags))
    validate_sweep(options)
    return options


def converted(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the sweep's own flags."""
    return {
        spec.name: layers.convert(SweepOptions, spec, flags[spec.name])
        for spec in dataclasses.fields(SweepOptions)
        if spec.name in flags
    }


def _run(flags: dict[str, Any], env_params: dict[str, str]) -> Answer:
    words = [word for word in (flags.pop("env", None), *flags.pop("axes", [])) if word]
    if len(words) == 1 and _is_sweep(words[0]):
        return _resume(words[0], flags, env_params)
    env = _environment(words)
    if Path(env).is_dir():
        _refuse_folder(env)
    if "same_env" in flags:
        raise InputError(
            "--env repeats the environment of a sweep's folder: name it without a flag."
        )
    swept = axes.parse([word for word in words if "=" in word])
    options = read_options(flags)
    axes.check(swept, options)
    settings = _settings(env, swept, options, flags, env_params)
    with signals.listening():  # from here on, because importing jax takes seconds
        from ppo_jax.apps.sweep import driver, folder, plan

        sweep = folder.Sweep(settings.config, settings.hyper, swept, [{}], options)
        if "plan" in flags:
            return Answer(*plan.plan_only(sweep, source_of(settings)))
        with _listener(options.quiet or bool(options.host_index)) as listener:
            return _answer(driver.carry_out(sweep, listener, source_of(settings)))


def _is_sweep(word: str) -> bool:
    return (Path(word) / "sweep.json").is_file()


def _refuse_folder(env: str) -> None:
    """Refuse a folder in an environment's place, unless it only has the name of one.

    Raises:
        InputError: with the way to go on with the sweep, or without one.
    """
    with suppress(InputError):
        return registration.check_name(env, must_be_installed=False)
    if _is_sweep(env):
        raise InputError(
            f"{env!r} is a sweep's folder, which takes no axes: leave them out to go on with the "
            "sweep, or name an environment in its place."
        )
    raise InputError(
        f"{env!r} is a folder without a sweep (there is no sweep.json in it): name a sweep's "
        "folder to go on with it, or an environment and axes."
    )


def _environment(words: Sequence[str]) -> str:
    """Return the one word that is no axis."""
    plain = [word for word in words if "=" not in word]
    if len(plain) > 1:
        raise InputError(
            f"{plain[1]!r} is no axis: write NAME=VALUE,VALUE or NAME=LOW..HIGH, for example "
            "learning_rate=1e-4..1e-2:log."
        )
    if not plain:
        raise InputError(
            "sweep needs an environment, for example: ppo-jax sweep CartPole-v1 "
            "learning_rate=1e-4..1e-2:5:log."
        )
    return plain[0]


def _settings(
    env: str,
    swept: Sequence[Axis],
    options: SweepOptions,
    flags: Mapping[str, Any],
    env_params: Mapping[str, str],
) -> Settings:
    """Resolve and check the settings that the axes vary."""
    fields = {name for name, (owner, _) in layers.FIELDS.items() if owner in (Config, Hyper)}
    kept = {"preset", "no_preset", "config", "trust"} | fields
    own = {name: value for name, value in flags.items() if name in kept}
    settings = find_settings({**own, "env": env}, env_params)
    for axis in swept:
        if settings.sources.get(axis.name) == "flag":
            flag = f"--{axis.name.replace('_', '-')}"
            raise InputError(f"{axis.name} is an axis and {flag} is given, too: leave one out.")
    _check_budget(options, settings)
    validate(settings.config, settings.hyper)
    registration.check_name(settings.config.env)
    axes.check_values(swept, settings.config, settings.hyper)
    return settings


def _check_budget(options: SweepOptions, settings: Settings) -> None:
    """Refuse a budget in all beside both numbers that it would set."""
    is_counted = options.sampler == "grid" or options.settings is not None
    if options.budget and is_counted and settings.sources.get("total_env_steps") == "flag":
        count = "sampler grid, which trains every point"
        if options.settings is not None:
            count = f"--settings {options.settings}"
        raise InputError(
            f"--budget {options.budget} has nothing to set beside {count}, and --total-env-steps "
            f"{settings.config.total_env_steps}: leave one of them out."
        )


def _resume(path: str, flags: Mapping[str, Any], env_params: Mapping[str, str]) -> Answer:
    # The user's word and the hosts of this start, no new settings.
    said = ("trust", "same_env", *CODE_FIELDS[1:], "storage", *HOSTS)
    more = [name for name in flags if name not in ("quiet", "json", "debug", *said)]
    more += [f"env.{name}" for name in env_params]
    if more:
        raise InputError(
            f"{path!r} is a sweep's folder, which holds all settings of the sweep: leave "
            f"--{more[0].replace('_', '-')} out to go on with it."
        )
    with signals.listening():
        from ppo_jax.apps.sweep import driver

        own = converted({name: flags[name] for name in (*HOSTS, "storage") if name in flags})
        with _listener("quiet" in flags or bool(own.get("host_index"))) as listener:
            again = [flags[name] for name in CODE_FIELDS if name in flags]
            trust = with_names(find_trust(flags), again)
            return _answer(driver.resume(path, listener=listener, trust=trust, **own))


@contextmanager
def _listener(is_quiet: bool) -> Iterator[Listener]:
    """Show a sweep's progress on stderr while the context is open."""
    from ppo_jax.apps.sweep import pack
    from ppo_jax.runtime import progress

    with progress.sweep_display(is_quiet) as shown:
        yield pack.Listener(shown.message, shown.update)


def _answer(table: Table) -> Answer:
    from ppo_jax.apps.sweep.results import summary

    return Answer(table.summary, summary.lines(table), table.exit_code)


COMMAND = Command(
    "sweep",
    "ENV AXIS...",
    "try settings x seeds at once, find the best",
    _run,
    _add_flags,
    True,
    True,
)
