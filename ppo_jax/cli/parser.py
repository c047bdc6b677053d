"""The command line's flags, made from the fields of `Config`, `Hyper` and `RunOptions`.

argparse only splits the words. Every value stays a text, which `layers.convert` reads. A missing
flag leaves no trace, and an error of argparse becomes one sentence.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import FIELDS, hint
from ppo_jax.config.options import HOSTS, RunOptions

GROUPS: dict[type, str] = {
    Config: "the program (a change compiles anew)",
    Hyper: "numbers (each a number, or a schedule START:END or START:END:cosine)",
    RunOptions: "the run (steps are environment steps of one seed; 1e6 is a number, too)",
}
_METAVARS = {"out": "DIR", "init_from": "RUN", "wandb": "PROJECT", "devices": "N|auto"}
_METAVARS |= {"mesh": "seed=N,env=N", "coordinator": "HOST:PORT"}
_NEGATIVE = re.compile(r"-[\d.]|-inf")


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, exits and usage dumps."""

    def __init__(self, prog: str, argument: str, description: str) -> None:
        super().__init__(
            prog,
            usage=f"{prog} {argument} [OPTION...]".replace("  ", " "),
            description=f"{description[0].upper()}{description[1:]}.",
            allow_abbrev=False,
            add_help=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        )
        self.names: list[str] = []  # flags, for hints
        self.rest: str | None = None  # name under which `read` returns all further words

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as one sentence."""
        found = re.match(r"argument ([^:]*): (.*)", message)
        flag, rule = found.groups() if found else ("", message)
        flag = flag.split("/")[0]
        if "expected one argument" in rule:
            raise InputError(f"{flag} needs a value: see `{self.prog} --help`.")
        if "ignored explicit argument" in rule:
            raise InputError(f"{flag} takes no value: write {flag} or leave it out.")
        raise InputError(f"{f'{flag}: ' if flag else ''}{rule}; see `{self.prog} --help`.")

    def add_switch(self, group: Any, flag: str, help: str) -> None:
        """Add a flag without a value."""
        group.add_argument(flag, action="store_true", help=_escape(help))
        self.names.append(flag)

    def add_value(self, group: Any, flag: str, help: str, metavar: str) -> None:
        """Add a flag with a value, which stays a text."""
        group.add_argument(flag, metavar=metavar, help=_escape(help))
        self.names.append(flag)

    def read(self, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Split words into flags by name and the environment's parameters by name.

        Raises:
            InputError: an unknown flag, a flag without its value, a word too many, an empty `out`.
        """
        rest, env_params = split_env_params(join_negative_numbers(words))
        parsed, left = self.parse_known_args(rest)
        flags = vars(parsed)
        for action in self._actions:  # argparse makes an empty list of `--out=--`
            if action.nargs is None and isinstance(flags.get(action.dest), list):
                raise InputError(
                    f"--{action.dest.replace('_', '-')} needs a value, and -- is none."
                )
        for word in left:
            if word.startswith("-") and word != "-":
                raise InputError(self._unknown(word.split("=")[0]))
        if flags.get("out") == "":
            raise InputError("out is empty: give it a value or leave it out.")
        if self.rest is not None:
            return {**flags, self.rest: left}, env_params
        if left:
            raise InputError(f"{left[0]!r} is one word too many: see `{self.prog} --help`.")
        return flags, env_params

    def _unknown(self, flag: str) -> str:
        name = flag.lstrip("-").replace("-", "_")
        known = [other.lstrip("-").replace("-", "_") for other in self.names]
        return (
            f"{flag} is no option of `{self.prog}`."
            + _as_flags(hint(name, known))
            + f" All of them: {self.prog} --help."
        )


def add_host_flags(parser: Parser) -> None:
    """Add the flags that join several hosts."""
    group = parser.add_argument_group("several hosts")
    for name in HOSTS:
        text = _escape(FIELDS[name][1].metadata["help"])
        parser.add_value(group, f"--{name.replace('_', '-')}", text, _METAVARS.get(name, "VALUE"))


def add_field_flags(
    parser: Parser,
    shown: Mapping[str, Any],
    sources: Mapping[str, str],
    owners: tuple[type, ...] = (Config, Hyper, RunOptions),
) -> None:
    """Add one flag for each field.

    Args:
        shown: values that the help shows as defaults, by name.
        sources: names whose value comes from a preset.
        owners: the dataclasses whose fields become flags.
    """
    groups = {owner: parser.add_argument_group(GROUPS[owner]) for owner in owners}
    for name, (owner, spec) in FIELDS.items():
        if (owner, name) == (Config, "env") or owner not in owners:
            continue  # an argument of the command, or not among its flags
        flag = f"--{name.replace('_', '-')}"
        text = _escape(_help(spec, shown[name], "preset" if name in sources else "default"))
        if spec.type == "bool":
            on_off = argparse.BooleanOptionalAction
            groups[owner].add_argument(flag, dest=name, action=on_off, help=text)
        else:
            metavar = _metavar(owner, spec)
            groups[owner].add_argument(flag, dest=name, metavar=metavar, help=text)
        parser.names.append(flag)
    groups[Hyper].add_argument(  # for the help only: `split_env_params` removes these flags
        "--env.NAME", metavar="VALUE", help="the environment's own parameter NAME"
    )


def join_negative_numbers(words: Sequence[str]) -> list[str]:
    """Join `--log-std-init -1e-3` to one word: argparse would take the number for a flag."""
    joined: list[str] = []
    for word in words:
        last = joined[-1] if joined else ""
        if _NEGATIVE.match(word) and last.startswith("--") and "=" not in last:
            joined[-1] = f"{last}={word}"
        else:
            joined.append(word)
    return joined


def split_env_params(words: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Separate `--env.NAME VALUE` and `--env.NAME=VALUE`, whose names argparse cannot know."""
    rest: list[str] = []
    params: dict[str, str] = {}
    stream = iter(words)
    for word in stream:
        if not word.startswith("--env."):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix("--env.").partition("=")
        if not equals:
            value = next(stream, "")
        if not name or not value or value.startswith("--"):
            raise InputError(f"{word} needs a name and a value, for example --env.length 0.7.")
        params[name.replace("-", "_")] = value
    return rest, params


def _as_flags(sentence: str) -> str:
    """Spell the names of a hint as flags."""
    head, colon, names = sentence.partition(": ")
    flags = [f"--{name.replace('_', '-')}" for name in names.rstrip(".").split(", ")]
    return f"{head}{colon}{', '.join(flags)}." if colon else ""


def choices_and_help(spec: dataclasses.Field) -> str:
    """A field's help text with its allowed words."""
    choices = spec.metadata.get("choices")
    return spec.metadata["help"] + (f": {' | '.join(choices)}" if choices else "")


def _help(spec: dataclasses.Field, value: Any, source: str) -> str:
    text = choices_and_help(spec)
    return text if value is None else f"{text} [{source}: {_show(value)}]"


def _metavar(owner: type, spec: dataclasses.Field) -> str:
    kind = str(spec.type).removesuffix(" | None")
    if spec.metadata.get("choices"):
        return "NAME"
    if spec.name in _METAVARS:
        return _METAVARS[spec.name]
    if owner is Hyper or kind == "float":
        return "X"
    return {"int": "N", "tuple[int, ...]": "N,N"}.get(kind, "TEXT")


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, int | float) and not isinstance(value, Schedule):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return str(value)


def _escape(text: str) -> str:
    return text.replace("%", "%%")
