"""What a command is: a name, its flags, and a function from what was given to an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ppo_jax.cli import parser as flags

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class Answer(NamedTuple):
    """What a command has to say."""

    data: dict[str, Any]  # --json
    lines: list[str]  # for people
    exit_code: int = 0


def no_flags(parser: flags.Parser, words: Sequence[str]) -> None:
    """A command without flags of its own."""
    del parser, words


class Command(NamedTuple):
    """One word after `ppo-jax`."""

    name: str
    usage: str  # its own argument
    summary: str
    run: Callable[[dict[str, Any], dict[str, str]], Answer]  # flags given, --env.NAME values
    add_flags: Callable[[flags.Parser, Sequence[str]], None] = no_flags  # words: for the help only
    takes_env_params: bool = False

    def parser(self, words: Sequence[str]) -> flags.Parser:
        """Its parser, with the flags that every command has."""
        parser = flags.Parser(f"ppo-jax {self.name}", self.usage, self.summary)
        self.add_flags(parser, words)
        group = parser.add_argument_group("output")
        parser.add_switch(group, "--json", "one JSON object on stdout, progress on stderr")
        parser.add_switch(group, "--debug", "show the traceback of an error")
        parser.add_switch(group, "--help", "this text")
        return parser
