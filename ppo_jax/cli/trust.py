"""The user's word for programs that a file names: `--trust`, or the same name once more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ppo_jax.cli.parser import Parser
from ppo_jax.config.layers import Layer, Settings
from ppo_jax.config.trust import CODE_FIELDS, Trust, code_names, require, with_names

_HELP = "load programs (module:attribute) that somebody else's file names"


def add_trust_switch(parser: Parser, group: Any) -> None:
    """Add `--trust` alone, for commands whose other flags can name every program again."""
    parser.add_switch(group, "--trust", _HELP)


def add_trust_flags(parser: Parser, fields: Sequence[str] = CODE_FIELDS) -> None:
    """Add `--trust`, and a flag for each field whose name may be repeated."""
    group = parser.add_argument_group(
        "programs that files name (your own files need none of these)"
    )
    add_trust_switch(parser, group)
    for field in fields:
        text = f"the same {field} again, in place of --trust"
        group.add_argument(f"--{field}", dest=_same(field), metavar="NAME", help=text)
        parser.names.append(f"--{field}")


def find_trust(flags: Mapping[str, Any]) -> Trust:
    """The user's word: True for every name, or the names that are repeated."""
    if "trust" in flags:
        return True
    names = [flags[key] for field in CODE_FIELDS for key in (_same(field),) if key in flags]
    return [name for text in names for name in text.split(",")]


def require_settings(settings: Settings, files: Iterable[Layer], trust: Trust) -> None:
    """Refuse settings whose programs come from a file, unless the user vouches for them.

    Raises:
        InputError: the sentence names the file, the program and the remedy.
    """
    for layer in files:
        names = code_names(layer.values)
        replaced = [name for field, name in names if settings.sources.get(field) != layer.source]
        require(names, layer.source, with_names(trust, replaced), layer.signature)


def _same(field: str) -> str:
    return f"same_{field}"
