"""HTML as escaped text, and numbers that are looked up in the data of their page."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

_VOID = ("meta", "link", "img", "source", "wbr")
_BREAKS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[-_.])(?=\w)")


class Html(str):
    """Text that is markup already; `tag` escapes every other text."""


Child = str | None | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """Make an element; `class_` becomes class, `data_at` data-at, and None and False nothing."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(words)}>"
    if name in _VOID:
        return Html(start)
    return Html(f"{start}{join(children)}</{name}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """Join children; those that are no markup are escaped."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        else:
            parts.append(join(child))
    return Html(between.join(parts))


def prose(text: str) -> list[Html]:
    """Split a text into paragraphs; text in backticks becomes code."""
    paragraphs = [part for part in text.strip().split("\n\n") if part.strip()]
    return [tag("p", inline(part)) for part in paragraphs]


def inline(text: str) -> list[Child]:
    return [
        tag("code", part) if i % 2 else part
        for i, part in enumerate(" ".join(text.split()).split("`"))
    ]


def subscripted(text: str) -> Html:
    """Write `π_old` with a subscript: the rest of a word after an underscore."""
    parts = re.split(r"_(\w+)", text)
    return join(tag("sub", part) if i % 2 else part for i, part in enumerate(parts))


def breakable(text: str) -> Html:
    """Allow line breaks between the parts of a name."""
    return join(_BREAKS.split(text), str(tag("wbr")))


def json_block(name: str, content: Any) -> Html:
    """Write `content` as a script that no browser runs and no text in it can end."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')


class Numbers:
    """Numbers of the page's data as elements that point to their place in the data.

    Each becomes <data value="all digits" data-at="/json/pointer">rounded</data>, so the shown
    number is always the one in the data.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def at(self, *path: str | int) -> Any:
        """Return the value at a path; None if the path ends early."""
        found: Any = self._data
        for key in path:
            if isinstance(found, Mapping):
                found = found.get(str(key))
            elif isinstance(found, list) and isinstance(key, int) and key < len(found):
                found = found[key]
            else:
                return None
        return found

    def show(self, *path: str | int, form: str = "", unit: str = "") -> Html:
        """Show one number with four digits, or by a format such as ".2f", "+.2f" or ".0%"."""
        value = self.at(*path)
        if value is None:
            return tag("span", "–", class_="none")
        pointer = "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)
        digits = json.dumps(value)
        shown = tag("data", rounded(value, form), value=digits, data_at=pointer, title=digits)
        return join([shown, unit]) if unit else shown

    def interval(self, *path: str | int, form: str = "") -> Html | None:
        """Show [low, high]; None if there is no interval."""
        if self.at(*path) is None:
            return None
        low, high = (self.show(*path, end, form=form) for end in (0, 1))
        return tag("span", "[", low, ", ", high, "]", class_="interval")


def rounded(value: float | int | str, form: str = "") -> str:
    """Round a number: whole numbers in full, others to four digits, with a true minus sign."""
    if isinstance(value, bool) or not isinstance(value, int | float):  # a setting may be "inf"
        return str(value)
    if form:
        text = f"{value:{form}}"
    elif isinstance(value, int) or (value == round(value) and abs(value) < 1e15):
        text = f"{value:,.0f}"
    else:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}" if digits <= 7 else f"{value:.3e}"
    return text.replace("-", "−")
