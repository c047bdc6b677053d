"""Parts of both kinds of page: the document, sections, tables, folded details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ppo_jax.apps.report.html.charts import Line
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, breakable, json_block, tag
from ppo_jax.config.data import DATA

STYLE_FILE = DATA / "report.css"
DATA_ID = "report-data"
LONG_NAME = 28  # letters; longer names of rows may break
# The page contains all that it needs: nothing may be loaded, sent or run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
ROUNDED = (
    "Numbers in tables are rounded, to four digits unless noted; pointing at one shows all its "
    "digits. All data of this page are in it as JSON, in the element "
)


@lru_cache(maxsize=1)
def style() -> Html:
    return Html(STYLE_FILE.read_text("utf-8"))


def document(
    title: str, subtitle: Child, sections: Iterable[Html | None], data: Mapping[str, Any]
) -> str:
    """Write the whole page."""
    foot = tag(
        "footer",
        tag("p", ROUNDED, tag("code", f"#{DATA_ID}"), "."),
        tag("p", f"Written by ppo-jax report, version {data['version']}."),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", style()),
    )
    shown = [each for each in sections if each is not None]
    top = tag("header", tag("h1", title), tag("div", subtitle, class_="subtitle"))
    body = tag("body", top, tag("main", shown), foot, json_block(DATA_ID, data))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def section(title: str, *content: Child, name: str | None = None) -> Html:
    return tag("section", tag("h2", title), *content, id=name)


def table(head: Sequence[Child], *bodies: Iterable[Sequence[Child]], numeric: int = 1) -> Html:
    """Make a table that scrolls within its box.

    Args:
        bodies: groups of rows; a row of one cell is the heading of its group.
        numeric: the first column of numbers; all columns after it are numbers, too.
    """
    width = len(head)

    def named(cell: Child) -> Child:
        if isinstance(cell, str) and not isinstance(cell, Html) and " " not in cell:
            return breakable(cell)
        return cell

    def row(cells: Sequence[Child]) -> Html:
        if len(cells) == 1:
            return tag("tr", tag("th", cells[0], colspan=str(width), scope="rowgroup"))
        first = cells[0]
        if isinstance(first, str) and not isinstance(first, Html) and len(first) > LONG_NAME:
            first = tag("span", breakable(first), class_="wide")
        shown = [tag("th", first, scope="row")]
        shown += [
            tag("td", cell, class_="number" if i >= numeric else None)
            for i, cell in enumerate(cells[1:], 1)
        ]
        return tag("tr", shown)

    heads = [
        tag("th", named(cell), scope="col", class_="number" if i >= numeric else None)
        for i, cell in enumerate(head)
    ]
    groups = [tag("tbody", [row(cells) for cells in body]) for body in bodies]
    inner = tag("table", tag("thead", tag("tr", heads)), groups)
    return tag("div", inner, class_="scroll", tabindex="0")


def details(summary: Child, *content: Child, open_: bool = False, printed: bool = True) -> Html:
    """Fold content under a line; on paper it is unfolded if `printed`, else left out."""
    return tag(
        "details",
        tag("summary", summary),
        *content,
        open=open_,
        class_=None if printed else "unprinted",
    )


def pairs(rows: Iterable[tuple[Child, Child]]) -> Html:
    """Make a description list of names and values."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows])


def grouped(names: Sequence[str]) -> dict[str, list[int]]:
    """Places of each name, in the order of first appearance."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return found


def small(*content: Child) -> Html:
    return tag("p", *content, class_="small")


def line(label: str, curve: Mapping[str, Any]) -> Line:
    """Make a line of a curve of the page's data."""
    return Line(
        label=label,
        x=curve["env_steps"],
        middle=curve["iqm"],
        low=curve["low"],
        high=curve["high"],
        seeds=curve.get("per_seed", ()),
    )


def value_text(value: Any) -> str:
    """Spell a setting for a reader."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    return str(value)


def setting(numbers: Numbers, *path: str | int) -> Html:
    """Show one setting: a number with all its digits, a text as it is."""
    value = numbers.at(*path)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return numbers.show(*path, form="" if isinstance(value, int) else ".10g")
    return tag("span", value_text(value))


def versions(manifest: Mapping[str, Any]) -> str:
    """List the versions of the packages that made a result."""
    return ", ".join(
        f"{name} {version}"
        for name, version in (manifest.get("versions") or {}).items()
        if version is not None
    )


def devices(manifest: Mapping[str, Any]) -> str:
    """List each kind of device once, with its number if there are several."""
    found = list(manifest.get("devices") or [])
    kinds = list(dict.fromkeys(found))
    return ", ".join(f"{found.count(k)} × {k}" if found.count(k) > 1 else str(k) for k in kinds)
