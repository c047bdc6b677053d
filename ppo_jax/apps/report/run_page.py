"""The page of one or several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppo_jax.apps.report import run_setting
from ppo_jax.apps.report.animation import Animation
from ppo_jax.apps.report.html import charts, parts
from ppo_jax.apps.report.html.charts import SMALL, Line, Look
from ppo_jax.apps.report.html.markup import Child, Html, Numbers, subscripted, tag
from ppo_jax.apps.report.html.parts import details, grouped, section, small, table
from ppo_jax.apps.report.run_data import DIAGNOSTICS
from ppo_jax.rl.metrics import describe

TYPICAL = "The seed of each run whose final return is nearest to the IQM."


def page(data: Mapping[str, Any], animations: Mapping[int, Animation | str]) -> str:
    """Write the page of runs as text.

    Args:
        data: the result of `run_data.collect`, with version, and `animation` in runs that have one.
        animations: by the run's place, pictures or the sentence with the reason for none.
    """
    numbers = Numbers(data)
    runs = data["runs"]
    by_env = grouped([run["env"] for run in runs])
    sections = [
        headline(numbers) if len(runs) == 1 else differences(by_env, data, numbers),
        learning(runs, by_env, episodes(runs, animations, numbers) if len(runs) == 1 else []),
        final_returns(runs, by_env, numbers),
        comparison(by_env, data, numbers),
        moving(runs, animations, numbers) if len(runs) > 1 else None,
        diagnostics(runs, by_env),
        run_setting.speed(runs, numbers),
        run_setting.settings(runs, numbers),
        run_setting.machines(runs, numbers),
    ]
    return parts.document(title_of(runs), subtitle_of(runs, numbers), sections, data)


def title_of(runs: Sequence[Mapping[str, Any]]) -> str:
    if len(runs) == 1:
        return f"{runs[0]['env']}, {runs[0]['objective']}"
    envs = list(dict.fromkeys(run["env"] for run in runs))
    if len(envs) == 1:
        return f"{envs[0]}: {len(runs)} runs"
    return f"{len(runs)} runs on {len(envs)} environments"


def subtitle_of(runs: Sequence[Mapping[str, Any]], numbers: Numbers) -> list[Child]:
    if len(runs) > 1:
        return [tag("p", ", ".join(run["label"] for run in runs))]
    run = runs[0]
    return [tag("p", f"Run {run['label']}"), tag("p", state_of(run), class_="state")]


def state_of(run: Mapping[str, Any]) -> str:
    """Describe in words how far the run has come."""
    summary = run["summary"]
    if summary is None:
        return "Not finished: still running, or killed (ppo-jax resume goes on with it)."
    if summary.get("stopped_by"):
        return (
            f"Stopped by {summary['stopped_by']}; not evaluated (ppo-jax resume goes on with it)."
        )
    if summary["num_failed"] == summary["num_seeds"]:
        return "Finished; every seed turned non-finite."
    return "Finished early." if summary.get("stopped_early") else "Finished."


def headline(numbers: Numbers) -> Html:
    """Show one run's main numbers as large tiles."""
    run = numbers.at("runs", 0)
    summary = run["summary"]
    at = ("runs", 0, "summary")
    tiles: list[tuple[str, Sequence[Child]]] = []
    if summary is not None and summary["final_return"]["iqm"] is not None:
        note = ["IQM of ", numbers.show("runs", 0, "num_seeds"), " seeds"]
        if run["num_seeds"] == 1:
            note = ["one seed"]
        final = (*at, "final_return")
        interval = numbers.interval(*final, "ci95")
        shown = [
            numbers.show(*final, "iqm"),
            small(*note, ", 95% " if interval else None, interval),
        ]
        tiles.append(("Final return", shown))
        mode = ["episodes a seed, ", summary["policy_mode"], " policy"]
        tiles.append(("Evaluated", [numbers.show(*at, "episodes_per_seed"), small(*mode)]))
    steps = [numbers.show("runs", 0, "env_steps")]
    total = ["a seed; ", numbers.show("runs", 0, "total_env_steps"), " in all"]
    tiles.append(("Environment steps", [*steps, small(*total)]))
    if summary is not None and summary.get("env_steps_per_second") is not None:
        seconds = numbers.show(*at, "train_seconds", form=",.1f", unit=" s")
        compiled = numbers.show(*at, "compile_seconds", form=",.1f", unit=" s")
        rate = [numbers.show(*at, "env_steps_per_second"), small("of all seeds, over ", seconds)]
        tiles.append(("Steps per second", rate))
        tiles.append(("Compiling", [compiled, small("tracing included")]))
    shown = [
        tag("div", tag("p", name, class_="name"), content, class_="tile") for name, content in tiles
    ]
    return tag("div", shown, class_="tiles")


def learning(runs: Sequence[Any], by_env: Mapping[str, list[int]], beside: Sequence[Html]) -> Html:
    """Draw training returns, all runs of an environment in one chart; `beside` it the episodes."""
    look = Look(y_label="Return of training episodes")
    figures = []
    for number, (env, places) in enumerate(by_env.items()):
        lines = [parts.line(runs[i]["label"], runs[i]["curve"]) for i in places]
        if len(lines) > 1:
            lines = [each._replace(seeds=()) for each in lines]
        heading = tag("h3", env) if len(by_env) > 1 else None
        drawn = charts.overlaid_or_many(f"curve-{number}", lines, look, "the other runs")
        figures.append(tag("div", heading, drawn, class_="chart-box"))
    few = any(run["num_seeds"] > 1 for run in runs)
    words = "Interquartile mean (IQM) over seeds and its 95% interval, the seed as unit"
    pale = "; pale: single seeds" if any(len(own) == 1 for own in by_env.values()) else ""
    note = f"{words}{pale}." if few else "One seed: there is no interval."
    shown = tag("div", figures, class_="charts")
    if beside:
        shown = tag("div", shown, beside, class_="beside")
    return section("Learning curves", small(note), shown)


def final_returns(runs: Sequence[Any], by_env: Mapping[str, list[int]], numbers: Numbers) -> Html:
    """Show the returns of whole episodes after training, and each seed's."""
    head = (
        "run",
        "objective",
        "IQM [95%]",
        "interval",
        "mean",
        "seeds",
        "failed",
        "policy",
        "episodes",
    )
    bodies = []
    for env, places in by_env.items():
        finals = [(runs[i]["summary"] or {}).get("final_return") or {} for i in places]
        ends = [end for final in finals for end in final.get("ci95") or [final.get("iqm")]]
        span = charts.span_of(ends)
        body: list[Sequence[Child]] = [(env,)] if len(by_env) > 1 else []
        body += [_final_row(i, runs[i], span, numbers) for i in places]
        bodies.append(body)
    seeds = []
    for i, run in enumerate(runs):
        scores = (run["summary"] or {}).get("final_return", {}).get("per_seed") or []
        at = ("runs", i, "summary", "final_return", "per_seed")
        shown = [tag("li", numbers.show(*at, k)) for k in range(len(scores))]
        if shown:
            seeds.append(tag("p", tag("b", run["label"])))
            seeds.append(
                tag("ol", shown, start=str(run["options"].get("seed") or 0), class_="seeds")
            )
    note = (
        "Mean return of whole episodes after training, by the policy named, with its trained "
        "normaliser. A seed that turned non-finite has failed and counts in neither mean."
    )
    every = details("The return of every seed", seeds) if seeds else None
    return section("Final return", small(note), table(head, *bodies, numeric=2), every)


def _final_row(i: int, run: Mapping[str, Any], span: Any, numbers: Numbers) -> list[Child]:
    at = ("runs", i, "summary")
    summary = run["summary"] or {}
    if not summary.get("episodes_per_seed"):
        return [run["label"], run["objective"], "not evaluated", "", "", "", "", "", ""]
    final = summary["final_return"]
    shown = [numbers.show(*at, "final_return", "iqm"), " "]
    return [
        run["label"],
        run["objective"],
        [*shown, numbers.interval(*at, "final_return", "ci95")],
        charts.whisker(span, final["iqm"], final["ci95"]),
        numbers.show(*at, "final_return", "mean"),
        numbers.show(*at, "num_seeds"),
        numbers.show(*at, "num_failed"),
        summary["policy_mode"],
        numbers.show(*at, "episodes_per_seed"),
    ]


def differences(
    by_env: Mapping[str, list[int]], data: Mapping[str, Any], numbers: Numbers
) -> Html | None:
    """Compare groups of runs with the first of them, as `ppo-jax compare` does."""
    shown: list[Child] = []
    for k, found in enumerate(data["comparisons"]):
        rows = found["groups"][1:]
        ends = [end for row in rows for end in row["difference_ci95"] or [row["difference"]]]
        span = charts.span_of([0.0, *ends])
        head = ("runs", "verdict", "IQM [95%]", f"minus {found['groups'][0]['label']} [95%]")
        head += ("0 at the line", "P(better)", "mean", "seeds", "seeds needed")
        body = [
            _difference_row(("comparisons", k, "groups", i), row, span, numbers)
            for i, row in enumerate(found["groups"])
        ]
        if len(by_env) > 1:
            shown.append(tag("h3", found["env"]))
        shown.append(table(head, body, numeric=2))
        shown.append(
            small("Margin: ", numbers.show("comparisons", k, "margin"), f", for {found['env']}.")
        )
        shown += [small(note) for note in found["notes"]]
    if not shown:
        return None
    note = (
        "Difference of the IQMs of the final returns. Equal: its interval lies within the margin, "
        "5% of the range of the environment's returns. Better and worse: it lies above or below 0. "
        "Undecided: neither; about as many seeds of each row as stated would decide. P(better): "
        "the probability that a seed of the row beats one of the first."
    )
    return section("Comparison", small(note), shown)


def _difference_row(
    at: tuple[str | int, ...], row: Mapping[str, Any], span: Any, numbers: Numbers
) -> list[Child]:
    mean = [numbers.show(*at, "iqm"), " ", numbers.interval(*at, "ci95")]
    shown: list[Child] = ["compared with", mean, "", "", ""]
    if at[-1] != 0:
        difference = numbers.show(*at, "difference", form="+.4g")
        shown = [
            tag("span", row["word"], class_=f"verdict {row['word']}"),
            mean,
            [difference, " ", numbers.interval(*at, "difference_ci95", form="+.4g")],
            charts.whisker(span, row["difference"], row["difference_ci95"], guides=(0.0,)),
            numbers.show(*at, "probability", form=".2f"),
        ]
    needed = "" if row["seeds_needed"] is None else numbers.show(*at, "seeds_needed")
    return [row["label"], *shown, numbers.show(*at, "mean"), numbers.show(*at, "num_seeds"), needed]


def comparison(
    by_env: Mapping[str, list[int]], data: Mapping[str, Any], numbers: Numbers
) -> Html | None:
    """Compare every pair of runs of an environment."""
    runs = data["runs"]
    shown: list[Child] = []
    for k, found in enumerate(data["improvements"]):
        labels = [runs[i]["label"] for i in found["runs"]]
        rows = [
            [labels[a]]
            + [
                numbers.show("improvements", k, "probability", a, b, form=".2f")
                for b in range(len(labels))
            ]
            for a in range(len(labels))
        ]
        if len(by_env) > 1:
            shown.append(tag("h3", found["env"]))
        shown.append(table(("row beats column", *labels), rows))
    if not shown:
        return None
    note = (
        "Probability that a seed of the row's run has a higher final return than a seed of the "
        "column's; equal returns count half (two decimals). 0.5 is no difference."
    )
    return section("Probability of improvement", small(note), shown)


def moving(
    runs: Sequence[Any], animations: Mapping[int, Animation | str], numbers: Numbers
) -> Html | None:
    """Show episodes of the trained policies."""
    figures = episodes(runs, animations, numbers)
    if not figures:
        return None
    return section("What was learnt", small(TYPICAL), tag("div", figures, class_="episodes"))


def episodes(
    runs: Sequence[Any], animations: Mapping[int, Animation | str], numbers: Numbers
) -> list[Html]:
    """Show the animation of each run, or the sentence with the reason for none."""
    figures = []
    for i, found in animations.items():
        label = runs[i]["label"] if len(runs) > 1 else runs[i]["env"]
        if isinstance(found, str):
            figures.append(tag("p", f"{label}: {found}", class_="small"))
            continue
        at = ("runs", i, "animation")
        note: list[Child] = [f"{label}, seed ", numbers.show(*at, "seed")]
        typical = (
            ", the one nearest to the IQM" if len(runs) == 1 and runs[i]["num_seeds"] > 1 else ""
        )
        note += [typical, " (final return ", numbers.show(*at, "final_return"), "), "]
        steps = numbers.at(*at, "episode_steps")
        note += [numbers.at(*at, "policy_mode"), " policy: "]
        if steps is None or steps > numbers.at(*at, "steps_shown"):
            note += ["the first ", numbers.show(*at, "steps_shown"), " steps of an episode"]
            note += [" of ", numbers.show(*at, "episode_steps")] if steps else []
        else:
            note += ["an episode of ", numbers.show(*at, "steps_shown"), " steps"]
        calm = "(prefers-reduced-motion: reduce), print"
        picture = tag(
            "picture",
            tag("source", media=calm, srcset=found.still),
            tag("img", src=found.image, alt=f"An episode of {label}"),
        )
        figures.append(tag("figure", picture, tag("figcaption", note), class_="episode"))
    return figures


def diagnostics(runs: Sequence[Any], by_env: Mapping[str, list[int]]) -> Html | None:
    """Draw the metrics that a report shows as small multiples."""
    shown: list[Child] = []
    for number, (env, places) in enumerate(by_env.items()):
        cells = []
        few = places[: charts.MAX_OVERLAID]
        logged = {name for i in few for name in runs[i]["diagnostics"]}
        for name in [*DIAGNOSTICS, *sorted(logged - set(DIAGNOSTICS))]:
            title, meaning, unit, *_ = describe(name)
            lines = [
                parts.line(runs[i]["label"], runs[i]["diagnostics"][name])
                if name in runs[i]["diagnostics"]
                else Line(runs[i]["label"], [], [])
                for i in few
            ]
            if not any(len(each.x) for each in lines):
                continue
            drawn = charts.lines(
                f"{name.replace('/', '-')}-{number}", lines, Look(y_label=title), SMALL
            )
            words = tag("span", subscripted(f"{meaning}, {unit}" if unit else meaning))
            caption = tag("figcaption", tag("b", subscripted(title)), " ", words)
            cells.append(tag("figure", caption, drawn))
        if cells:
            shown.append(tag("h3", env) if len(by_env) > 1 else None)
            if len(few) > 1:
                shown.append(charts.legend([runs[i]["label"] for i in few]))
            if len(places) > len(few):
                shown.append(small(f"The first {len(few)} of {len(places)} runs."))
            shown.append(tag("div", cells, class_="multiples"))
    if not shown:
        return None
    note = "IQM over seeds with its 95% interval, over environment steps per seed."
    return section("Diagnostics", small(note), shown)
