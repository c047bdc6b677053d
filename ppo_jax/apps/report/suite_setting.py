"""Sections of a suite's page on how results were made: sources, notes, speed, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppo_jax.apps.report.html import parts
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, inline, tag
from ppo_jax.apps.report.html.parts import details, pairs, section, small, table
from ppo_jax.apps.report.suite_cells import LARGE


def sources(data: Mapping[str, Any], numbers: Numbers) -> Html | None:
    """List the source and the protocol of each published number."""
    rows: list[list[Child]] = []

    def row(label: str, reference: Mapping[str, Any], at: tuple[str | int, ...]) -> list[Child]:
        value = numbers.show(*at, "value")
        if reference["value"] is None:
            value = [numbers.show(*at, "lower"), " to ", numbers.show(*at, "upper")]
        words = f"{reference['algorithm']} {reference['variant']}".strip()
        return [
            label,
            value,
            numbers.show(*at, "env_steps"),
            numbers.show(*at, "num_seeds"),
            reference["policy_mode"],
            tag("span", f"{words}; {reference['source']}", class_="wide"),
        ]

    for i, cell in enumerate(data["cells"]):
        for k, reference in enumerate(cell["published"]):
            rows.append(row(cell["cell"], reference, ("cells", i, "published", k)))
    for name, reference in data["variant_published"].items():
        rows.append(row(name, reference, ("variant_published", name)))
    if not rows:
        return None
    head = ("cell", "published", "steps", "seeds", "policy", "source")
    return section("Sources of the published numbers", details("Sources", table(head, rows)))


def odd(data: Mapping[str, Any]) -> Html | None:
    """List missing and invalid results, and the suite's notes on its cells."""
    words = [f"No result, and so no verdict: {name}" for name in data["lacking"]]
    words += data["notes"]
    for note in dict.fromkeys(each["note"] for each in data["cells"] if each["note"]):
        noted = [each for each in data["cells"] if each["note"] == note]
        tasks = dict.fromkeys(each["task"] for each in noted)
        names = tasks if len(tasks) < len(noted) else [each["cell"] for each in noted]
        words.append(f"{', '.join(names)}: {note}")
    if not words:
        return None
    listed = [tag("li", inline(line)) for line in words]
    return section("Notes", tag("ul", listed, class_="sources"))


def speed(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Show seconds of each cell; cells that shared a program show the program's."""
    rows = []
    for i, cell in enumerate(data["cells"]):
        for k in range(len(cell["batches"])):
            at = ("cells", i, "batches", k)
            rows.append(
                [
                    cell["cell"],
                    numbers.show(*at, "env_steps_per_second"),
                    numbers.show(*at, "train_seconds", form=",.1f", unit=" s"),
                    numbers.show(*at, "train_cpu_seconds", form=",.1f", unit=" s"),
                    numbers.show(*at, "compile_seconds", form=",.1f", unit=" s"),
                    numbers.show(*at, "runs_side_by_side"),
                    str(numbers.at(*at, "date") or ""),
                ]
            )
    head = ("cell", "steps/s", "training", "CPU seconds", "compiling", "runs side by side", "date")
    words = (
        "Steps per second and seconds are those of the program that a cell shared with others, for "
        "all its runs side by side. Wall time (one decimal) grows on a busy machine."
    )
    return section("Speed", small(words), details("Every cell", table(head, rows), printed=False))


def settings(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Show the settings that all cells share, and those of each cell."""
    common = pairs(
        (tag("code", name), parts.setting(numbers, "setting", name)) for name in data["setting"]
    )
    rows = []
    for i, cell in enumerate(data["cells"]):
        own = [
            tag("span", f"{name} = ", parts.setting(numbers, "cells", i, "own_setting", name), "; ")
            for name in cell["own_setting"]
        ]
        rows.append([cell["cell"], tag("span", own, class_="wide")])
    varying = table(("cell", "own settings"), rows, numeric=2)
    return section(
        "Settings",
        details("Settings of all cells", common),
        details("Settings that differ", varying, printed=len(rows) <= LARGE),
    )


def machines(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Show versions and hardware of the results."""
    shown: list[Child] = []
    for i, manifest in enumerate(data["manifests"]):
        dates = ", ".join(manifest["dates"])
        rows: list[tuple[Child, Child]] = [
            ("processor", str(manifest["processor"] or "unknown")),
            ("devices", parts.devices(manifest) or "unknown"),
            ("cores", numbers.show("manifests", i, "cores")),
            ("versions", f"Python {manifest['python']}, {parts.versions(manifest)}"),
            ("XLA flags", manifest["xla_flags"] or "none"),
            ("git revisions", ", ".join(manifest["git"]) or "none"),
            ("dates", dates or "unknown"),
        ]
        shown.append(pairs(rows))
    return section("Versions and hardware", shown)
