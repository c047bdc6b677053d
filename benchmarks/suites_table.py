"""Tables of the environment suites for docs/results.md: `readme.py` writes them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from stored import ROOT, cells, estimate, link, newest, one_core, signed, summary

from ppo_jax.analysis.plots import si
from ppo_jax.apps.reproduce import specs
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.config import presets

SUITES = (
    *("brax", "craftax", "jumanji", "mujoco", "navix", "pgx", "playground", "popgym"),
    "xminigrid",
)
HEAD = (
    "| environment | random play | ours: IQM [95%], mean | seeds × steps | policy | published | "
    "verdict | published number is unlike |",
    "|---|---|---|---|---|---|---|---|",
)


def suites() -> str | None:
    """Measured scores of the suites, and published ones where there are any."""
    found = [(name, newest(f"{name}_cpu_*[0-9]")) for name in SUITES]
    folders = [(name, path) for name, path in found if path and (path / "summary.json").exists()]
    rows = [line for name, folder in folders for line in rows_of(name, folder)]
    if not rows:
        return None
    places = ", ".join(f"[{folder.name}]({link(folder)}/README.md)" for _, folder in folders)
    missing = [line for name, folder in folders for line in gaps(name, folder)]
    return "\n".join(
        [
            "### The suites: `ppo-jax reproduce brax`, `navix` and others",
            "",
            *HEAD,
            *rows,
            "",
            "Budgets are those that a CPU reaches. If a task has a mask, random play takes legal "
            f"actions alone. Every seed, setting and curve: {places}.",
            *(["", "Some cells were not run:", "", *missing] if missing else []),
        ]
    )


def gaps(name: str, folder: Path) -> list[str]:
    """A list item for a suite with cells that were not run; none for a whole suite."""
    known = specs.load(name).cells
    ran = {each["cell"] for each in cells(folder)}
    missing = [cell.name for cell in known if cell.name not in ran]
    if not missing:
        return []
    variants = {cell.variant for cell in known if cell.name in ran}
    if len(variants) > 1 or len(missing) < len(ran):
        names = ", ".join(f"`{each.partition('/')[2]}`" for each in missing)
        return [f"* `{name}`: {names}."]
    others = len({cell.variant for cell in known} - variants)
    line = f"* `{name}`: {len(missing)} of {len(known)}. The rows are those of the variant "
    return [line + f"`{variants.pop()}`; {others} other variants are missing."]


def popgym() -> str | None:
    """POPGym's cells alone, for docs/memory.md."""
    folder = newest("popgym_cpu_*[0-9]")
    if folder is None or not (folder / "summary.json").exists():
        return None
    place = f"[{folder.name}]({link(folder)}/README.md)"
    return "\n".join([*HEAD, *rows_of("popgym", folder), "", f"Every seed and curve: {place}."])


def rows_of(name: str, folder: Path) -> list[str]:
    """The rows of one suite: its measured cells."""
    known = {cell.name: cell for cell in specs.load(name).cells}
    return [row(known[each["cell"]], each) for each in cells(folder)]


def row(cell: Cell, found: dict[str, Any]) -> str:
    """The row of one cell."""
    name = cell.task if cell.variant == "ppo" else f"{cell.task}, {cell.variant}"
    random = "–" if cell.random is None else f"{cell.random:.4g}"
    told = [f"{each['value']:g} at {si(each['env_steps'])}" for each in found["published"]]
    return (
        f"| `{name}` | {random} | {estimate(found['iqm'], found['ci95'], bold=True)}, "
        f"{estimate(found['mean'], None)} | "
        f"{found['num_seeds']} × {si(found['env_steps'])} | {cell.protocol} | "
        f"{'; '.join(told) or '–'} | {found['verdict']} | {'; '.join(found['unlike']) or '–'} |"
    )


def twins() -> str | None:
    """Policies on the environment that trained them and on its Gymnasium twin."""
    path = newest("twins_*.json")
    if path is None:
        return None
    record = json.loads(path.read_text("utf-8"))
    lines = [
        "| trained on | seeds × steps | episodes a seed | random play there | there | twin | "
        "on the twin |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| `{env}` | {len(found['seeds'])} × {si(found['env_steps'])} | "
            f"{found['episodes']} | {found['random']:.4g} | {scored(found['there'])} | "
            f"`{found['twin']}` | {scored(found['twin_scores'])} |"
            for env, found in record["cases"].items()
        ),
        "",
        "IQM of the seeds with its 95% interval, deterministic policies, whole episodes. "
        f"{one_core(record['machine'])}, [{path.name}]({link(path)}). "
        f"Again: `{record['command']}`.",
    ]
    return "\n".join(lines)


def scored(scores: dict[str, Any]) -> str:
    """IQM with its interval."""
    return estimate(scores["iqm"], scores["ci95"])


def preset_rows(document: Path) -> str:
    """The table of the suites' presets, with the measured scores that the presets have.

    Source, hardware and random play are the document's own.
    """
    block = document.read_text("utf-8").partition("<!-- presets -->\n")[2]
    lines = block.partition("\n<!-- /presets -->")[0].splitlines()
    scores = {each.name: each.score for each in presets.all_presets() if each.objective == "clip"}
    return "\n".join(preset_row(line, scores) for line in lines)


def preset_row(line: str, scores: dict[str, Any]) -> str:
    """A row with its fourth column written anew, if it is of one preset that has a score."""
    columns = line.split(" | ")
    score = scores.get(columns[0].removeprefix("| ").strip("`"))
    if score is not None and score["interval"] is not None:
        columns[3] = (
            f"{estimate(score['score'], score['interval'])} at {si(score['env_steps'])}, "
            f"{score['seeds']} seeds, {score['policy_mode']}"
        )
    return " | ".join(columns)


def reproduced() -> str | None:
    """The suite `classic` as a table, and the sentences of the other suites."""
    folder = newest("classic_*")
    if folder is None:
        return None
    lines = [
        "### Published next to measured: `ppo-jax reproduce classic`",
        "",
        "| task | algorithm | rl-baselines3-zoo | here, IQM of the seeds [95%] | mean | "
        "difference [95%] | verdict | published number is unlike |",
        "|---|---|---|---|---|---|---|---|",
        *(cell_row(cell) for cell in cells(folder)),
        "",
        "The policy is deterministic, after as many environment steps as rl-baselines3-zoo took. "
        "The table has 10 seeds of ours (128 episodes each) next to its one trained agent. Every "
        f"seed and curve: [{folder.name}]({link(folder)}/README.md).",
        "",
        "Further suites beside published numbers:",
        "",
        *other_suites(),
    ]
    return "\n".join(lines)


def cell_row(cell: dict[str, Any]) -> str:
    """The row of one cell that has a published number."""
    task, variant = cell["cell"].split("/")
    published = cell["published"][0]
    spec = ".1f" if abs(cell["iqm"] or 0.0) >= 10 else ".2f"
    return (
        f"| {task} | {variant.upper()} | {published['value']:g} at {si(published['env_steps'])} "
        f"| {estimate(cell['iqm'], cell['ci95'], spec, bold=True)} at "
        f"{si(cell['env_steps'])} | {estimate(cell['mean'], None, spec)} | "
        f"{signed(cell['compared'])} | {cell['verdict']} | {'; '.join(cell['unlike']) or '–'} |"
    )


def quick(name: str) -> str:
    """A sentence on the newest result of a suite at its smaller budgets."""
    folder = newest(f"{name}_*_quick")
    if folder is None:
        return ""
    measured = cells(folder)
    share = max(cell["env_steps"] / cell["published"][0]["env_steps"] for cell in measured)
    scores = ", ".join(
        f"{cell['cell'].split('/')[0]} {estimate(cell['iqm'], cell['ci95'], '.1f')}"
        for cell in measured
    )
    return (
        f" At {share:.0%} of the published steps, `{measured[0]['cell'].split('/')[1]}` with "
        f"{min(cell['num_seeds'] for cell in measured)} seeds each: {scores} "
        f"([table]({link(folder)}/README.md))."
    )


def other_suites() -> list[str]:
    """A list item for each further suite that is compared with published numbers."""
    said = []
    for name in ("known-failures", "bsuite", "minatar"):
        folder = newest(f"{name}_*[0-9]")
        if folder is not None:
            record = summary(folder)
            judged = [cell for cell in record["cells"] if cell["verdict"] != "–"]
            least = min(cell["num_seeds"] for cell in judged)
            where = f"([table]({link(folder)}/README.md))"
            spec = tomllib.loads((ROOT / f"ppo_jax/data/specs/{name}.toml").read_text("utf-8"))
            missing = len(spec["cell"]) - len(record["cells"])
            if missing:
                scores = "; ".join(
                    f"{cell['cell']} {estimate(cell['iqm'], cell['ci95'], '.1f')} at "
                    f"{si(cell['env_steps'])} with {cell['num_seeds']} seeds, published "
                    + " and ".join(f"{each['value']:g}" for each in cell["published"])
                    for cell in judged
                )
                said.append(
                    f"* `{name}` is incomplete: {missing} cells were not run. {scores} {where}."
                    + quick(name)
                )
                continue
            words = ", ".join(f"{n} {word}" for word, n in record["words"].items() if n)
            easy = [
                f" {cell['cell'].split('/')[0]}: {'; '.join(cell['unlike'])}."
                for cell in judged
                if cell["verdict"].startswith("better") and cell["unlike"]
            ]
            said.append(
                f"* `{name}`: of {len(judged)} published numbers {words}, {least} seeds {where}."
                + "".join(easy)
            )
    return said
