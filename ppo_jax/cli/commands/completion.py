"""`ppo-jax completion bash|zsh|fish`: a script; the shell then asks for words at each tab."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ppo_jax.apps.reproduce import specs
from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.config import presets
from ppo_jax.config.config import OPTIMIZERS
from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.layers import FIELDS
from ppo_jax.config.options import CHECKPOINTS
from ppo_jax.envs import suite_table
from ppo_jax.envs.names import known
from ppo_jax.envs.suites.gymnax import names as gymnax_names

# The current word and the words before it, a line each; the shell sets it.
VARIABLE = "_PPO_JAX_COMPLETE"
_SCRIPTS = {
    "bash": f"""_ppo_jax() {{
    local IFS=$'\\n'
    COMPREPLY=($({VARIABLE}="$(printf '%s\\n' "$2" "${{COMP_WORDS[@]:1:COMP_CWORD-1}}")" \\
        ppo-jax completion words 2>/dev/null))
}}
complete -o default -o nosort -F _ppo_jax ppo-jax""",
    "zsh": f"""#compdef ppo-jax
_ppo_jax() {{
    local -a found
    found=("${{(@f)$({VARIABLE}="${{words[CURRENT]}}
${{(F)words[2,CURRENT-1]}}" ppo-jax completion words 2>/dev/null)}}")
    if [[ -n "${{found[*]}}" ]]; then
        compadd -V ppo-jax -- "${{found[@]}}"
    else
        _files
    fi
}}
compdef _ppo_jax ppo-jax""",
    "fish": f"""function __ppo_jax
    set -l words (commandline -ct) (commandline -opc)[2..]
    set -lx {VARIABLE} (string join \\n -- $words | string collect)
    ppo-jax completion words 2>/dev/null
end
complete -c ppo-jax -a '(__ppo_jax)'""",
}
_INSTALL = {
    "bash": 'add to ~/.bashrc:  eval "$(ppo-jax completion bash)"',
    "zsh": 'add to ~/.zshrc after compinit:  eval "$(ppo-jax completion zsh)"',
    "fish": "ppo-jax completion fish > ~/.config/fish/completions/ppo-jax.fish",
}


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    del words
    parser.add_argument("shell", nargs="?", metavar="SHELL", help=" | ".join(_SCRIPTS))


def _run(commands: Mapping[str, Command], flags: dict[str, Any], _: dict[str, str]) -> Answer:
    shell = flags.get("shell")
    if shell == "words":
        current, *before = os.environ.get(VARIABLE, "").split("\n")
        found = complete(commands, current, before)
        return Answer({"words": found}, found)
    if shell not in _SCRIPTS:
        raise InputError(
            f"completion needs the name of a shell: {', '.join(_SCRIPTS)}."
            + nearest(shell or "", _SCRIPTS)
        )
    return Answer({"script": _SCRIPTS[shell]}, [f"# {_INSTALL[shell]}", _SCRIPTS[shell]])


def complete(commands: Mapping[str, Command], current: str, before: Sequence[str]) -> list[str]:
    """List the words that may stand in place of `current`; none where a file is wanted.

    Args:
        before: the words between `ppo-jax` and the current one.
    """
    before = [word for word in before if word != "="]  # bash cuts `--flag=value` there
    if not before or before == ["help"]:
        first = [*commands, "help", "--help", "--version"] if not before else list(commands)
        return _beginning(current, first)
    command, last = commands.get(before[0]), before[-1]
    if command is None:
        return []
    head, equals, value = current.partition("=")
    if current.startswith("--") and equals:
        return [f"{head}={word}" for word in _beginning(value, _values(head))]
    if current.startswith("-"):
        return _beginning(current, command.parser(before[1:]).names)
    if last.startswith("--") and len(before) > 1 and (found := _values(last)):
        return _beginning(current, found)
    if last.startswith("--") and last.removeprefix("--").replace("-", "_") in FIELDS:
        return []
    return _beginning(current, _ARGUMENTS.get(before[0], _nothing)())


def _beginning(current: str, words: Any) -> list[str]:
    return [word for word in words if word.startswith(current)]


def _values(flag: str) -> Sequence[str]:
    """The words that a flag takes, if they are few."""
    name = flag.removeprefix("--").replace("-", "_")
    if name == "preset":
        return _presets()
    if name == "optimizer":
        return OPTIMIZERS
    if name == "checkpoint":
        return CHECKPOINTS
    if name == "init_from":
        return _runs()
    choices = FIELDS[name][1].metadata.get("choices") if name in FIELDS else None
    return choices or ()


def _nothing() -> Sequence[str]:
    return ()


def _runs() -> list[str]:
    from ppo_jax.storage import run_list
    from ppo_jax.storage.run_folder import RUNS

    return [path.as_posix() for path in run_list.newest_first(RUNS)]


def _envs() -> list[str]:
    return [*gymnax_names.registered_names(), *suite_table.all_names()]


def _presets() -> list[str]:
    return list(dict.fromkeys(preset.name for preset in presets.all_presets()))


# Command -> the words of its argument.
_ARGUMENTS: dict[str, Callable[[], Sequence[str]]] = {
    **dict.fromkeys(("train", "sweep", "bench", "doctor"), _envs),
    **dict.fromkeys(
        ("watch", "eval", "resume", "diff", "compare", "export", "replay", "debug"), _runs
    ),
    "report": lambda: [*_runs(), *specs.names()],
    "reproduce": specs.names,
    "presets": _presets,
    "envs": lambda: [*known.BUILT_IN, *suite_table.SUITES],
    "explain": lambda: ("surrogate",),
    "completion": lambda: tuple(_SCRIPTS),
}


def command(commands: Mapping[str, Command]) -> Command:
    """Make the command, which completes the words of all `commands`."""
    summary = "tab completion for bash, zsh or fish"
    return Command("completion", "SHELL", summary, partial(_run, commands), _add_flags)
