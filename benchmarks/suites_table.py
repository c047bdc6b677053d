"""Tables of the environment suites for docs/results.md: `readme.py` writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppo_jax.analysis.plots import si

SUITES = ("brax", "craftax", "jumanji", "navix", "playground", "xminigrid")
HEAD = (
    "| environment | random play | ours: IQM [95%], mean | seeds × steps | policy | published | "
    "verdict |",
    "|---|---|---|---|---|---|---|",
)


def reproduced(folders: Sequence[tuple[Path, str]]) -> str | None:
    """Measured scores of the suites, and published ones where there are any.

    Args:
        folders: of results, each with its address in the document.
    """
    rows = [row(cell, folder) for folder, _ in folders for cell in cells_of(folder)]
    if not rows:
        return None
    places = ", ".join(f"[{folder.name}]({address}/README.md)" for folder, address in folders)
    return "\n".join(
        [
            "### The suites: `ppo-jax reproduce brax`, `navix` and others",
            "",
            *HEAD,
            *rows,
            "",
            f"Budgets are those that a CPU reaches. Every seed, setting and curve: {places}.",
        ]
    )


def cells_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "summary.json").read_text("utf-8"))["cells"]


def row(cell: dict[str, Any], folder: Path) -> str:
    """A row of the table; the cell's own file has the play at random and the policy's mode."""
    task, _, variant = cell["cell"].rpartition("/")
    path = folder / ("__".join([task.replace("/", "-"), variant]) + ".json")
    stored = json.loads(path.read_text("utf-8"))
    mode = "training" if "training" in stored["protocol"] else stored["protocol"].split()[4]
    name = task if variant == "ppo" else f"{task}, {variant}"
    random = "–" if stored["random"] is None else f"{stored['random']:.4g}"
    told = [f"{each['value']:g} at {si(each['env_steps'])}" for each in cell["published"]]
    ends = "" if cell["ci95"] is None else " [{:.4g}, {:.4g}]".format(*cell["ci95"])
    return (
        f"| `{name}` | {random} | **{cell['iqm']:.4g}**{ends}, {cell['mean']:.4g} | "
        f"{cell['num_seeds']} × {si(cell['env_steps'])} | {mode} | {'; '.join(told) or '–'} | "
        f"{cell['verdict']} |"
    )


def gymnasium(records: Sequence[tuple[dict[str, Any], str]]) -> str | None:
    """Gymnasium's tasks beside Stable-Baselines3.

    Args:
        records: of `gymnasium_sb3.py`, each with its address in the document.
    """
    records = [(record, address) for record, address in records if "verdict" in record]
    if not records:
        return None
    lines = [
        "### Gymnasium's tasks beside Stable-Baselines3 at equal settings",
        "",
        "| task | ours: IQM [95%], mean | theirs: IQM [95%], mean | seeds × steps | difference "
        "[95%] | verdict | their seconds over ours |",
        "|---|---|---|---|---|---|---|",
    ]
    for record, address in records:
        sides = [
            "**{:.4g}** [{:.4g}, {:.4g}], {:.4g}".format(s["iqm"], *s["ci95"], s["mean"])
            for s in (record["ours"], record["theirs"])
        ]
        task = record["what"].partition(" ")[0]
        ends = "{:+.3g} [{:+.3g}, {:+.3g}]".format(record["difference"], *record["ci95"])
        lines.append(
            f"| [{task}]({address}) | {' | '.join(sides)} | {len(record['turns'])} × "
            f"{si(record['setting']['total'])} | {ends} | {record['verdict']} | "
            f"{record['median_ratio']:.1f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "The same networks, batches, losses, optimiser and normalisers; the mean return of 20 "
            "deterministic episodes after training, a process for each training, in turns. Again: "
            "`python benchmarks/gymnasium_sb3.py`.",
        ]
    )
