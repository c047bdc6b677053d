"""Tables of the environment suites for docs/results.md: `readme.py` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_jax.analysis.plots import si
from ppo_jax.apps.reproduce import specs
from ppo_jax.apps.reproduce.cells import Cell

SUITES = ("brax", "craftax", "jumanji", "navix", "pgx", "playground", "xminigrid")
HEAD = (
    "| environment | random play | ours: IQM [95%], mean | seeds × steps | policy | published | "
    "verdict |",
    "|---|---|---|---|---|---|---|",
)


def reproduced(folders: Sequence[tuple[str, Path, str]]) -> str | None:
    """Measured scores of the suites, and published ones where there are any.

    Args:
        folders: the name of a suite, its results, and their address in the document.
    """
    rows = [line for name, folder, _ in folders for line in rows_of(name, folder)]
    if not rows:
        return None
    places = ", ".join(f"[{folder.name}]({address}/README.md)" for _, folder, address in folders)
    return "\n".join(
        [
            "### The suites: `ppo-jax reproduce brax`, `navix` and others",
            "",
            *HEAD,
            *rows,
            "",
            "Budgets are those that a CPU reaches. If a task has a mask, random play takes legal "
            f"actions alone. Every seed, setting and curve: {places}.",
        ]
    )


def rows_of(name: str, folder: Path) -> list[str]:
    """The rows of one suite: its measured cells."""
    measured = json.loads((folder / "summary.json").read_text("utf-8"))["cells"]
    cells = {cell.name: cell for cell in specs.load(name).cells}
    return [row(cells[each["cell"]], each) for each in measured]


def row(cell: Cell, found: dict[str, Any]) -> str:
    """The row of one cell."""
    name = cell.task if cell.variant == "ppo" else f"{cell.task}, {cell.variant}"
    random = "–" if cell.random is None else f"{cell.random:.4g}"
    told = [f"{each['value']:g} at {si(each['env_steps'])}" for each in found["published"]]
    ends = "" if found["ci95"] is None else " [{:.4g}, {:.4g}]".format(*found["ci95"])
    return (
        f"| `{name}` | {random} | **{found['iqm']:.4g}**{ends}, {found['mean']:.4g} | "
        f"{found['num_seeds']} × {si(found['env_steps'])} | {cell.protocol} | "
        f"{'; '.join(told) or '–'} | {found['verdict']} |"
    )


def gymnasium(records: Sequence[tuple[dict[str, Any], str]]) -> str | None:
    """Gymnasium's tasks beside Stable-Baselines3.

    Args:
        records: of `gymnasium_sb3.py`, each with its address in the document.
    """
    records = [(record, address) for record, address in records if record.get("compared")]
    if not records:
        return None
    lines = [
        "### Gymnasium's tasks beside Stable-Baselines3 at equal settings",
        "",
        "| task | episodes | ours: IQM [95%], mean | theirs: IQM [95%], mean | seeds × steps | "
        "difference [95%] | verdict | their seconds over ours |",
        "|---|---|---|---|---|---|---|---|",
    ]
    words = {"return": "deterministic", "training_return": "last of training"}
    for record, address in records:
        task, size = record["what"].partition(" ")[0], si(record["setting"]["total"])
        for name, found in record["compared"].items():
            sides = " | ".join(
                "**{:.4g}** [{:.4g}, {:.4g}], {:.4g}".format(s["iqm"], *s["ci95"], s["mean"])
                for s in (found["ours"], found["theirs"])
            )
            ends = "{:+.3g} [{:+.3g}, {:+.3g}]".format(found["difference"], *found["ci95"])
            lines.append(
                f"| [{task}]({address}) | {words[name]} | {sides} | {len(record['turns'])} × "
                f"{size} | {ends} | {found['verdict']} | {record['median_ratio']:.1f} |"
            )
    return "\n".join(
        [
            *lines,
            "",
            "The same networks, batches, losses, optimiser and normalisers, a process for each "
            "training, in turns. Returns are means of 20 deterministic episodes after training, "
            "and of the last 8 or more training episodes. Again: `python "
            "benchmarks/gymnasium_sb3.py`.",
        ]
    )
