"""The end of a sweep: table, scores, the winner on fresh seeds, its preset, pictures, summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppo_jax.analysis import ranges, stats
from ppo_jax.apps.sweep import pack
from ppo_jax.apps.sweep.axes import apply, describe, show
from ppo_jax.apps.sweep.folder import Sweep
from ppo_jax.apps.sweep.pack import Outcome
from ppo_jax.apps.sweep.results import pictures, table, winner
from ppo_jax.apps.sweep.results.table import Table
from ppo_jax.config import reading
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.trust import code_names
from ppo_jax.distributed import hosts
from ppo_jax.runtime.text import quoted
from ppo_jax.storage import run_folder, sealed
from ppo_jax.storage.files import to_json, write_atomic, write_json

SUMMARY = "summary.json"
NONE_LEFT = (
    "No setting was trained to the end of its budget: each of them failed (a seed turned "
    "non-finite) or was dropped at a rung. Take smaller learning rates, or longer rungs."
)


def concluded(sweep: Sweep, folder: Path, outcome: Outcome) -> Table | None:
    """The results that another worker has written since the last pack was finished, or None."""
    path = folder / SUMMARY
    newest = max((p.stat().st_mtime for p in folder.glob("packs/*/*.json")), default=0.0)
    if not path.is_file() or path.stat().st_mtime < newest:
        return None
    try:
        summary = reading.read_json(path)
        best = summary["best"]
        lacks_fresh = best is not None and best["fresh"] is None and sweep.options.num_fresh_seeds
        if summary["stopped_early"] or lacks_fresh:
            return None
    except (ValueError, TypeError, KeyError):
        return None  # damaged: it is written anew
    ranked = table.scores(outcome.settings, outcome.returns, limits_of(sweep))
    return Table(table.read_columns(table.pack_folders(folder)), ranked, summary, folder)


def conclude(sweep: Sweep, folder: Path, outcome: Outcome, control: pack.Control) -> Table:
    """Write all results of a sweep; a stopped one has no winner yet.

    The first host has the table and writes; all train the winner and get the summary.
    """
    ranked = table.scores(outcome.settings, outcome.returns, limits_of(sweep))
    columns, written = {}, []
    if hosts.is_first():
        columns, written = write_tables(sweep, folder, outcome, ranked)
    best = ranked[0] if ranked and ranked[0]["final_return"]["mean"] is not None else None
    fresh = None
    wants_fresh = sweep.options.num_fresh_seeds and outcome.reruns_winner
    if best is not None and not control.stop and wants_fresh:
        found = winner.rerun(sweep, folder, best["setting"], outcome, control)
        if found is not None:
            fresh = stats.summarise(found, statistic=np.mean, limits=limits_of(sweep))
    is_stopped = bool(control.stop)
    exit_code = (control.stop.exit_code or 0) if is_stopped else int(best is None)
    summary: dict[str, Any] = {
        "env": run_folder.env_name(sweep.config),
        "objective": sweep.config.objective,
        "sampler": sweep.options.sampler,
        "num_settings": len(outcome.settings),
        "num_seeds": sweep.options.seeds,
        "env_steps": sweep.config.trained_env_steps,
        "env_steps_in_all": outcome.env_steps,
        "num_failed": sum(row["final_return"]["num_failed"] for row in ranked)
        + outcome.more.get("num_failed_early", 0),
        "best": None if best is None else described(best, fresh),
        "compilations": outcome.compilations,
        "compile_seconds": round(outcome.compile_seconds, 3),
        "train_seconds": round(outcome.train_seconds, 3),
        "env_steps_per_second": round(outcome.env_steps / max(outcome.train_seconds, 1e-9)),
        "stopped_early": is_stopped,
        "sweep": str(folder),
        "tables": [*written, str(folder / "scores.csv")],
        "pictures": [],
        **outcome.more,
    }
    if best is not None and not is_stopped:
        summary["best_toml"] = str(folder / "best.toml")
    if hosts.is_first():
        if "best_toml" in summary:
            write_atomic(folder / "best.toml", preset(sweep, summary))
        summary["pictures"] = pictures.draw_all(
            folder, columns, ranked, sweep.axes, summary, limits_of(sweep)
        )
        write_json(folder / SUMMARY, summary)
        write_atomic(folder / "report.md", report(summary, ranked))
    return Table(columns, ranked, summary, folder, exit_code)


def write_tables(
    sweep: Sweep, folder: Path, outcome: Outcome, ranked: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Write the table and the scores; return the table's columns and the files with them."""
    axes = [axis.name for axis in sweep.axes] or list(sweep.changes[0])
    packs = table.pack_folders(folder) if outcome.packs is None else outcome.packs
    columns = table.read_columns(packs, outcome.packs)
    written = table.write(columns, folder) if columns else []
    table.write_scores(ranked, axes, folder / "scores.csv")
    return columns, written


def limits_of(sweep: Sweep) -> tuple[float, float]:
    """Least and largest possible return; none are known if a parameter of the environment moves."""
    names = [*sweep.hyper.env, *(axis.name for axis in sweep.axes), *sweep.changes[0]]
    moved = [name for name in names if name in sweep.hyper.env or name.startswith("env.")]
    return ranges.limits(sweep.config.env, dict.fromkeys(moved))


def described(best: Mapping[str, Any], fresh: Mapping[str, Any] | None) -> dict[str, Any]:
    """Describe the winner: its selected and its fresh score; their difference is the optimism."""
    told = {
        "setting": best["setting"],
        "values": to_json(best["values"]),
        "selected": best["final_return"],
        "fresh": fresh,
        "optimism_of_selection": None,
    }
    if fresh is not None and fresh["mean"] is not None:
        told["optimism_of_selection"] = best["final_return"]["mean"] - fresh["mean"]
    return told


def preset(sweep: Sweep, summary: Mapping[str, Any]) -> str:
    """Make best.toml: the values that differ from the defaults, and their score."""
    best = summary["best"]
    values = best["values"]
    known = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    config, hyper = apply(sweep.config, sweep.hyper, known)
    measured = best["fresh"] or best["selected"]
    seeds = "fresh seeds" if best["fresh"] else "the seeds that selected it"
    result = {
        "score": measured["mean"],
        "ci95": measured["ci95"],
        "seeds": len(measured["per_seed"]),
        "env_steps": config.trained_env_steps,
        "selected_score": best["selected"]["mean"],
    }
    changed = {
        "config": _changed(config, Config(), ("env", "objective")),
        "hyper": _changed(hyper, Hyper(), ()),
    }
    source = (
        f"best of {summary['num_settings']} settings x {summary['num_seeds']} seeds "
        f"({summary['sampler']}: {describe(known)}); score on {seeds}"
    )
    if len(summary.get("schedules", {}).get(str(best["setting"]), ())) > 1:
        source += (
            f", of the schedule of setting {best['setting']} in summary.json, not of these "
            "constant numbers, which are its last"
        )
    names = code_names({**changed["config"], "env": summary["env"]})
    head = {"env": summary["env"], **sealed.sign(names)}
    return table.best_toml(head, config.objective, **changed, result=result, source=source)


def _changed(given: Any, default: Any, without: Sequence[str]) -> dict[str, Any]:
    """Fields that differ from the defaults, by name; the budget is always among them."""
    return {
        spec.name: getattr(given, spec.name)
        for spec in dataclasses.fields(given)
        if spec.name not in without
        and (
            getattr(given, spec.name) != getattr(default, spec.name)
            or spec.name == "total_env_steps"
        )
    }


def lines(result: Table) -> list[str]:
    """Describe the result of a sweep in lines of text."""
    summary = result.summary
    rows = [(score_words(row["final_return"]), row["values"]) for row in result.settings[:5]]
    width = max([44, *(len(words) + 2 for words, _ in rows)])
    told = [f"{rank:>4}  {row[0]:<{width}}{describe(row[1])}" for rank, row in enumerate(rows, 1)]
    if summary["num_failed"]:
        told.append(f"failed    {summary['num_failed']} members turned non-finite")
    best = summary["best"]
    if not result.settings and not summary["stopped_early"]:
        told.append(NONE_LEFT)
    if best is not None:
        told += ["", f"best      {describe(best['values'])}"]
        told.append(f"selected  {score_words(best['selected'])}")
        if best["fresh"] is not None:
            told.append(f"fresh     {score_words(best['fresh'])}")
            if best["optimism_of_selection"] is not None:
                told.append(
                    f"optimism  {best['optimism_of_selection']:.4g}, the bias from selecting the "
                    "best setting"
                )
    compiled = ", ".join(map(str, summary["compilations"]))
    finished = summary.get("finished") if summary["stopped_early"] else None
    in_what = " of what is finished" if finished else ""
    told.append(
        f"trained   {summary['env_steps_in_all']:,} environment steps{in_what} in "
        f"{summary['train_seconds']:.1f} s ({summary['env_steps_per_second']:,} steps/s), after "
        f"{summary['compile_seconds']:.1f} s of compiling (programs per group: {compiled})"
    )
    if "evaluation_env_steps" in summary:
        told.append(
            f"scored    by {summary['evaluation_env_steps']:,} environment steps of whole episodes "
            f"in {summary['evaluation_seconds']:.1f} s, besides"
        )
    tables = ", ".join(Path(path).name for path in summary["tables"])
    told.append(f"sweep     {quoted(summary['sweep'])} ({tables})")
    if finished:
        told.append(f"finished  {finished}")
    if summary["stopped_early"]:
        told.append(f"stopped   go on with: ppo-jax sweep {quoted(summary['sweep'])}")
    elif "best_toml" in summary:
        told.append(f"next      {train_command(summary)}")
    return told


def train_command(summary: Mapping[str, Any]) -> str:
    """Make the command that trains the winner."""
    objective = summary["best"]["values"].get("objective", summary["objective"])
    flag = "" if objective == Config().objective else f" --objective {objective}"
    return f"ppo-jax train {summary['env']}{flag} --preset {quoted(summary['best_toml'])}"


def score_words(final: Mapping[str, Any]) -> str:
    """Format mean and interval of a setting's seeds."""
    if final["mean"] is None:
        return "none: every seed failed"
    ends = final["ci95"]
    spread = "" if ends is None else f" (95% {ends[0]:.4g} to {ends[1]:.4g})"
    failed = f", {final['num_failed']} failed" if final["num_failed"] else ""
    return f"{final['mean']:.5g}{spread}, {len(final['per_seed'])} seeds{failed}"


def report(summary: Mapping[str, Any], ranked: Sequence[Mapping[str, Any]]) -> str:
    """Make report.md: the result, the best settings and the pictures."""
    axes = list(ranked[0]["values"]) if ranked else []
    text = [
        f"# Sweep of {summary['env']}, {summary['objective']}",
        "",
        f"{summary['num_settings']} settings x {summary['num_seeds']} seeds by sampler "
        f"{summary['sampler']}, {summary['env_steps_in_all']:,} environment steps in all. A score "
        "is the mean over seeds of the final return, with its 95% interval.",
        "",
    ]
    if summary["best"] is not None:
        best = summary["best"]
        text += [f"**Best**: {describe(best['values'])}", ""]
        text += [f"- when selected: {score_words(best['selected'])}"]
        if best["fresh"] is not None:
            text += [f"- on fresh seeds: {score_words(best['fresh'])}"]
        if best["optimism_of_selection"] is not None:
            text += [f"- optimism of the selection: {best['optimism_of_selection']:.4g}"]
        text += [""]
    if not ranked and not summary["stopped_early"]:
        return "\n".join([*text, NONE_LEFT]) + "\n"
    text += ["| rank | " + " | ".join([*axes, "score"]) + " |"]
    text += ["|" + " --- |" * (len(axes) + 2)]
    for rank, row in enumerate(ranked[:20], 1):
        cells = [*(show(row["values"][axis]) for axis in axes), score_words(row["final_return"])]
        text += [f"| {rank} | " + " | ".join(cells) + " |"]
    for picture in summary["pictures"]:
        text += ["", f"![{Path(picture).stem}]({Path(picture).name})"]
    return "\n".join(text) + "\n"
