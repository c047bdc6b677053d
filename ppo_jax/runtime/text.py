"""Results in words, for people."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ppo_jax.config.config import Config


def plan_lines(env: str, config: Config, num_seeds: int, source: str | None) -> list[str]:
    """The plan of a run: its budget as it will be trained, and the source of its settings."""
    seeds = f"{num_seeds} seeds" if num_seeds > 1 else "1 seed"
    lines = [
        f"{env}: {config.trained_env_steps:,} environment steps a seed ({config.num_iterations:,} "
        f"iterations of {config.num_envs} environments x {config.rollout_length} steps), {seeds}"
    ]
    return lines if source is None else [f"settings: {source}", *lines]


def evaluation_line(env_steps: int, iqm: float | None) -> str:
    """The result of an evaluation in the middle of a run."""
    told = "none, every seed failed" if iqm is None else f"{iqm:g}"
    return f"evaluated after {env_steps:,} environment steps a seed: return {told}"


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """The summary of a run or an evaluation in a few lines."""
    final, seeds = summary["final_return"], summary["num_seeds"]
    interval = final.get("ci95")
    spread = "" if interval is None else f", 95% interval {interval[0]:g} to {interval[1]:g}"
    measure = f"IQM of {seeds} seeds" if seeds > 1 else "one seed"
    value = "none: every seed failed" if final["iqm"] is None else f"{final['iqm']:g}"
    episodes = f"{summary['episodes_per_seed']} {summary['policy_mode']} episodes a seed"
    lines = [f"return    {value}  {measure}{spread} ({episodes})"]
    if summary.get("trained_on"):
        lines.append(f"on        {summary['env']}, trained on {summary['trained_on']}")
    if summary.get("stopped_by"):
        lines = [f"stopped   by {summary['stopped_by']}, everything is saved; not evaluated"]
    if summary.get("num_failed"):
        lines.append(f"failed    {summary['num_failed']} of {seeds} seeds turned non-finite")
    if summary.get("episodes_cut"):
        count = summary["episodes_per_seed"] * seeds
        lines.append(
            f"cut       {summary['episodes_cut']} of {count} episodes were cut at 10,000 steps, as "
            "the environment has no time limit; their returns count as they stand"
        )
    if summary.get("episodes_stalled"):
        count = summary["episodes_per_seed"] * seeds
        lines.append(
            f"stalled   {summary['episodes_stalled']} of {count} episodes ended unfinished, in a "
            "step that changed and paid nothing, which a deterministic policy repeats; see "
            "--policy-mode sampled"
        )
    trained = f"trained   {summary['env_steps']:,} environment steps a seed"
    if summary.get("env_steps_per_second"):
        trained += f", {summary['env_steps_per_second']:,.0f} steps/s"
    if summary.get("train_seconds") is not None:
        trained += f" in {summary['train_seconds']:.1f} s"
    if summary.get("compile_seconds") is not None:
        trained += f", after {summary['compile_seconds']:.1f} s of compiling"
    lines.append(trained + (" (stopped early)" if summary.get("stopped_early") else ""))
    if summary.get("video"):
        shown = f"seed {summary['video_seed']}, return {summary['video_return']:g}"
        lines.append(f"video     {quoted(summary['video'])} ({shown})")
    if summary.get("run"):
        lines.append(f"run       {summary['run']}")
        if summary.get("learning_curve"):
            lines.append(f"curve     {summary['learning_curve']}")
        if summary.get("train_seconds") is not None:
            command = "resume" if summary.get("stopped_by") else "eval"
            lines.append(f"next      ppo-jax {command} {quoted(str(summary['run']))}")
    return lines


def score(table: Mapping[str, Any] | None) -> str:
    """A preset's result or reference in two numbers."""
    if not table or "score" not in table:
        return "-"
    steps = f" at {table['env_steps']:,}" if "env_steps" in table else ""
    kind = f" ({table['kind']})" if "kind" in table else ""  # an optimum, not a result
    return f"{table['score']:g}{steps}{kind}"


def format_steps(number: float) -> str:
    """Three significant digits with an SI unit: 950, 12.3k, 1.5M, 2.04G."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def format_seconds(seconds: float) -> str:
    """45s, 3m05s or 2h07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def age(seconds: float) -> str:
    """A time since, in its largest unit: just now, 5 min ago, 3 h ago, 12 days ago."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= (2 * size if unit == "days" else size):
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


_UNSEEN = {
    number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if number not in (9, 10)
}


def visible(text: str) -> str:
    """`text` with control characters spelled: names in files must not command the terminal."""
    return text.translate(_UNSEEN)


def quoted(word: str) -> str:
    """`word` as a shell takes it, letters of other alphabets left alone."""
    plain = all(character.isalnum() or character in "_-./:" for character in word)
    return word if plain else shlex.quote(word)
