"""The cells of a suite as a table: published, measured, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppo_jax.analysis import verdicts
from ppo_jax.apps.report.html import charts
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, tag
from ppo_jax.apps.report.html.parts import details, grouped, section, small, table
from ppo_jax.apps.reproduce import tables

LARGE = 24  # number of cells; the tables of a larger suite are folded
STATES = verdicts.WORDS  # first words of verdicts, and classes in report.css


def cells(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Show every cell, task by task; the tasks of a large suite are folded."""
    every = data["cells"]
    has_published = any(each["published"] for each in every)
    compared = ("verdict", "published", "difference [95%]") if has_published else ()
    head = ("cell", *compared, "IQM [95%]", "")
    head = (*head, *(("reach it",) if has_published else ()), "mean", "seeds", "steps a seed")
    blocks: list[tuple[str, list[list[Child]]]] = []
    for task, places in grouped([each["task"] for each in every]).items():
        values = [end for i in places for end in every[i]["ci95"] or [every[i]["iqm"]]] + [
            ref["value"] for i in places for ref in every[i]["published"][:1]
        ]
        span = charts.span_of(values)
        rows = [cell_row(i, every[i], span, has_published, numbers) for i in places]
        if len(places) > 1:  # the task is the heading of its group
            rows = [[every[i]["variant"], *row[1:]] for i, row in zip(places, rows)]
        blocks.append((task, rows))
    is_large = len(every) > LARGE
    if is_large:
        shown: Child = [
            details(f"{task}: {len(rows)} cells", table(head, rows)) for task, rows in blocks
        ]
    else:
        shown = table(head, *([[task], *rows] if len(rows) > 1 else rows for task, rows in blocks))
    protocols = dict.fromkeys(each["protocol"] for each in every)
    words = (
        f"A seed's score: {'; '.join(protocols)}. IQM over seeds, 95% interval with the seed as "
        "the unit."
    )
    rule = (
        f" {tables.RULE} The open diamond is the published value; reach it: share of the seeds "
        "that reach it alone."
        if has_published
        else ""
    )
    title = "Published next to measured" if has_published else "Every cell"
    return section(title, small(words + rule), shown, per_seed(data, numbers))


def cell_row(
    i: int, cell: Mapping[str, Any], span: Any, has_published: bool, numbers: Numbers
) -> list[Child]:
    """One row of the table; `span` is the axis of its task's whiskers."""
    at = ("cells", i)
    published = cell["published"][0]["value"] if cell["published"] else None
    row: list[Child] = [cell["cell"]]
    if has_published:
        unlike = "; ".join(cell["unlike"])
        row += [
            [verdict(cell["verdict"]), tag("p", unlike, class_="small") if unlike else None],
            published_value(i, cell, numbers),
            difference(i, cell, numbers),
        ]
    row += [
        [numbers.show(*at, "iqm"), " ", numbers.interval(*at, "ci95")],
        charts.whisker(span, cell["iqm"], cell["ci95"], published),
    ]
    if has_published:
        row.append(numbers.show(*at, "share_reached", form=".0%"))
    row += [
        numbers.show(*at, "mean"),
        [
            numbers.show(*at, "num_seeds"),
            [" of ", numbers.show(*at, "wanted_seeds")]
            if len(cell["per_seed"]) < cell["wanted_seeds"]
            else None,
            [" (failed: ", numbers.show(*at, "num_failed"), ")"] if cell["num_failed"] else None,
        ],
        [
            numbers.show(*at, "env_steps"),
            [" of ", numbers.show(*at, "full_env_steps"), " (quick)"]
            if cell["env_steps"] != cell["full_env_steps"]
            else None,
        ],
    ]
    return row


def published_value(i: int, cell: Mapping[str, Any], numbers: Numbers) -> Child:
    """Show the first published value and its budget."""
    if not cell["published"]:
        return tag("span", "–", class_="none")
    at, reference = ("cells", i, "published", 0), cell["published"][0]
    ends = [numbers.show(*at, "lower"), " to ", numbers.show(*at, "upper")]
    value = numbers.show(*at, "value") if reference["value"] is not None else ends
    budget = (
        [" at ", numbers.show(*at, "env_steps")] if reference["env_steps"] is not None else None
    )
    return [value, tag("span", budget, class_="none") if budget else None]


def difference(i: int, cell: Mapping[str, Any], numbers: Numbers) -> Child:
    """Show the difference from the first published value, with its interval."""
    at = ("cells", i, "compared")
    if cell["compared"] is None or cell["compared"]["difference"] is None:
        return tag("span", "–", class_="none")
    return [numbers.show(*at, "difference", form="+.4g"), " ", numbers.interval(*at, "ci95")]


def per_seed(data: Mapping[str, Any], numbers: Numbers) -> Html:
    """Show the score of every seed."""
    shown: list[Child] = []
    for i, cell in enumerate(data["cells"]):
        scores = [
            tag("li", numbers.show("cells", i, "per_seed", k), value=str(seed))
            for k, seed in enumerate(cell["seeds"])
        ]
        shown.append(tag("p", tag("b", cell["cell"])))
        shown.append(tag("ol", scores, class_="seeds"))
    return details("The score of every seed", shown, printed=False)


def verdict(text: str) -> Html:
    """Show a verdict in the colour of its kind."""
    kind = next((state for state in STATES if text.startswith(state)), "no")
    return tag("span", text, class_=f"verdict {kind}")
