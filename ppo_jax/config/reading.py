"""Files of JSON, TOML and YAML at the door: plain data of a sane size and shape, or a sentence.

Whatever a file holds, a reader gets an `OSError` or a `ValueError` and nothing else: a folder may
come from anybody, and may be damaged.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ppo_jax.config.errors import InputError
from ppo_jax.config.values import short

MAX_BYTES = 1 << 28  # a larger file is none of ours and is not read
MAX_YAML = 1 << 20  # its reader is slow, and takes settings only
MAX_DEPTH = 50  # limit of lists and tables in each other
MAX_INT = 2**64
_YAML_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9]*)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
}


def as_path(name: str, value: Any) -> Path:
    """The path that the argument `name` holds.

    Raises:
        InputError: it is neither a text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name}={short(value)} must be a path: give a text or a Path.")
    return Path(value)


def read_bytes(path: Path | str) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is too large, or no file can have this name.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise ValueError(f"it has {size} bytes, more than {MAX_BYTES}")
        return file.read(MAX_BYTES + 1)


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file for reading: a pipe would wait, and a device never ends.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_json(path: Path | str) -> Any:
    """The data of a JSON file; errors as in `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path))


def read_toml(path: Path | str) -> dict[str, Any]:
    """The data of a TOML file; errors as in `read_bytes`, and ValueError if it is no TOML."""
    try:
        return _plain(tomllib.loads(read_bytes(path).decode("utf-8-sig")))
    except RecursionError:
        raise ValueError("its tables are nested too deeply") from None


def read_yaml(path: Path | str) -> Any:
    """The data of a YAML file; errors as in `read_bytes`, and ValueError if it is no YAML.

    It may be as large as settings are. An alias (`*name`) is refused: a few of them can stand for
    more data than fit into memory.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias (*name): write the value itself")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key.value, str)]
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"it has {short(twice[0])} twice: leave one out")
            return super().construct_mapping(node, deep)

    # 1:0 is a schedule and 010 is ten: YAML 1.1 takes them for 60 and 8.
    Loader.yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag not in _YAML_NUMBERS]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, form in _YAML_NUMBERS.items():
        Loader.add_implicit_resolver(tag, form, list("-+.0123456789"))

    content = read_bytes(path)
    if len(content) > MAX_YAML:
        raise ValueError(f"it has {len(content)} bytes, more than {MAX_YAML}")
    try:
        return _plain(yaml.load(content.decode("utf-8"), Loader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_json(text: str | bytes) -> Any:
    """The data of a JSON text.

    Raises:
        ValueError: no JSON, nested too deeply, numbers that no setting can be, or broken text.
    """
    try:
        found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_table)
        return _plain(found, is_json=True)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of a JSON text, whose names must differ: the last of two would win silently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {short(twice)} twice: leave one out")
    return found


def read_record(path: Path, shape: Any = None) -> Any:
    """The data of a JSON file that this program wrote, checked by its shape.

    Args:
        shape: see `expect`; None for anything.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    try:
        content = read_json(path)
        return content if shape is None else expect(content, shape)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"{str(path)!r} is damaged: {error}.") from None


def expect(value: Any, shape: Any, at: str = "its content") -> Any:
    """Return `value` if it has a shape.

    Args:
        shape: a type; a tuple of types, or `(shape, None)` for what may be null; `[shape]` for a
            list, `[shape, shape]` for one of two parts; `{name: shape}` for a table with these
            names among others, where `name?` may lack.
        at: the place, for the sentence.

    Raises:
        ValueError: the first difference.
    """
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            raise ValueError(f"{at} must be a table, and is {short(value)}")
        for name, inner in shape.items():
            key = name.removesuffix("?")
            if key in value:
                expect(value[key], inner, key if at == "its content" else f"{at}.{key}")
            elif not name.endswith("?"):
                raise ValueError(f"{at} lacks {key!r}")
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{at} must be a list, and is {short(value)}")
        if len(shape) > 1 and len(value) != len(shape):
            raise ValueError(f"{at} must have {len(shape)} parts, and has {len(value)}")
        for i, part in enumerate(value):
            expect(part, shape[0], f"{at}[{i}]")
        return value
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if None in kinds and value is None:
        return value
    if kinds[0] is not shape and isinstance(kinds[0], list | dict):
        return expect(value, kinds[0], at)
    if not any(_is_a(value, kind) for kind in kinds):
        words = " or ".join(_WORDS[kind] for kind in kinds)
        raise ValueError(f"{at} must be {words}, and is {short(value)}")
    return value


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    None: "null",
}


def _is_a(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _plain(data: Any, is_json: bool = False) -> Any:
    """Return `data` unless it has what no reader can use."""
    left: list[tuple[Any, int]] = [(data, 0)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(value, dict):
            if not all(isinstance(name, str) for name in value):
                raise ValueError("a name in it is no text")
            left += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            left += [(part, depth + 1) for part in value]
        elif isinstance(value, str):
            if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
                raise ValueError("a text in it holds half a character")
            if "\0" in value:
                raise ValueError("a text in it holds a zero byte")
        elif isinstance(value, int) and abs(value) > MAX_INT:
            raise ValueError("a number in it has too many digits")
        elif is_json and isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number in it is too large")
    return data
