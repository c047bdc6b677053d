"""Published and measured scores side by side: as text, as Markdown, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax.analysis import verdicts
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.references import Reference
from ppo_jax.apps.reproduce.scoring import Compared, Judged, Measured, Variant
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.storage.files import to_json, write_atomic, write_json


class Table(NamedTuple):
    """The content of one suite's table."""

    suite: Suite
    rows: list[Measured]
    variants: list[Variant]  # for suites with normalised scores
    judged: list[Judged]
    lacking: list[str]  # cells without a result
    notes: list[str]  # sentences about files and cells
    machines: list[str]  # sources of the results
    folder: str

    @property
    def is_quick(self) -> bool:
        return any(cell.is_quick for cell in self.suite.cells)

    @property
    def title(self) -> str:
        return self.suite.title + (" (quick: smaller budgets)" if self.is_quick else "")


def lines(table: Table) -> list[str]:
    """Format the table as aligned text."""
    said = [f"{table.suite.name}: {table.title}"]
    if table.rows:
        said += ["", *aligned([HEAD, *(cells_of(row) for row in table.rows)])]
    if table.variants:
        said += ["", "Normalised score over all tasks (random policy 0, best known 1)"]
        said += aligned(variant_rows(table))
    if table.judged:
        said += ["", "Published order (difference of the mean normalised scores)"]
        said += aligned([CLAIM_HEAD, *(claim_row(each) for each in table.judged)])
    said += closing(table)
    return said


HEAD = (
    *("cell", "published", "measured IQM [95%]", "mean", "seeds x steps"),
    *("difference [95%]", "margin", "verdict", "published number is unlike"),
)
RULE = (
    "Equal: the interval of the difference lies within the margin, 5% of the range from random to "
    "best. Better and worse: it lies above or below 0. Undecided: neither, and about as many seeds "
    "as stated would decide. A cell with a failed seed is worse. The scores over all tasks count "
    "the seed as random, or as the task's lowest score if that is less. The interval is that of "
    "ours; a published number has none, and is mostly of one agent."
)
CLAIM_HEAD = ("order", "difference [95%]", "P(better)", "verdict")


def cells_of(row: Measured) -> tuple[str, ...]:
    """Texts of one cell's row."""
    cell = row.cell
    share = row.share_reached
    alone = "" if share is None or share in (0.0, 1.0) else f" ({share:.0%} of seeds alone)"
    return (
        cell.name,
        published(cell.published[0]) if cell.published else "–",
        f"{number(row.iqm)} {interval(row.ci95)}".rstrip(),
        number(row.mean),
        f"{len(row.known)} x {steps(cell.config.trained_env_steps)}{mark(cell)}",
        *difference(row),
        row.verdict + alone,
        "; ".join(row.remarks) or "–",
    )


def difference(row: Measured) -> tuple[str, str]:
    """Texts of the difference from the published score, and of the margin of equality."""
    found = row.compared
    if found is None or found.difference is None:
        return "–", "–"
    ends = interval(found.ci95, "+.3g")
    return f"{found.difference:+.4g} {ends}".rstrip(), f"{found.margin:.3g}"


def mark(cell: Cell) -> str:
    """Mark of a smaller budget."""
    return f" of {steps(cell.full_env_steps)} (quick)" if cell.is_quick else ""


def published(reference: Reference) -> str:
    at = "" if reference.env_steps is None else f" at {steps(reference.env_steps)}"
    if reference.value is None:
        return f"{number(reference.lower)} to {number(reference.upper)}{at}"
    return f"{number(reference.value)}{at}"


def variant_rows(table: Table) -> list[tuple[str, ...]]:
    """Rows of the variants over all tasks, with the paper's number if there is one."""
    tasks = list(dict.fromkeys(cell.task for cell in table.suite.cells))
    head = ("variant", "paper", "mean [95%]", "IQM [95%]", "gap", *tasks)
    rows: list[tuple[str, ...]] = [head]
    for each in table.variants:
        paper = table.suite.variant_published.get(each.name)
        rows.append(
            (
                each.name,
                "–" if paper is None else f"{paper.value:.2f}",
                f"{each.mean:.2f} {interval(each.mean_ci95, '.2f')}".rstrip(),
                f"{each.iqm:.2f} {interval(each.iqm_ci95, '.2f')}".rstrip(),
                f"{each.optimality_gap:.2f}",
                *(f"{each.per_task[task]:.2f}" if task in each.per_task else "–" for task in tasks),
            )
        )
    return rows


def claim_row(each: Judged) -> tuple[str, ...]:
    order = f"{each.claim.higher} > {each.claim.lower}"
    if each.difference is None or each.probability is None:
        return (order, "–", "–", each.verdict)
    return (
        order,
        f"{each.difference:+.2f} {interval(each.ci95, '+.2f')}".rstrip(),
        f"{each.probability:.2f}",
        each.verdict,
    )


def closing(table: Table) -> list[str]:
    """Lines on missing cells, notes, machines, and the folder of the files."""
    said = []
    if table.lacking:
        shown = listed(table.lacking)
        said.append(f"without a result: {len(table.lacking)} cells ({shown}); no verdict on them")
    failed = [row for row in table.rows if row.num_failed]
    if failed:
        shown = listed([f"{r.cell.name} {r.num_failed} of {len(r.per_seed)}" for r in failed])
        said.append(f"failed seeds: {shown}; IQM and interval use the others")
    said += [f"note: {note}" for note in table.notes]
    said += [f"machine   {machine}" for machine in table.machines]
    return ["", *said, f"results   {table.folder}"]


def listed(names: Sequence[str]) -> str:
    """Join the first few names."""
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def check_line(each: Compared) -> str:
    said = (
        f"regression: {each.cell.name} has IQM {number(each.iqm)} and had {number(each.stored_iqm)}"
    )
    if each.difference_ci99 is not None:
        said += f"; difference {interval(each.difference_ci99)} (99%)"
    if each.num_failed or each.stored_num_failed:
        said += f"; {each.num_failed} seeds failed, and {each.stored_num_failed} had"
    return said


def short_line(row: Measured) -> str:
    """Describe a finished cell in one line."""
    return f"    {row.cell.name:<44} {number(row.iqm)} {interval(row.ci95)} {row.verdict}".rstrip()


def number(value: float | None, spec: str = "") -> str:
    if value is None:
        return "none"
    return f"{value:{spec or ('.4g' if abs(value) < 100 else '.1f')}}"


def interval(ends: Sequence[float] | None, spec: str = "") -> str:
    return "" if ends is None else f"[{', '.join(number(end, spec) for end in ends)}]"


def steps(count: int) -> str:
    for factor, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= factor:
            return f"{count / factor:.3g}{unit}"
    return str(count)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown(table: Table) -> str:
    """Format the table as a README of its folder."""
    said = [f"# {table.title}", "", table.suite.about.strip(), ""]
    if table.rows:
        said += [*piped([HEAD, *(cells_of(row) for row in table.rows)]), ""]
        said += [RULE, ""] if any(row.compared for row in table.rows) else []
    if table.variants:
        said += ["## Normalised score over all tasks", ""]
        said += [*piped(variant_rows(table)), ""]
    if table.judged:
        said += ["## Published order", "", "Difference of the mean normalised scores.", ""]
        said += [*piped([CLAIM_HEAD, *(claim_row(each) for each in table.judged)]), ""]
    sources = source_lines(table)
    if sources:
        said += ["## Sources of the published numbers", "", *sources, ""]
    odd = closing(table._replace(machines=[]))[1:-1]
    if odd:
        said += ["## Missing or odd", "", *(f"- {line}" for line in odd), ""]
    said += ["## Hardware", "", *(f"- {machine}" for machine in table.machines), ""]
    again = table.suite.command + (" --quick" if table.is_quick else "")
    said += [f"Written by `{again}`. A cell's JSON has every seed's return and learning curve."]
    return "\n".join(said) + "\n"


def source_lines(table: Table) -> list[str]:
    said = []
    for row in table.rows:
        for reference in row.cell.published:
            seeds = f", {reference.num_seeds} seeds" if (reference.num_seeds or 1) > 1 else ""
            said.append(
                f"- {row.cell.name}: {published(reference)}, {reference.policy_mode}{seeds}: "
                f"{reference.algorithm} {reference.variant} ({reference.source})"
            )
    for name, reference in table.suite.variant_published.items():
        said.append(f"- {name}: {published(reference)} ({reference.source})")
    return said


def piped(rows: Sequence[Sequence[str]]) -> list[str]:
    text = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    return [text[0], "|" + "---|" * len(rows[0]), *text[1:]]


def table_data(table: Table) -> dict[str, Any]:
    """Convert the table to JSON."""
    return to_json(
        {
            "suite": table.suite.name,
            "title": table.title,
            "is_quick": table.is_quick,
            "folder": table.folder,
            "machines": table.machines,
            "cells": [
                {
                    "cell": row.cell.name,
                    "published": [each._asdict() for each in row.cell.published],
                    "per_seed": list(row.per_seed),
                    "iqm": row.iqm,
                    "mean": row.mean,
                    "ci95": row.ci95,
                    "num_seeds": len(row.known),
                    "num_failed": row.num_failed,
                    "env_steps": row.cell.config.trained_env_steps,
                    "full_env_steps": row.cell.full_env_steps,
                    "share_reached": row.share_reached,
                    "verdict": row.verdict,
                    "compared": None if row.compared is None else row.compared._asdict(),
                    "unlike": list(row.remarks),
                }
                for row in table.rows
            ],
            "variants": [each._asdict() for each in table.variants],
            "words": word_counts(table),
            "claims": [{**each._asdict(), "claim": each.claim._asdict()} for each in table.judged],
            "lacking": table.lacking,
            "notes": table.notes,
        }
    )


def word_counts(table: Table) -> dict[str, int]:
    """Count the cells that have each word as their verdict."""
    judged = [row.verdict for row in table.rows]
    return {word: sum(text.startswith(word) for text in judged) for word in verdicts.WORDS}


def write_tables(folder: Path, table: Table) -> None:
    """Write README.md and summary.json of the folder, each in one step."""
    write_atomic(folder / "README.md", markdown(table))
    write_json(folder / "summary.json", table_data(table))
