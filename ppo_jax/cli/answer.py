"""A command: its name, its flags, and the function that answers it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ppo_jax.cli.parser import Parser
from ppo_jax.runtime.text import visible

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class Answer(NamedTuple):
    """The output of a command."""

    data: dict[str, Any]  # for --json
    lines: list[str]  # for people
    exit_code: int = 0


def no_flags(parser: Parser, words: Sequence[str]) -> None:
    """Add nothing: the command has no flags of its own."""
    del parser, words


def print_progress(line: str) -> None:
    """Print a line on stderr at once, if there is still a terminal."""
    with contextlib.suppress(OSError):
        print(visible(line), file=sys.stderr, flush=True)


class Command(NamedTuple):
    """One word after `ppo-jax`."""

    name: str
    usage: str  # its own argument
    summary: str
    run: Callable[[dict[str, Any], dict[str, str]], Answer]  # takes flags and --env.NAME values
    add_flags: Callable[[Parser, Sequence[str]], None] = no_flags  # words: for the help only
    takes_env_params: bool = False
    has_settings: bool = False  # its flags have the settings of a training, so --help is short

    def parser(self, words: Sequence[str]) -> Parser:
        """Make the command's parser, with the flags of every command."""
        parser = Parser(f"ppo-jax {self.name}", self.usage, self.summary)
        parser.is_short = self.has_settings and "--help-all" not in words
        self.add_flags(parser, words)
        group = parser.add_argument_group("output")
        parser.add_switch(group, "--json", "one JSON object on stdout, progress on stderr")
        parser.add_switch(group, "--debug", "show the traceback of an error")
        parser.add_switch(group, "--help", "this text")
        if self.has_settings:
            parser.add_switch(group, "--help-all", "every option")
        return parser
