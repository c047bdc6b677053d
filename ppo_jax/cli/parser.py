"""The command line's flags, made from the fields of `Config`, `Hyper` and `RunOptions`.

argparse only splits the words. Every value stays a text, which `layers.convert` reads. A missing
flag leaves no trace, and an error of argparse becomes one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from ppo_jax.config import layers
from ppo_jax.config.config import Config, Hyper, Schedule, hint
from ppo_jax.config.errors import InputError
from ppo_jax.config.layers import FIELDS
from ppo_jax.config.names import SIZES
from ppo_jax.config.options import HOSTS, RunOptions
from ppo_jax.config.validate import nearest_divisor

GROUPS: dict[type, str] = {
    Config: "the program (a change compiles anew)",
    Hyper: "numbers (each a number, or a schedule START:END or START:END:cosine)",
    RunOptions: "the run (steps are environment steps of one seed; 1e6 is a number, too)",
}
# The first group of the help, in this order; `--help` shows no other setting.
COMMON = (
    *("objective", "total_env_steps", "seeds", "seed", "out", "learning_rate", "num_envs"),
    *("rollout_length", "eval_every", "init_from"),
)
_METAVARS = {"out": "DIR", "init_from": "RUN", "wandb": "PROJECT", "devices": "N|auto"}
_METAVARS |= {"mesh": "seed=N,env=N", "coordinator": "HOST:PORT"}
_WITH_NAMES = (" Its name here", " Nearest")  # beginnings of hints that end in names
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
        self.shown: Mapping[str, Any] = {}  # values that the help shows as defaults
        self.uncommon: list[argparse.Action] = []  # settings that are not COMMON
        self.is_short = False  # the help leaves them out
        self.elsewhere: Callable[[str], str] = _nowhere  # a sentence for a flag of other commands

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
        self._note_two_values(rest)
        flags = vars(parsed)
        for action in self._actions:  # argparse makes an empty list of `--out=--`
            if action.nargs is None and isinstance(flags.get(action.dest), list):
                raise InputError(
                    f"--{action.dest.replace('_', '-')} needs a value, and -- is none."
                )
        for place, word in enumerate(left):
            if word.startswith("-") and word != "-":
                flag, _, value = word.partition("=")
                raise InputError(
                    self._unknown(flag, value or "".join(left[place + 1 :][:1]), flags)
                )
        if flags.get("out") == "":
            raise InputError("out is empty: give it a value or leave it out.")
        if self.rest is not None:
            return {**flags, self.rest: left}, env_params
        if left:
            raise InputError(f"{left[0]!r} is one word too many: see `{self.prog} --help`.")
        return flags, env_params

    def _note_two_values(self, words: Sequence[str]) -> None:
        """Note a flag with two values: argparse takes the last in silence."""
        values: dict[str, str] = {}
        for word, after in pairwise([*words, ""]):
            flag, equals, value = word.partition("=")
            action = self._option_string_actions.get(flag)
            if action is not None:
                value = word if action.nargs == 0 else value if equals else after
                name = next(each for each in action.option_strings if each.startswith("--"))
                _keep_last(values, name, value, name)

    def _unknown(self, flag: str, value: str, flags: Mapping[str, Any]) -> str:
        """Answer an unknown flag: the sentence, and the way to what is meant."""
        name = flag.lstrip("-").replace("-", "_")
        known = [other.lstrip("-").replace("-", "_") for other in self.names]
        way = self.elsewhere(name) or _as_flags(hint(name, known))
        if value and not value.startswith("-"):
            way = way.replace("train CartPole-v1.", f"train {value}.")
        if name.lower() in SIZES and "num_minibatches" in known:
            way = _minibatches(value, {**self.shown, **flags}) or way
        every = "--help-all" if "--help-all" in self.names else "--help"
        return f"{flag} is no option of `{self.prog}`.{way} All of them: {self.prog} {every}."

    def format_help(self) -> str:
        """Return the help; a short one names the common settings only."""
        if not self.is_short:
            return super().format_help()
        for action in self.uncommon:
            action.help = argparse.SUPPRESS
        text = super().format_help()
        return f"{text}\nAll {len(self.names)} options: {self.prog} --help-all\n"


def add_host_flags(parser: Parser) -> None:
    """Add the flags that join several hosts."""
    group = parser.add_argument_group("several hosts")
    for name in HOSTS:
        text = _escape(FIELDS[name][1].metadata["help"])
        parser.add_value(group, f"--{name.replace('_', '-')}", text, _METAVARS.get(name, "VALUE"))


def add_field_flags(
    parser: Parser,
    common: Any,
    shown: Mapping[str, Any],
    sources: Mapping[str, str],
    owners: tuple[type, ...] = (Config, Hyper, RunOptions),
) -> None:
    """Add one flag for each field.

    Args:
        common: the group of the settings in COMMON.
        shown: values that the help shows as defaults, by name.
        sources: names whose value comes from a preset.
        owners: the dataclasses whose fields become flags.
    """
    parser.shown = shown
    groups = {owner: parser.add_argument_group(GROUPS[owner]) for owner in owners}
    for name in (*COMMON, *(name for name in FIELDS if name not in COMMON)):
        owner, spec = FIELDS[name]
        if (owner, name) == (Config, "env") or owner not in owners:
            continue  # an argument of the command, or not among its flags
        group = common if name in COMMON else groups[owner]
        flag = f"--{name.replace('_', '-')}"
        text = _escape(_help(spec, shown[name], "preset" if name in sources else "default"))
        if spec.type == "bool":
            on_off = argparse.BooleanOptionalAction
            made = group.add_argument(flag, dest=name, action=on_off, help=text)
        else:
            metavar = metavar_of(owner, spec)
            made = group.add_argument(flag, dest=name, metavar=metavar, help=text)
        parser.uncommon += [] if name in COMMON else [made]
        parser.names.append(flag)
    common.add_argument(  # for the help only: `split_env_params` removes these flags
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
        _keep_last(params, name.replace("-", "_"), value, f"--env.{name}")
    return rest, params


def _keep_last(values: dict[str, str], name: str, value: str, flag: str) -> None:
    """Keep a value under its name; note on the screen if it replaces another one."""
    if values.get(name, value) != value:
        with contextlib.suppress(OSError):
            print(f"note: {flag} is given twice; the last value counts", file=sys.stderr)
    values[name] = value


def _nowhere(name: str) -> str:
    """Answer a flag that no other command has."""
    del name
    return ""


def _minibatches(text: str, settings: Mapping[str, Any]) -> str:
    """Explain, for the size of a minibatch, the number of minibatches that gives it."""
    try:
        size, *sizes = (
            layers.whole_number("size", number)
            for number in (text, settings["num_envs"], settings["rollout_length"])
        )
    except (InputError, KeyError):
        return ""
    samples = sizes[0] * sizes[1]
    if not 1 <= size <= samples:
        return ""
    count = nearest_divisor(samples, round(samples / size))
    about = "" if count * size == samples else "about "
    return (
        f" There is no batch size here: num_envs x rollout_length / {size} = {sizes[0]} x "
        f"{sizes[1]} / {size} = {about}{count}, so give --num-minibatches {count}."
    )


def _as_flags(sentence: str) -> str:
    """Spell the names of a hint as flags."""
    head, colon, names = sentence.partition(": ")
    if head not in _WITH_NAMES:
        return sentence
    flags = [f"--{name.replace('_', '-')}" for name in names.rstrip(".").split(", ")]
    return f"{head}{colon}{', '.join(flags)}." if colon else ""


def choices_and_help(spec: dataclasses.Field) -> str:
    """A field's help text with its allowed words."""
    choices = spec.metadata.get("choices")
    return spec.metadata["help"] + (f": {' | '.join(choices)}" if choices else "")


def _help(spec: dataclasses.Field, value: Any, source: str) -> str:
    text = choices_and_help(spec)
    return text if value is None else f"{text} [{source}: {_show(value)}]"


def metavar_of(owner: type, spec: dataclasses.Field) -> str:
    """Name the value of a field's flag in the help."""
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
