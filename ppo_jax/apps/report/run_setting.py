"""Sections of a page of runs on how they were made: seconds, settings, versions, hardware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppo_jax.apps.report.html import charts, parts
from ppo_jax.apps.report.html.charts import Line, Look
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, tag
from ppo_jax.apps.report.html.parts import details, pairs, section, small, table


def speed(runs: Sequence[Any], numbers: Numbers) -> Html | None:
    """Show seconds and steps per second."""
    rows = []
    for i, run in enumerate(runs):
        at = ("runs", i, "summary")
        if run["summary"] is None:
            continue
        rows.append(
            [
                run["label"],
                numbers.show(*at, "env_steps_per_second"),
                numbers.show(*at, "train_seconds", form=",.1f", unit=" s"),
                numbers.show(*at, "compile_seconds", form=",.1f", unit=" s"),
                numbers.show("runs", i, "env_steps"),
                numbers.show("runs", i, "total_env_steps"),
            ]
        )
    drawn = [
        Line(run["label"], run["speed"]["env_steps"], run["speed"]["env_steps_per_second"])
        for run in runs
        if run["speed"] is not None
    ]
    if not rows and not drawn:
        return None
    heads = ("run", "steps/s", "training", "compiling", "steps a seed", "steps in all")
    look = Look(y_label="Environment steps per second, all seeds")
    chart = charts.overlaid_or_many("speed", drawn, look, "the other runs") if drawn else None
    words = (
        "Environment steps per second are summed over seeds, without compilation and evaluation. "
        "Seconds are wall time (one decimal), which grows on a busy machine."
    )
    shown = table(heads, rows) if rows else None
    return section("Speed", small(words), shown, chart, name="speed")


def settings(runs: Sequence[Any], numbers: Numbers) -> Html:
    """Show settings that differ from the defaults, and all settings folded."""
    standard, tables = numbers.at("defaults"), ("config", "hyper")
    names = [
        (where, name)
        for where in tables
        for name in dict.fromkeys(key for run in runs for key in run[where])
        if (where, name) not in (("config", "env"), ("hyper", "env"))
    ]
    params = dict.fromkeys(key for run in runs for key in run["hyper"].get("env") or {})

    def row(path: tuple[str, ...], label: str, default: Child) -> list[Child]:
        shown: list[Child] = [parts.setting(numbers, "runs", i, *path) for i in range(len(runs))]
        return [tag("code", label), *shown, default]

    every, special = [], []
    for where, name in names:
        default = standard[where].get(name)
        every.append(row((where, name), name, parts.setting(numbers, "defaults", where, name)))
        found = [run[where].get(name) for run in runs]
        if any(_differs(value, default) for value in found):
            special.append(every[-1])
    for name in params:
        every.append(row(("hyper", "env", name), f"env.{name}", "the environment's"))
        special.append(every[-1])
    labels = [run["label"] for run in runs] if len(runs) > 1 else ["value"]
    head = ("setting", *labels, "default")
    some = table(head, special) if special else small("All settings are the defaults.")
    words = small("Settings that differ from the defaults; numbers have all their digits.")
    return section("Settings", words, some, details("All settings", table(head, every)))


def _differs(value: Any, default: Any) -> bool:
    """Compare a setting with its default as numbers, if both are: 3e-4 is 0.0003."""
    try:
        return float(value) != float(default)
    except (TypeError, ValueError):
        return value != default


def machines(runs: Sequence[Any], numbers: Numbers) -> Html:
    """Show versions and hardware of each run."""
    shown: list[Child] = []
    for i, run in enumerate(runs):
        manifest = run["manifest"]
        rows: list[tuple[Child, Child]] = [
            ("started", str(manifest.get("started", "unknown"))),
            ("devices", parts.devices(manifest) or "unknown"),
            ("cores", numbers.show("runs", i, "manifest", "cores")),
            ("machine", str(manifest.get("machine", "unknown"))),
            ("versions", f"Python {manifest.get('python', 'unknown')}, {parts.versions(manifest)}"),
            ("XLA flags", manifest.get("xla_flags") or "none"),
            ("git revision", manifest.get("git") or "none"),
            ("command", tag("code", " ".join(map(str, manifest.get("command") or [])))),
        ]
        listed = pairs(rows)
        shown.append(listed if len(runs) == 1 else details(run["label"], listed))
    return section("Versions and hardware", shown)
