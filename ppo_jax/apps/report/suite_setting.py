"""What a suite's results come from, as sections of its page: sources, notes, speed, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppo_jax.apps.report.html import parts
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, inline, tag
from ppo_jax.apps.report.html.parts import details, pairs, section, small, table
from ppo_jax.apps.report.suite_cells import LARGE


def sources(data: Mapping[str, Any], numbers: Numbers) -> Html | None:
    """Where each published number comes from, and by which protocol."""
    rows: list[list[Child]] = []

    def row(label: str, reference: Mapping[str, Any], at: tuple[str | int, ...]) -> list[Child]:
        value = numbers.show(*at, "value")
        if reference["value"] is None:
            value = [numbers.show(*at, "lower"), " to ", numbers.show(*at, "upper")]
        said = f"{reference['algorithm']} {reference['variant']}".strip()
        return [
            label,
            value,
            numbers.show(*at, "env_steps"),
            numbers.show(*at, "num_seeds"),
            reference["policy_mode"],
            tag("span", f"{said}; {reference['source']}", class_="wide"),
        ]

    for i, cell in enumerate(data["cells"]):
        for k, reference in enumerate(cell["published"]):
            rows.append(row(cell["cell"], reference, ("cells", i, "published", k)))
    for name, reference in data["variant_published"].items():
        rows.append(row(name, reference, ("variant_published", name)))
    if not rows:
        return None
    head = ("of", "published", "steps", "seeds", "policy", "source")
    return section("Where the published numbers come from", details("Sources", table(head, rows)))


def odd(data: Mapping[str, Any]) -> Html | None:
    """What is missing, what was not believed, and what the suite says of its cells."""
    said = [f"Without a result, and so without a verdict: {name}" for name in data["lacking"]]
    said += data["notes"]
    for note in dict.fromkeys(each["note"] for each in data["cells"] if each["note"]):
        of = [each for each in data["cells"] if each["note"] == note]
        tasks = dict.fromkeys(each["task"] for each in of)
        said.append(
            f"{', '.join(tasks if len(tasks) < len(of) else [e['cell'] for e in of])}: {note}"
        )
    if not said:
        return None
    return section("Notes", tag("ul", [tag("li", inline(line)) for line in said], class_="sources"))


def speed(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Seconds of each cell; cells that shared a program report those of the program."""
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
    said = (
        "Steps per second and seconds are of the program that a cell shared with others, for all "
        "runs side by side in it; wall time (one decimal), which a busy machine adds to."
    )
    return section("Speed", small(said), details("Every cell", table(head, rows), printed=False))


def settings(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """What all cells share, and what each has of its own."""
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
        details("What all cells share", common),
        details("What differs", varying, printed=len(rows) <= LARGE),
    )


def machines(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Versions and hardware that the results come from."""
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
