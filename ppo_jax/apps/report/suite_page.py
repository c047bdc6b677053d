"""The page of a suite: published next to measured results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppo_jax.analysis import verdicts
from ppo_jax.apps.report import suite_cells, suite_setting
from ppo_jax.apps.report.html import charts, parts
from ppo_jax.apps.report.html.charts import Line, Look
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, prose, tag
from ppo_jax.apps.report.html.parts import details, grouped, section, small, table
from ppo_jax.apps.reproduce import scoring


def page(data: Mapping[str, Any]) -> str:
    """Write the page as text; `data` is the result of `suite_data.collect`, with version."""
    numbers = Numbers(data)
    sections = [
        about(data),
        normalised(data, numbers),
        claims(data, numbers),
        suite_cells.cells(data, numbers),
        curves(data),
        profile(data),
        suite_setting.sources(data, numbers),
        suite_setting.odd(data),
        suite_setting.speed(data, numbers),
        suite_setting.settings(data, numbers),
        suite_setting.machines(data, numbers),
    ]
    return parts.document(data["title"], subtitle(data, numbers), sections, data)


def subtitle(data: Mapping[str, Any], numbers: Numbers) -> list[Child]:
    judged = [each["verdict"] for each in data["cells"] if each["verdict"][:1] != "–"]
    ordered = [each["verdict"] for each in data["claims"] if each["verdict"][:1] != "–"]
    counted = [
        *badges(judged, "published values"),
        *badges(ordered, "published orders"),
        tag("li", f"{len(data['cells'])} cells measured"),
    ]
    if data["lacking"]:
        lacking = len(data["lacking"])
        words = f"{lacking} cell{'s' if lacking > 1 else ''} without a result"
        counted.append(tag("li", words, class_=verdicts.UNDECIDED))
    quick = None
    if data["is_quick"]:
        words = "Quick: smaller budgets than the published ones; a shortfall here means nothing."
        quick = tag("p", words, class_="warning")
    words = f"Suite {data['suite']}, results of {data['folder']}; {'; '.join(data['machines'])}"
    return [tag("p", words), quick, tag("ul", counted, class_="badges")]


def badges(words: Sequence[str], what: str) -> list[Html]:
    """Count the verdicts of each kind."""
    found = []
    for state in suite_cells.STATES:
        count = sum(each.startswith(state) for each in words)
        if count:
            found.append(tag("li", f"{count} of {len(words)} {what}: {state}", class_=state))
    quick = sum(each == scoring.NOT_REACHED_QUICK for each in words)
    if quick:
        found.append(tag("li", f"{quick} of {len(words)} {what}: {scoring.NOT_REACHED_QUICK}"))
    return found


def about(data: Mapping[str, Any]) -> Html | None:
    if not data["about"].strip():
        return None
    paragraphs = prose(data["about"])
    return tag(
        "div", paragraphs[:1], details("The setting", paragraphs[1:]) if paragraphs[1:] else None
    )


def normalised(data: Mapping[str, Any], numbers: Numbers) -> Html | None:
    """Show each variant over all tasks, the best one first."""
    variants = data["variants"]
    if not variants:
        return None
    order = sorted(range(len(variants)), key=lambda i: -variants[i]["mean"])
    published = data["variant_published"]
    ends = [end for each in variants for end in each["mean_ci95"] or [each["mean"]]]
    span = charts.span_of([*ends, 0.0, 1.0, *(each["value"] for each in published.values())])
    tasks = list(variants[0]["tasks"])
    paper = ("paper",) if published else ()
    head = ("variant", "mean [95%]", "0 … 1", *paper, "IQM [95%]", "gap", *tasks)
    rows = []
    for i in order:
        each, at = variants[i], ("variants", i)
        value = (published.get(each["name"]) or {}).get("value")
        row: list[Child] = [
            each["name"],
            [
                numbers.show(*at, "mean", form=".2f"),
                " ",
                numbers.interval(*at, "mean_ci95", form=".2f"),
            ],
            charts.whisker(span, each["mean"], each["mean_ci95"], value, (0.0, 1.0)),
        ]
        if paper:
            row.append(numbers.show("variant_published", each["name"], "value", form=".2f"))
        row.append(
            [
                numbers.show(*at, "iqm", form=".2f"),
                " ",
                numbers.interval(*at, "iqm_ci95", form=".2f"),
            ]
        )
        row.append(numbers.show(*at, "optimality_gap", form=".2f"))
        row += [numbers.show(*at, "per_task", task, form=".2f") for task in tasks]
        rows.append(row)
    words = (
        "0 is the random policy, 1 the best known result; mean over tasks and seeds, 95% interval "
        "by task (two decimals). Gap: how far scores stay below 1 on average. "
    )
    diamond = "Open diamond: the paper's number, of its own tasks." if paper else ""
    return section("Normalised score over all tasks", small(words + diamond), table(head, rows))


def claims(data: Mapping[str, Any], numbers: Numbers) -> Html | None:
    """Show the published order of variants and the evidence of ours."""
    found = data["claims"]
    if not found:
        return None
    ends = [end for each in found for end in each["ci95"] or [each["difference"]]]
    span = charts.span_of([0.0, *ends])
    rows = []
    for i, each in enumerate(found):
        at = ("claims", i)
        difference = numbers.show(*at, "difference", form="+.2f")
        rows.append(
            [
                [tag("b", each["claim"]["higher"]), " above ", each["claim"]["lower"]],
                [difference, " ", numbers.interval(*at, "ci95", form="+.2f")],
                charts.whisker(span, each["difference"], each["ci95"], guides=(0.0,)),
                numbers.show(*at, "probability", form=".2f"),
                suite_cells.verdict(each["verdict"]),
            ]
        )
    head = ("published order", "difference [95%]", "0 at the line", "P(better)", "verdict")
    words = (
        "Difference of the mean normalised scores. P(better): probability that a run of the first "
        "returns more than a run of the second, mean over tasks (two decimals)."
    )
    cited = dict.fromkeys(each["claim"]["source"] for each in found)
    listed = tag("ul", [tag("li", source) for source in cited], class_="sources")
    return section("Published order", small(words), table(head, rows), details("Sources", listed))


def curves(data: Mapping[str, Any]) -> Html:
    """Draw training returns: a task's variants in one chart, or in one each if they are many."""
    every = data["cells"]
    look = Look(y_label="Return of training episodes")
    shown: list[Child] = []
    places = grouped([cell["task"] for cell in every])
    by_task = [(task, [every[i] for i in own]) for task, own in places.items()]
    are_many = any(len(group) > charts.MAX_OVERLAID for _, group in by_task)
    for number, (task, group) in enumerate(by_task):
        lines = [
            parts.line(cell["variant"], cell["curve"])._replace(published=point(cell))
            for cell in group
        ]
        drawn = charts.overlaid_or_many(f"curve-{number}", lines, look, "the other variants")
        only = f", {group[0]['variant']}" if len(group) == 1 else ""
        if are_many:
            shown.append(details(task, drawn, open_=number == 0))
        else:
            shown.append(tag("div", tag("h3", task + only), drawn, class_="chart-box"))
    words = "IQM over seeds and its 95% interval."
    if any(each["published"] for each in every):
        words += (
            " Open diamond: the published value by its own protocol, at its own budget, or at the "
            "edge if that budget is larger or unknown."
        )
    body = shown if are_many else tag("div", shown, class_="charts")
    return section("Learning curves", small(words), body)


def point(cell: Mapping[str, Any]) -> tuple[float | None, float] | None:
    """The published value of a cell as a point of its chart: (steps, value)."""
    reference = cell["published"][0] if cell["published"] else {}
    value = reference.get("value")
    return None if value is None else (reference["env_steps"], value)


def profile(data: Mapping[str, Any]) -> Html | None:
    """Draw performance profiles of the variants."""
    found = data["profiles"]
    if not found:
        return None
    order = sorted(data["variants"], key=lambda each: -each["mean"])
    lines = [
        Line(name, curve["score"], curve["share"], curve.get("low"), curve.get("high"))
        for name, curve in ((each["name"], found[each["name"]]) for each in order)
    ]
    look = Look(
        x_label="Normalised score τ",
        y_label="Share of runs above τ",
        y_limits=(0.0, 1.0),
        x_form=lambda number: f"{number:g}".replace("-", "−"),
    )
    words = (
        "Share of all runs whose normalised score is above τ, over all tasks, with pointwise 95% "
        "intervals stratified by task (Agarwal et al. 2021). Higher is better everywhere."
    )
    drawn = charts.overlaid_or_many("profile", lines, look, "the other variants")
    return section("Performance profiles", small(words), drawn)
