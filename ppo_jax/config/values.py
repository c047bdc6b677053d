"""Values of environment parameters and axes, as the command line and files spell them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ppo_jax.config.errors import InputError

_UNITS = {"k": 3, "K": 3, "M": 6, "G": 9}  # powers of ten
_WITH_UNIT = re.compile(r"([+-]?(?:\d[\d_]*)?\.?\d+)([kKMG])")


def plain_number(text: Any) -> float:
    """Read a number, also if it is spelled 100k, 1.5M or 2G.

    Raises:
        ValueError: it is no number, or none that 64 bits can hold (1e400, 1e-400). TypeError: it is
            no text and no number either.
    """
    found = _WITH_UNIT.fullmatch(text.strip()) if isinstance(text, str) else None
    return _float(f"{found[1]}e{_UNITS[found[2]]}" if found else text)


def _float(text: Any) -> float:
    number = float(text)
    if isinstance(text, str) and (math.isinf(number) or number == 0.0):
        digits = text.lower().partition("e")[0]
        if re.search(r"[1-9]", digits):
            raise ValueError(f"{text} is beyond 64 bits")
    return number


def whole_or_real(name: str, value: Any) -> int | float:
    """A number, whole where it is written as one; a text as the command line spells it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = str(value)
    for kind in (int, _float, plain_number):
        try:
            number = kind(text)
        except ValueError:
            continue
        if kind is plain_number and float(number).is_integer():
            return int(number)
        return number
    raise InputError(f"{name}={short(value)} must be a number, for example 0.7.")


def env_value(name: str, value: Any) -> Any:
    """A parameter of the environment's as numbers, true and false, and lists of these.

    Only the environment knows what it wants: whether the value fits is judged by
    `envs.params.override`.

    Args:
        value: a text as the command line spells it (`3`, `true`, `[1, 2]` or `1,2`), or what a
            file or Python holds.

    Raises:
        InputError: a word, an empty place, or something that is no number at all.
    """
    try:
        return _numbers(value)
    except (ValueError, RecursionError):
        raise InputError(
            f"{name}={short(value)} must be a number, true, false or a list such as [1,2]: "
            "texts, schedules and other objects cannot be set here."
        ) from None


def _numbers(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy's and jax's
    if isinstance(value, list | tuple):
        return [_numbers(part) for part in value]
    if isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str):
        raise ValueError
    if value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    parts = split_list(value)
    if len(parts) > 1 or not isinstance(parts[0], str):
        return _numbers(parts if len(parts) > 1 else parts[0])
    return whole_or_real("", parts[0])


def split_list(text: str) -> list[Any]:
    """The parts of a text between its commas; a part in brackets is a list of its own parts."""
    try:
        parts = json.loads(f"[{text}]", parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        parts = []
    return parts or [part.strip() for part in text.split(",")]


MASK = "***"


def masked(text: str, is_sentence: bool = False) -> str:
    """A URL without its password, or a sentence in which that of every URL is replaced by `MASK`.

    A password may hold spaces and `@`; within a sentence it ends before the first space.
    """
    password = r"\S*" if is_sentence else ".*"
    text = re.sub(rf"(?<=://)([^:/@\s]*):{password}@", rf"\1:{MASK}@", text)
    return re.sub(r"([?&]password=)[^&\s]*", rf"\1{MASK}", text)


def short(value: Any) -> str:
    """A value for a sentence in one line, cut where it is long."""
    try:
        text = re.sub(r"\s*\n\s*", " ", repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, a list of lists of ...
        return f"({type(value).__name__})"
    return text if len(text) <= 80 else f"{text[:80]}..."
