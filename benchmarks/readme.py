"""Write stored results into README.md and docs: `python benchmarks/readme.py`.

Each block between `<!-- NAME -->` and `<!-- /NAME -->` is replaced by the newest result. Pictures
are written beside their results.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import bounds
import details_table
import gpu_table
import numpy as np
import peers_table
import speed_table
import studies_table
import suites_speed
import suites_table
from learning_table import RULE, algorithm, difference, percent, remarks, verdict
from stored import RESULTS, ROOT, estimate, link, newest, one_core, summary

from ppo_jax.analysis import ranges
from ppo_jax.analysis.plots import ACCENT, MUTED, STYLE, si, summary_curve, without_date
from ppo_jax.apps.diagnose import explain_figure
from ppo_jax.apps.diagnose.explain import conclusions
from ppo_jax.storage.manifest import cores_in_words

PPO_GOALS = (
    *("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"),
    *("Catch-bsuite", "FourRooms-misc", "Breakout-MinAtar", "SpaceInvaders-MinAtar"),
)
# Files of the results with the other objectives.
OTHER_GOALS = (*(f"{env}-trpo" for env in PPO_GOALS[:5]), "CartPole-v1-a2c")


def main() -> None:
    """Replace every block whose results are stored."""
    write(ROOT / "README.md", {"headline": headline(), "gpu": on_a_gpu("")})
    write(ROOT / "docs" / "index.md", {"start": first_run()})
    write(ROOT / "docs" / "memory.md", {"popgym": suites_table.popgym()})
    environments = ROOT / "docs" / "environments.md"
    blocks = {"presets": suites_table.preset_rows(environments), "twins": suites_table.twins()}
    write(environments, blocks)
    write(ROOT / "docs" / "speed.md", {"suites-speed": speed_of_suites()})
    write(
        ROOT / "docs" / "results.md",
        {
            "learning": learning(),
            "reproduced": suites_table.reproduced(),
            "parity": peers_table.parity(),
            "gymnasium": peers_table.gymnasium(),
            "suites": suites_table.suites(),
            "speed": speed_table.speed(),
            "costs": costs(),
            "gpu": on_a_gpu("../"),
        },
    )
    write(ROOT / "docs" / "implementation-details.md", {"details": details()})
    write(ROOT / "docs" / "settings.md", studies())
    write(ROOT / "docs" / "sweeps.md", selections())
    write(
        ROOT / "docs" / "why-the-ratio.md",
        {"story": story(), "bounds": bounded(), "table-1": table_1()},
    )


def write(document: Path, blocks: dict[str, str | None]) -> None:
    """Replace the blocks of one document; a block without a result stays unchanged."""
    text = document.read_text("utf-8")
    for name, block in blocks.items():
        if block is None:
            continue
        framed = f"<!-- {name} -->\n{block}\n<!-- /{name} -->"
        pattern = rf"<!-- {name} -->(.*?<!-- /{name} -->)?"
        text = re.sub(pattern, lambda _, framed=framed: framed, text, flags=re.DOTALL)
    document.write_text(text, "utf-8")


def studies() -> dict[str, str | None]:
    """The tables of the defaults and of the optimisers."""
    found: dict[str, str | None] = {}
    tables = {
        "defaults": (studies_table.candidates, "### At a tenth of the budget\n\n"),
        "defaults-long": (studies_table.candidates, ""),
        "optimizers": (studies_table.optimizers, "### AdamW and Muon beside Adam\n\n"),
    }
    for name, (table, heading) in tables.items():
        folder = newest(f"{name}_cpu_*")
        path = None if folder is None else folder / "summary.json"
        is_there = path is not None and path.exists()
        found[name] = None
        if is_there:
            found[name] = heading + table(json.loads(path.read_text("utf-8")), link(folder))
    return found


def selections() -> dict[str, str | None]:
    """The tables of halving, for each η, and of pbt."""
    halvings = [
        (json.loads(path.read_text("utf-8")), link(path))
        for path in (newest("sweep-halving_*.json"), newest("sweep-halving-eta-2_*.json"))
        if path
    ]
    path = newest("sweep-pbt_*.json")
    return {
        "halving": studies_table.halving(*halvings) if halvings else None,
        "pbt": path and studies_table.pbt((json.loads(path.read_text("utf-8")), link(path))),
    }


def details() -> str | None:
    """What each detail of PPO is worth."""
    folder = newest("implementation-details_*")
    return None if folder is None else details_table.table(folder, link(folder))


def headline() -> str | None:
    """Sentences on reached goals and on speed."""
    folder, timing = newest("learning_*"), newest("speed_*.json")
    if folder is None or timing is None:
        return None
    words = [verdict(record).split(" ")[0] for record in stored(folder, PPO_GOALS)]
    held, open_ = words.count("better") + words.count("equal"), words.count("undecided")
    left = f"; {open_} {'is' if open_ == 1 else 'are'} undecided" if open_ else ""
    record = json.loads(timing.read_text("utf-8"))
    ratios = [case["speed_ratio"] for case in record["cases"].values()]
    return (
        f"PPO equals or betters the published score on {held} of {len(words)} gymnax tasks with "
        f"tuned presets, with 10 or more seeds each{left}. MuJoCo and other suites have undecided "
        f"rows: [all results](docs/results.md). On {len(ratios)} gymnax cases it trains "
        f"{min(ratios):.2f} to {max(ratios):.2f} times as fast as the faster of Rejax and Ajax "
        f"({record['machine']['cores']} CPU cores). With heavy physics, wide networks or large "
        "GRU batches it is about as fast as its peers ([speed](docs/speed.md), "
        "[memory](docs/memory.md))."
    )


def on_a_gpu(root: str) -> str | None:
    """The table of speeds on a GPU; `root` leads from the document to the repository's root."""
    path = newest("gpu_*.json")
    if path is None:
        return None
    heading, again = "## On a GPU", "Again: `scripts/gpu_hour.sh`."
    found = gpu_table.table(json.loads(path.read_text("utf-8")))
    address = root + path.relative_to(ROOT).as_posix()
    return "\n".join([heading, "", found, "", f"[{path.name}]({address}). {again}"])


def first_run() -> str | None:
    """The output of the first command, as timed, and its seconds."""
    path = newest("start_*.json")
    if path is None:
        return None
    record = json.loads(path.read_text("utf-8"))
    runs = record["trainings"]["whole"]["cold"]
    run, seconds = runs[0], statistics.median(each["seconds"] for each in runs)
    lines = [line.replace("/run", "runs/RUN") for _, line in run["lines"]]
    progress = [line for line in lines if "left" in line]
    shown = [line for line in lines if line not in progress[1::2]]
    machine = f"{one_core(record['machine']['hardware'])}, {record['date'][:10]}"
    return "\n".join(
        [
            f"It prints, in about {seconds:.0f} seconds ({machine}, compilation included):",
            *("", "```text", *shown, "```"),
        ]
    )


def learning() -> str | None:
    """Published next to measured, and one picture of all curves."""
    folder = newest("learning_*")
    if folder is None:
        return None
    records, others = stored(folder, PPO_GOALS), stored(folder, OTHER_GOALS)
    draw_curves(records, folder)
    made: dict[str, list[str]] = {}
    for each in (*records, *others):
        machine = each["hardware"]
        label = f"{machine['processor']}, {cores_in_words(machine['cores'])}, {each['date']}"
        made.setdefault(label, []).append(f"{each['env']} by {algorithm(each)}")
    lines = [
        "## What it learns",
        "",
        f"![Learning curves]({link(folder / 'curves.svg')})",
        "",
        *HEAD,
        *(row(record) for record in records),
        "",
        "With the other objectives, on the same trainer (`--objective trpo`, `--preset a2c`):",
        "",
        *HEAD,
        *(row(record) for record in others),
        "",
        "128 whole episodes a seed after training. "
        + "".join(f"{label}: {', '.join(names)}. " for label, names in made.items())
        + "The policy acts as the published one did. Published numbers are mostly of a single "
        "run, so the table also says how many of our seeds reach them. Sources, every seed and "
        "further environments are in "
        f"[{folder.name}]({link(folder)}/README.md). "
        f"Again: `python benchmarks/learning.py`. {RULE} [coverage.md]"
        f"({link(RESULTS / 'coverage.md')}) has the coverage of the intervals and the shares of "
        "the words, by simulation.",
    ]
    return "\n".join(lines)


HEAD = (
    "| environment | algorithm | published | ours: IQM, 95% interval | seeds that reach it | "
    "seeds × steps | policy | difference [95%] | verdict | published number is unlike |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def stored(folder: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The stored records of these names."""
    paths = [folder / f"{name}.json" for name in names]
    return [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]


def row(record: dict[str, Any]) -> str:
    published, mode = record["published"], record["policy_mode"]
    scores = record["returns"][mode]
    return (
        f"| {record['env']} | {algorithm(record)} | "
        f"{published['score']:g} at {si(published['env_steps'])} | "
        f"{estimate(scores['iqm'], scores['ci95'], bold=True)} | "
        f"{percent(record['share_reached'])} | "
        f"{record['num_seeds']} × {si(record['env_steps'])} | {mode} | {difference(record)[0]} | "
        f"{verdict(record)} | {remarks(record)} |"
    )


def draw_curves(records: list[dict[str, Any]], folder: Path) -> None:
    """Training returns of every environment, small multiples."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    columns = 3
    with matplotlib.rc_context({**STYLE, "font.size": 10}):
        figure = Figure(figsize=(10.0, 2.45 * -(-len(records) // columns)), dpi=160)
        grid = figure.subplots(-(-len(records) // columns), columns, squeeze=False).ravel()
        for axes, record in zip(grid, records, strict=False):
            with (folder / f"{record['env']}.csv").open(encoding="utf-8") as file:
                table = list(csv.DictReader(file))
            names = [name for name in table[0] if name.startswith("seed_")]
            steps = np.array([float(line["env_steps"]) for line in table])
            returns = np.array([[float(line[n] or "nan") for n in names] for line in table])
            middle, low, high = summary_curve(returns, ranges.limits(record["env"]))
            axes.plot(steps, returns, color=ACCENT, alpha=0.25, linewidth=0.7)
            axes.fill_between(steps, low, high, color=ACCENT, alpha=0.3, linewidth=0)
            axes.plot(steps, middle, color=ACCENT, linewidth=1.8)
            axes.axhline(record["published"]["score"], color=MUTED, linewidth=1.1, dashes=(5, 3))
            axes.set_title(record["env"], loc="left", size=11)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: si(x)))
        for axes in grid[len(records) :]:
            axes.remove()
        figure.suptitle(
            "Return while training over environment steps of one seed, sampled actions: IQM of the "
            "seeds,\n95% interval, each seed; dashed: published",
            x=0.01,
            ha="left",
            size=11,
            color=MUTED,
        )
        figure.tight_layout(rect=(0, 0, 1, 0.98), h_pad=1.2)
        path = folder / "curves.svg"
        figure.savefig(path, metadata=without_date(path))


def speed_of_suites() -> str | None:
    """The suites beside their own trainers."""
    paths = sorted(RESULTS.glob("speed-suites_*.json"), reverse=True)
    records = [(json.loads(path.read_text("utf-8")), link(path)) for path in paths]
    return suites_speed.table(records) if records else None


def story() -> str | None:
    """The answer to the founding question, as measured."""
    folder = newest("explain_*")
    if folder is None:
        return None
    record = json.loads((folder / "explain.json").read_text("utf-8"))
    rows = bounds.resummarised(record["rows"], record["env"])
    explain_figure.draw(rows, folder / "explain.svg", record["env"], record["seeds"])
    lines = [
        f"![Return, KL, effective sample size and gradient cosine]({link(folder / 'explain.svg')})",
        "",
        *(f"* {line}" for line in conclusions(rows)),
        "",
        f"{record['seeds']} seeds, {record['env_steps']:,} environment steps each: `ppo-jax "
        "explain surrogate`.",
    ]
    return "\n".join(lines)


def bounded() -> str | None:
    """The logarithm and the ratio under five bounds."""
    folder = newest("bounds_*")
    if folder is None:
        return None
    record = json.loads((folder / "bounds.json").read_text("utf-8"))
    record["rows"] = bounds.resummarised(record["rows"])
    bounds.draw(record, folder / "bounds.svg")
    return bounds.block(record, link(folder / "bounds.svg"))


def table_1() -> str | None:
    """The PPO paper's Table 1 on this project's tasks: normalised scores over all of them."""
    folder = newest("ppo-table-1_*")
    if folder is None:
        return None
    record = summary(folder)
    rows = sorted(record["variants"], key=lambda row: -row["mean"])
    lines = [
        "### The PPO paper's Table 1, on gymnax's continuous control",
        "",
        f"![Normalised scores]({link(folder / 'normalised_scores.svg')})",
        "",
        "| surrogate | normalised score, mean over tasks and seeds [95%] | "
        + tasks_of(rows)
        + " |",
        "|---|---|" + "---|" * len(rows[0]["per_task"]),
    ]
    for row in rows:
        tasks = " | ".join(f"{score:.2f}" for score in row["per_task"].values())
        shown = estimate(row["mean"], row["mean_ci95"], ".2f", bold=True)
        lines.append(f"| {row['name']} | {shown} | {tasks} |")
    held = sum(each["verdict"].startswith("better") for each in record["claims"])
    lines += [
        "",
        "A random policy scores 0, the best known result 1. Scores are returns of the last 100 "
        f"training episodes, {rows[0]['num_seeds'] // len(rows[0]['per_task'])} seeds a task. "
        f"The paper has {len(record['claims'])} orders: each surrogate above `none`, and clip 0.2 "
        f"above the others. {held} of them hold here: the interval of the difference lies above "
        "0. Setting, every cell and what differs from the paper: "
        f"[{folder.name}]({link(folder / 'README.md')}). Again: `ppo-jax reproduce ppo-table-1`.",
    ]
    return "\n".join(lines)


def tasks_of(rows: list[dict[str, Any]]) -> str:
    """The names of the tasks, as a table's head."""
    return " | ".join(rows[0]["per_task"])


def costs() -> str | None:
    """Cost of an iteration by objective."""
    path = newest("objectives_*.json")
    if path is None:
        return None
    record = json.loads(path.read_text("utf-8"))
    cases = list(record["cases"].items())
    lines = [
        "An iteration's cost by objective, relative to `clip`:",
        "",
        "| objective | " + " | ".join(case.replace(" x ", " × ") for case, _ in cases) + " |",
        "|---|" + "---|" * len(cases),
    ]
    for name in cases[0][1]:
        ratios = " | ".join(f"{rows[name]['ratio']:.2f}" for _, rows in cases)
        lines.append(f"| {name} | {ratios} |")
    lines += [
        "",
        f"{record['setting'].replace(' x ', ' × ')}; {one_core(record['machine']['hardware'])}, "
        f"{record['date'][:10]}, medians of {record['rounds']} interleaved rounds. `trpo` and "
        "`npg` take one step on the whole batch, and 15 Fisher-vector products for it. Again: "
        "`python benchmarks/speed/objectives.py`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
