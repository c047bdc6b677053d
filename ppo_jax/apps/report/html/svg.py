"""Conversion of matplotlib's SVG for a page: small, with the page's fonts and colours."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from ppo_jax.analysis.plots import ACCENT, GRID, INK, MUTED
from ppo_jax.apps.report.html.markup import Html

SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
# Colours of the drawings, each of which becomes a variable of report.css. The series are Okabe and
# Ito's palette; its light colours are darkened so that thin lines are visible on white.
SERIES = (ACCENT, "#d55e00", "#008a64", "#b8568f", "#8a6d00", "#3a97cf", "#5b4b8a", "#7a4a2b")
FAINT, PAPER = "#b9bec6", "#fdfdfe"
_VARIABLES = {
    **{colour.lower(): f"var(--s{i})" for i, colour in enumerate(SERIES)},
    INK.lower(): "var(--ink)",
    MUTED.lower(): "var(--muted)",
    GRID.lower(): "var(--grid)",
    FAINT.lower(): "var(--faint)",
    PAPER.lower(): "var(--paper)",
}
_DEFAULTS = re.compile(
    r"(font-family|stroke-linejoin|stroke-linecap|stroke-miterlimit|stroke-opacity: 1$)[^;]*;? ?"
)
_NUMBER = re.compile(r"-?\d+\.\d+")


def embedded(text: str, name: str, label: str) -> Html:
    """Make an <svg> element for a page.

    Args:
        text: a file of matplotlib's, drawn with svg.fonttype none.
        name: prefix of the ids in it, so that no two pictures of a page share one.
        label: description of the picture for readers who do not see it.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)
    for child in list(root):
        if child.tag == f"{{{SVG}}}metadata" or child.find(f"{{{SVG}}}style") is not None:
            root.remove(child)
    ids = _new_ids(root, name)
    for element in root.iter():
        _tidy(element, ids)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "class": "chart", "role": "img", "aria-label": label})
    written = ElementTree.tostring(root, encoding="unicode")
    written = written.replace(f' xmlns="{SVG}"', "")
    return Html(re.sub(r">\s+<", "><", written))


def _new_ids(root: ElementTree.Element, name: str) -> dict[str, str]:
    """Rename the ids that are referred to; all others are dropped."""
    everything = [value for element in root.iter() for value in element.attrib.values()]
    used = {found for value in everything for found in re.findall(r"#([\w-]+)", value)}
    own = [element.get("id") for element in root.iter() if element.get("id") in used]
    return {str(old): f"{name}-{i}" for i, old in enumerate(dict.fromkeys(own))}


def _tidy(element: ElementTree.Element, ids: dict[str, str]) -> None:
    href = element.attrib.pop(_HREF, None)
    if href is not None:
        element.set("href", "#" + ids[href[1:]])
    if (old := element.attrib.pop("id", None)) in ids:
        element.set("id", ids[str(old)])
    for key, value in list(element.attrib.items()):
        if value.startswith("url(#"):
            element.set(key, f"url(#{ids[value[5:-1]]})")
        elif key == "style":
            element.set(key, _style(value))
        elif key == "transform" and value.startswith("rotate(-0 "):
            del element.attrib[key]
        elif key in ("d", "x", "y", "width", "height"):
            element.set(key, _short(value))


def _style(text: str) -> str:
    text = _DEFAULTS.sub("", text).strip().rstrip(";")
    return re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), text)


def _short(text: str) -> str:
    """Round coordinates to a tenth of a point, which is finer than a screen."""
    short = _NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
    return " ".join(short.split())
