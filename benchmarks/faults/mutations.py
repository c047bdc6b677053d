"""Damages and traps in files of JSON, TOML and lines of JSON, made from valid ones."""

from __future__ import annotations

import json
import random
from typing import Any

DEEP = 200_000
# Spelled as JSON; the same spellings, as far as TOML has them, are put into TOML.
NASTY = (
    *("9" * 400, "-" + "9" * 400, "1" + "0" * 5000, "1e400", "-1e308", "NaN", "Infinity", "0.5"),
    *("-1", "0", "1", "2.5", "true", "null", '""', '"inf"', '"1e-3:0"', '"a:b"', '"os:abort"'),
    *('"' + "n" * 300 + '"', '"\\ud800"', '"\\u0000"', '"\\u001b[2J"', '"é/../x"', "[]", "{}"),
    *("[[]]", '{"a": 1}'),
    *("[1, 2]", '["x"]', "[null]", '{"start": 1, "end": []}', "[" * DEEP, '{"a":' * DEEP),
    *("[" * 900 + "]" * 900, "18446744073709551617", "1e15", '"probe:x"', '"Pendulum-v1"'),
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A damaged or changed version of a file's content."""
    kind = chance.choice((change_value, change_value, change_value, drop_entry, *BYTES))
    return kind(data, chance)


def change_value(data: bytes, chance: random.Random) -> bytes:
    """Replace one value of a JSON file, or of one line of TOML or JSON, by a nasty one."""
    return _with_tree(data, chance, lambda holder, key: holder.__setitem__(key, Spelled(chance)))


def drop_entry(data: bytes, chance: random.Random) -> bytes:
    """Remove one entry."""
    return _with_tree(data, chance, lambda holder, key: holder.__delitem__(key))


class Spelled:
    """A value as it is spelled in a file."""

    def __init__(self, chance: random.Random) -> None:
        self.text = chance.choice(NASTY)


def _with_tree(data: bytes, chance: random.Random, change: Any) -> bytes:
    lines = data.splitlines(keepends=True)
    try:
        return _spelled(_changed(json.loads(data), chance, change)).encode()
    except ValueError:
        pass
    place = chance.randrange(len(lines)) if lines else 0
    try:
        lines[place] = _spelled(_changed(json.loads(lines[place]), chance, change)).encode() + b"\n"
    except (ValueError, IndexError):
        head, equals, _ = (lines[place] if lines else b"").partition(b"=")
        value = Spelled(chance).text.encode()
        lines[place : place + 1] = [head + equals + value + b"\n" if equals else b"x = " + value]
    return b"".join(lines)


def _changed(tree: Any, chance: random.Random, change: Any) -> Any:
    places = [(holder, key) for holder in _holders(tree) for key in _keys(holder)]
    if not places:
        return Spelled(chance)
    holder, key = chance.choice(places)
    change(holder, key)
    return tree


def _holders(tree: Any) -> list[Any]:
    found = [tree] if isinstance(tree, dict | list) else []
    for holder in found:  # grows while it is walked
        found += [holder[key] for key in _keys(holder) if isinstance(holder[key], dict | list)]
    return found


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(min(len(holder), 5)))


def _spelled(tree: Any) -> str:
    """The tree as JSON, with nasty values as they are spelled."""
    spelled: list[str] = []

    def mark(value: Spelled) -> str:
        spelled.append(value.text)
        return f"\0{len(spelled) - 1}\0"

    text = json.dumps(tree, default=mark)
    for number, value in enumerate(spelled):
        text = text.replace(json.dumps(f"\0{number}\0"), value)
    return text


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(chance.choice((1, 1, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def insert(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]


def replace_all(data: bytes, chance: random.Random) -> bytes:
    """Replace the whole file by one nasty value."""
    del data
    return chance.choice((*NASTY, "", "\ufeff{}", "\n\n", "= =", "[[cell]]")).encode()


BYTES = (truncate, flip, insert, replace_all)
