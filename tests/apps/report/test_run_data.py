"""Run folders as a page's data: what is read, computed, and refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import make_run

from ppo_jax.analysis import stats, thinning
from ppo_jax.apps.report import run_data
from ppo_jax.config.errors import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    make_run(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_the_data_hold_what_the_files_hold(made: Path) -> None:
    run = run_data.read(made, "label")
    assert run["summary"] == json.loads((made / "summary.json").read_text("utf-8"))
    assert run["manifest"] == json.loads((made / "manifest.json").read_text("utf-8"))
    config = json.loads((made / "config.json").read_text("utf-8"))
    assert [run[name] for name in ("config", "hyper", "options")] == [
        config[name] for name in ("config", "hyper", "options")
    ]
    assert (run["env_steps"], run["total_env_steps"], run["num_seeds"]) == (40960, 163840, 4)


def test_fields_that_an_earlier_version_did_not_record_have_their_defaults(folder: Path) -> None:
    recorded = json.loads((folder / "config.json").read_text("utf-8"))
    del recorded["config"]["optimizer"], recorded["hyper"]["momentum"]
    (folder / "config.json").write_text(json.dumps(recorded), "utf-8")
    run = run_data.read(folder, "label")
    assert (run["config"]["optimizer"], run["hyper"]["momentum"]) == ("adam", 0.0)


def test_the_curve_is_the_iqm_of_the_logged_returns(made: Path) -> None:
    run = run_data.read(made, "label")
    rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert run["curve"]["env_steps"] == [row["env_steps"] for row in rows]
    expected = [stats.iqm(row["episode_return"]) for row in rows]
    np.testing.assert_allclose(run["curve"]["iqm"], expected, rtol=1e-5)
    assert np.shape(run["curve"]["per_seed"]) == (4, 40)
    low, high = np.array(run["curve"]["low"]), np.array(run["curve"]["high"])
    assert (low <= expected).all()
    assert (expected <= high).all()


def test_diagnostics_are_those_that_were_logged_and_that_moved(made: Path) -> None:
    found = run_data.read(made, "label")["diagnostics"]
    assert list(found) == ["kl_old_new", "entropy"]  # the learning rate stood still
    np.testing.assert_allclose(found["entropy"]["iqm"][0], 0.695, rtol=1e-5)


def test_thinning_averages_neighbours_over_what_is_known() -> None:
    steps, values = run_data.thinned(
        np.array([1.0, 2.0, 3.0]), np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 7.0]]), 2
    )
    np.testing.assert_array_equal(steps, [1.5, 3.0])
    np.testing.assert_array_equal(values, [[2.0, np.nan], [5.0, 7.0]])


def test_a_run_that_is_not_over_is_read_up_to_its_last_row(folder: Path) -> None:
    (folder / "summary.json").unlink()
    (folder / "timing.jsonl").unlink()
    run = run_data.read(folder, "label")
    assert (run["summary"], run["speed"], run["env_steps"]) == (None, None, 40960)


@pytest.mark.parametrize(
    "name, words",
    [
        ("metrics.jsonl", r"has no metrics\.jsonl"),
        ("config.json", r"config\.json' cannot be read: No such file"),
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=words):
        run_data.read(folder, "label")


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("metrics.jsonl", "", "has no rows yet"),
        ("metrics.jsonl", '{"env_steps": 1}\n', "line 1 lacks a number for each"),
        (
            "metrics.jsonl",
            '{"env_steps": 1, "episode_return": [1, 2, 3, "4"]}\n',
            "line 1 lacks a number for each",
        ),
        ("metrics.jsonl", "{\n", "line 1 is not a JSON object"),
        ("summary.json", "{", "is damaged"),
        ("summary.json", "[]", "must be a table"),
        ("summary.json", '{"final_return": 3}', "damaged: its content lacks 'env'"),
        ("config.json", '{"format": 99}', "has format 99"),
        ("config.json", '{"format": 1, "config": {}}', "damaged: config lacks 'env'"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(
    folder: Path, name: str, text: str, words: str
) -> None:
    (folder / name).write_text(text, "utf-8")
    with pytest.raises(InputError, match=words) as error:
        run_data.read(folder, "label")
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["iqm", "mean"])
def test_a_summary_that_contradicts_its_seeds_is_refused(folder: Path, name: str) -> None:
    final = json.loads((folder / "summary.json").read_text("utf-8"))["final_return"]
    rewritten(folder / "summary.json", final_return={**final, name: final[name] + 0.01})
    with pytest.raises(InputError, match=f"its {name} is .*, but its seeds give"):
        run_data.read(folder, "label")


def test_names_tell_runs_apart_and_none_comes_twice(made: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(made, tmp_path / "one"))
    labels = [run["label"] for run in run_data.collect([made, other])["runs"]]
    assert labels == [str(made), str(other)]
    assert run_data.collect([made])["runs"][0]["label"] == "one"
    with pytest.raises(InputError, match="is named twice"):
        run_data.collect([made, made / ".." / "one"])
    with pytest.raises(InputError, match="give at most 24"):
        run_data.collect([made] * 25)


def test_rows_are_thinned_while_they_are_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "MAX_ROWS", 4)
    rows = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    size = 2 ** math.ceil(math.log2(len(rows) / 4))
    steps = [row["env_steps"] for row in rows]
    run = run_data.read(made, "label")
    means = [np.mean(steps[i : i + size]) for i in range(0, len(steps), size)]
    assert run["curve"]["env_steps"] == means
    assert len(run["diagnostics"]["entropy"]["env_steps"]) == len(means) <= 4
    assert run["env_steps"] == steps[-1]


def test_an_environments_own_metrics_have_charts_if_they_move() -> None:
    rows = [
        {"env_steps": step, "episode_return": [1.0], "env/coal": [coal], "env/iron": [0.0]}
        for step, coal in ((8, None), (16, 2.0), (24, 4.0))
    ]
    found = run_data.diagnostics(rows)
    assert list(found) == ["env/coal"]
    assert found["env/coal"]["iqm"][-2:] == [2.0, 4.0]
