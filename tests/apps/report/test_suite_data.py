"""The page of a suite: stored results in, the same numbers and verdicts out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import Page, false_numbers

from ppo_jax.apps.report import suite_data, write
from ppo_jax.apps.reproduce import scoring, specs, store
from ppo_jax.apps.reproduce.cells import Cell
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.cli.main import main
from ppo_jax.config.errors import InputError

STORED = Path(__file__).parents[3] / "benchmarks/results/ppo-table-1_cpu_2026-11-30"
SUITE = """
title = "Made <up>"
about = '''
The `first` paragraph <b>.

The second one.
'''
[defaults]
seeds = 4
protocol = "training"
episodes = 20
total_env_steps = 640
quick_env_steps = 320
[defaults.config]
num_envs = 4
rollout_length = 8
num_epochs = 2
num_minibatches = 2
[[task]]
name = "CartPole-v1"
random = 0.0
best = 500.0
published = [{ table_id = "classic_rl_zoo", env = "CartPole", algorithm = "PPO" }]
[[task]]
name = "Pendulum-v1"
random = -1200.0
best = -150.0
[[variant]]
name = "high"
[[variant]]
name = "low"
hyper = { learning_rate = 0.0 }
note = "a <note> in `code`"
[[claim]]
higher = "high"
lower = "low"
source = "a <source>"
"""
ENDS = {  # around which the four seeds of a cell lie
    "CartPole-v1/high": 510.0,
    "CartPole-v1/low": 300.0,
    "Pendulum-v1/high": -160.0,
    "Pendulum-v1/low": -900.0,
}


def scores_of(cell: Cell) -> list[float]:
    return [ENDS[cell.name] + offset for offset in (-3.0, -1.0, 1.0, 3.125)]


def content_of(cell: Cell, seeds: int = 4) -> dict[str, Any]:
    """A cell's file, as `records.record` lays it out."""
    scores = scores_of(cell)[:seeds]
    return {
        "format": store.FORMAT,
        "suite": cell.suite,
        "task": cell.task,
        "variant": cell.variant,
        "env": cell.config.env,
        "objective": cell.config.objective,
        "is_quick": cell.is_quick,
        "env_steps": cell.config.trained_env_steps,
        "full_env_steps": cell.full_env_steps,
        "protocol": "mean return of the last 20 training episodes",
        "seeds": [
            {
                "seed": seed,
                "score": score,
                "training_return": score,
                "is_alive": True,
                "curve": [None, score / 2, score],
            }
            for seed, score in enumerate(scores)
        ],
        "curve_env_steps": [32, 320, 640],
        "setting": store.setting_of(cell),
        "random": cell.random,
        "best": cell.best,
        "published": [reference._asdict() for reference in cell.published],
        "note": cell.note,
        "batches": [
            {
                "seeds": list(range(seeds)),
                "diagnostics": {},
                "compile_seconds": 3.25,
                "train_seconds": 10.5,
                "train_cpu_seconds": 9.75,
                "evaluation_seconds": 0.0,
                "runs_side_by_side": 16,
                "env_steps_per_second": 98_765,
                "fingerprint": {"platform": "cpu", "processor": "A <processor>", "cores": 2},
                "manifest": {
                    "versions": {"jax": "0.10.2"},
                    "python": "3.11.7",
                    "machine": "x86_64",
                    "cores": 2,
                    "devices": ["cpu:cpu"],
                    "xla_flags": "",
                    "git": "abc",
                },
                "date": "2026-01-02",
            }
        ],
    }


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "made-up.toml"
    path.write_text(SUITE, "utf-8")
    return path


@pytest.fixture
def results(spec: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    for cell in specs.load(str(spec)).cells:
        store.write_result(folder, cell, content_of(cell))
    return folder


def cell_of(spec: Path, name: str) -> Cell:
    return next(cell for cell in specs.load(str(spec)).cells if cell.name == name)


def page_of(spec: Path, results: Path, **given: Any) -> Page:
    out = spec.parent / "page.html"
    write.report(spec, out, results=results, force=True, **given)
    return Page(out.read_text("utf-8"))


def test_every_number_is_one_of_the_data_and_these_follow_from_the_seeds(
    spec: Path, results: Path
) -> None:
    page = page_of(spec, results)
    assert false_numbers(page) == []
    by_name = {cell["cell"]: cell for cell in page.data["cells"]}
    assert set(by_name) == set(ENDS)
    for name, cell in by_name.items():
        expected = scores_of(cell_of(spec, name))
        assert cell["per_seed"] == expected
        assert cell["iqm"] == pytest.approx(np.mean(expected[1:3]))  # a quarter is cut off a side
        assert cell["mean"] == pytest.approx(np.mean(expected))
    high = page.data["variants"][0]
    at_one = np.array(scores_of(cell_of(spec, "CartPole-v1/high"))) / 500
    at_other = (np.array(scores_of(cell_of(spec, "Pendulum-v1/high"))) + 1200) / 1050
    assert high["mean"] == pytest.approx(np.mean([at_one, at_other]))
    assert page.data["claims"][0]["probability"] == 1.0
    shown = {pointer for pointer, _, _ in page.numbers}
    for i in range(4):
        wanted = [f"/cells/{i}/{name}" for name in ("iqm", "mean", "ci95/0", "ci95/1", "num_seeds")]
        assert {*wanted, *(f"/cells/{i}/per_seed/{k}" for k in range(4))} <= shown
    assert {"/variants/1/optimality_gap", "/claims/0/probability", "/claims/0/ci95/0"} <= shown
    assert "/cells/0/published/0/value" in shown


def test_verdicts_and_their_counts_are_those_of_the_scores(spec: Path, results: Path) -> None:
    page = page_of(spec, results)
    assert [cell["verdict"] for cell in page.data["cells"]] == [
        "equal (higher by less than the margin)",
        *("worse", "–", "–"),
    ]
    for words in (
        "1 of 2 published values: equal",
        "1 of 2 published values: worse",
        "1 of 1 published orders: better",
        "4 cells measured",
    ):
        assert words in page.text


def test_words_of_a_suite_cannot_become_markup(spec: Path, results: Path) -> None:
    page = page_of(spec, results)
    for words in ("Made <up>", "paragraph <b>.", "a <note> in ", "a <source>", "A <processor>"):
        assert words in page.text
    assert page.tags.count("script") == 1
    assert {"up", "note", "source"} & set(page.tags) == set()
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert all(link.startswith("data:") for link in page.links)


def test_profiles_are_shares_of_runs_above_a_score(spec: Path, results: Path) -> None:
    profiles = page_of(spec, results).data["profiles"]
    for name, curve in profiles.items():
        scores = np.concatenate(
            [
                scoring.normalised(cell, scores_of(cell))
                for cell in specs.load(str(spec)).cells
                if cell.variant == name
            ]
        )
        expected = [(scores > threshold).mean() for threshold in curve["score"]]
        # Thresholds are kept to six digits, which may move one over a score.
        np.testing.assert_allclose(curve["share"], expected, atol=1 / len(scores))
        assert np.mean(np.array(curve["share"]) == expected) > 0.9
        assert (np.array(curve["low"]) <= curve["share"]).all()
        assert (np.array(curve["share"]) <= curve["high"]).all()


def test_missing_cells_and_seeds_are_said_and_get_no_verdict(spec: Path, results: Path) -> None:
    cell = cell_of(spec, "CartPole-v1/high")
    store.write_result(results, cell, content_of(cell, seeds=3))
    store.file_of(results, cell_of(spec, "Pendulum-v1/low")).unlink()
    page = page_of(spec, results)
    assert page.data["cells"][0]["verdict"] == "– (1 seeds missing)"
    assert ("/cells/0/wanted_seeds", "4", "4") in page.numbers
    assert page.data["lacking"] == ["Pendulum-v1/low"]
    assert "1 cell without a result" in page.text
    assert page.data["variants"] == []
    assert false_numbers(page) == []


def test_seeds_beyond_those_of_the_spec_are_in_no_number_and_no_curve(
    spec: Path, results: Path
) -> None:
    before = page_of(spec, results).data["cells"][0]
    cell = cell_of(spec, "CartPole-v1/high")
    content = content_of(cell)
    content["seeds"].insert(0, {**content["seeds"][0], "seed": 4, "score": 0.0, "curve": [0] * 3})
    store.write_result(results, cell, content)
    assert page_of(spec, results).data["cells"][0] == before
    assert before["seeds"] == [0, 1, 2, 3]


def test_a_file_with_another_number_is_told_and_not_used(spec: Path, results: Path) -> None:
    path = store.file_of(results, cell_of(spec, "CartPole-v1/low"))
    path.write_text(path.read_text("utf-8").replace('"score": 299.0', '"score": 599.0'), "utf-8")
    page = page_of(spec, results)
    assert "CartPole-v1/low" not in [cell["cell"] for cell in page.data["cells"]]
    assert "is damaged: its content is not what was written" in page.text


def test_results_of_smaller_budgets_are_marked_as_such(spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quick"
    folder.mkdir()
    for cell in specs.load(str(spec), is_quick=True).cells:
        store.write_result(folder, cell, content_of(cell))
    page = page_of(spec, folder, quick=True)
    assert "Quick: smaller budgets" in page.text
    assert ("/cells/0/full_env_steps", "640", "640") in page.numbers
    assert page.data["cells"][0]["verdict"] == "equal (quick)"
    with pytest.raises(
        InputError, match=r"holds no result of made-up that can be used\. .*total_env_steps"
    ):
        page_of(spec, folder)


def test_a_folder_of_a_suite_that_is_not_known_asks_for_its_file(results: Path, capsys) -> None:
    assert main(["report", str(results)]) == 2
    assert "give its file, `ppo-jax report FILE.toml --results" in capsys.readouterr().err


def test_the_newest_folder_is_taken_whatever_the_platform(
    results: Path, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RESULTS", tmp_path / "stored")
    (tmp_path / "stored").mkdir()
    for name in ("made-up_cpu_2026-01-03", "made-up_gpu_2026-01-04", "made-up_tpu_2026-01-02"):
        (tmp_path / "stored" / name).symlink_to(results)
    assert suite_data.find(str(spec), None, False).folder.name == "made-up_gpu_2026-01-04"
    with pytest.raises(InputError, match=r"reproduce .* --quick` first"):
        suite_data.find(str(spec), None, True)


def test_settings_are_split_into_common_and_own() -> None:
    setting = {"config": {"a": 1, "b": [2]}, "hyper": {"c": 3.0, "env": {"g": 9.0}}, "episodes": 5}
    other = {"config": {"a": 1, "b": [3]}, "hyper": {"c": 3.0, "env": {}}, "episodes": 5}
    common, own = suite_data.common_and_own({"x": setting, "y": other})
    assert common == {"a": 1, "c": 3.0, "episodes": 5}
    assert own == {"x": {"b": [2], "env.g": 9.0}, "y": {"b": [3]}}


def rounded(tree: Any) -> Any:
    """Real numbers to 12 digits: the last bits of an interval differ from machine to machine."""
    if isinstance(tree, dict):
        return {name: rounded(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return float(f"{tree:.12g}") if isinstance(tree, float) else tree


def test_the_stored_table_1_is_reported_with_the_numbers_of_its_summary(tmp_path: Path) -> None:
    done = write.report(STORED, tmp_path / "a.html")
    assert done["bytes"] < 3_000_000
    page = Page((tmp_path / "a.html").read_text("utf-8"))
    assert false_numbers(page) == []
    stored = json.loads((STORED / "summary.json").read_text("utf-8"))
    names = ("iqm", "mean", "ci95", "per_seed", "verdict", "num_seeds")
    shown, kept = ([[c[n] for n in names] for c in data["cells"]] for data in (page.data, stored))
    assert rounded(shown) == rounded(kept)
    assert rounded(page.data["variants"]) == rounded(stored["variants"])
    assert rounded(page.data["claims"]) == rounded(stored["claims"])
    assert len(page.ids) == len(set(page.ids))
    assert len([tag for tag in page.tags if tag == "svg"]) >= 75


def test_find_takes_a_folder_or_a_name_but_not_both(tmp_path: Path) -> None:
    place = suite_data.find(str(STORED), None, False)
    assert isinstance(place.suite, Suite)
    assert (place.suite.name, place.folder) == ("ppo-table-1", STORED)
    with pytest.raises(InputError, match="is a folder itself"):
        suite_data.find(str(STORED), tmp_path, False)
    with pytest.raises(InputError, match="holds no result of a suite that can be read"):
        suite_data.find(str(tmp_path), None, False)
