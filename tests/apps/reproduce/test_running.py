"""`ppo-jax reproduce` from the spec to the verdict, on a suite that trains within seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import programs_are_kept

from ppo_jax.analysis import stats
from ppo_jax.apps.reproduce import records, running, specs, store, training
from ppo_jax.apps.reproduce.running import Request
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.cli.main import main
from ppo_jax.config.errors import InputError
from ppo_jax.storage import lock
from ppo_jax.training import schedules, trainer

SUITE = """
title = "Walks"
about = "For tests."
[defaults]
seeds = 3
protocol = "training"
episodes = 20
total_env_steps = 640
quick_env_steps = 320
[defaults.config]
num_envs = 4
rollout_length = 8
num_epochs = 2
num_minibatches = 2
hidden_sizes = [8]
[[task]]
name = "tiny:Walk"
random = -8.0
best = -1.0
[[variant]]
name = "fast"
hyper = { learning_rate = 0.02 }
[[variant]]
name = "never"
hyper = { learning_rate = 0.0 }
[[claim]]
higher = "fast"
lower = "never"
source = "none"
"""
# No walk returns anything positive, so that 500, CartPole's best, is out of reach.
UNREACHED = """
[[cell]]
task = "tiny:Walk"
variant = "unreached"
published = [{ table_id = "classic_rl_zoo", env = "CartPole", algorithm = "PPO" }]
"""


@pytest.fixture(scope="module", autouse=True)
def kept_programs():
    with programs_are_kept():
        yield


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "walks.toml"
    path.write_text(SUITE, "utf-8")
    return path


@pytest.fixture(scope="module")
def suite(spec: Path) -> Suite:
    return specs.load(str(spec))


@pytest.fixture(scope="module")
def finished(suite: Suite, tmp_path_factory) -> tuple[Path, running.Reproduced]:
    """A folder with every cell, and what was said at its end."""
    folder = tmp_path_factory.mktemp("results") / "walks"
    return folder, running.reproduce(Request((suite,), out=str(folder)), silent)


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(finished[0], tmp_path / "walks")


def silent(line: str) -> None:
    del line


def again(suite: Suite, folder: Path, **changes: Any) -> tuple[running.Reproduced, list[str]]:
    said: list[str] = []
    return running.reproduce(Request((suite,), out=str(folder), **changes), said.append), said


def cell_of(result: running.Reproduced, name: str) -> dict[str, Any]:
    return next(c for c in result.data["suites"][0]["cells"] if c["cell"] == f"tiny:Walk/{name}")


def held(folder: Path, suite: Suite, index: int) -> dict[str, Any]:
    content = store.read_result(folder, suite.cells[index]).content
    assert content is not None
    return content


@pytest.fixture
def nothing_trains(monkeypatch):
    def fail(*_: Any) -> None:
        raise AssertionError("something was trained again")

    monkeypatch.setattr(training, "train_jobs", fail)


def test_every_cell_has_its_seeds_scores_and_interval(finished):
    _, result = finished
    assert result.exit_code == 0
    for name in ("fast", "never"):
        cell = cell_of(result, name)
        assert len(cell["per_seed"]) == 3
        assert cell["iqm"] == pytest.approx(stats.iqm(cell["per_seed"]))
        assert cell["ci95"][0] <= cell["iqm"] <= cell["ci95"][1]
    assert cell_of(result, "fast")["mean"] > cell_of(result, "never")["mean"]
    assert result.data["suites"][0]["claims"][0]["verdict"] == "better"


def test_members_of_a_pack_train_as_their_settings_say(suite, finished):
    # The reference is the plain scan over `iterate`, seed by seed, outside of any pack.
    for index in (0, 1):
        cell = suite.cells[index]
        seeds = held(finished[0], suite, index)["seeds"]
        import jax

        state, rows = jax.jit(
            lambda hyper, key, config=cell.config: trainer.train(config, hyper, key)
        )(schedules.as_arrays(cell.config, cell.hyper), jax.random.key(1))
        del state
        totals, counts = (np.asarray(rows[n]) for n in ("episode_return_sum", "num_episodes"))
        curve = [t / n if n else None for t, n in zip(totals, counts, strict=True)]
        # Programs of different width differ by rounding, which grows: the first half is compared.
        for ours, theirs in list(zip(seeds[1]["curve"], curve, strict=True))[:10]:
            assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_result_holds_what_a_report_needs(finished, suite):
    content = held(finished[0], suite, 0)
    assert content["env_steps"] == 640
    assert len(content["curve_env_steps"]) == len(content["seeds"][0]["curve"]) == 20
    batch = content["batches"][0]
    assert batch["seeds"] == [0, 1, 2]
    assert batch["runs_side_by_side"] == 6
    assert batch["train_seconds"] > 0
    assert {"jax", "numpy"} <= set(batch["manifest"]["versions"])
    assert {"cores", "processor"} <= set(batch["fingerprint"])
    assert len(batch["diagnostics"]["kl_old_new"]) == 20
    assert content["setting"]["hyper"]["learning_rate"] == 0.02


def test_a_table_and_a_picture_are_left_in_the_folder(finished):
    text = (finished[0] / "README.md").read_text("utf-8")
    assert "| tiny:Walk/fast |" in text
    assert "(quick" not in text
    assert (finished[0] / "normalised_scores.svg").read_text("utf-8").startswith("<?xml")
    summary = json.loads((finished[0] / "summary.json").read_text("utf-8"))
    assert summary == finished[1].data["suites"][0]


def test_what_is_finished_is_not_run_again(suite, folder, finished, nothing_trains):
    result, _ = again(suite, folder)
    assert cell_of(result, "fast") == cell_of(finished[1], "fast")


def test_one_cell_alone_keeps_the_other_cells_in_the_stored_table(spec, folder, finished):
    files = ("summary.json", "README.md")
    before = [(folder / name).read_text("utf-8") for name in files]
    (one,) = specs.select([str(spec)])
    result, _ = again(one._replace(cells=one.cells[:1]), folder)
    assert len(result.data["suites"][0]["cells"]) == 1
    after = [(folder / name).read_text("utf-8") for name in files]
    assert [text.replace(str(folder), str(finished[0])) for text in after] == before


def test_only_missing_seeds_are_run(suite, folder):
    cell, content = suite.cells[0], held(folder, suite, 0)
    kept = [seed for seed in content["seeds"] if seed["seed"] != 1]
    store.write_result(folder, cell, {**content, "seeds": kept})
    shown, _ = again(suite, folder, is_show=True)
    assert len(cell_of(shown, "fast")["per_seed"]) == 2
    assert shown.data["suites"][0]["claims"][0]["verdict"] == "– (not measured)"
    again(suite, folder)
    after = held(folder, suite, 0)
    assert [batch["seeds"] for batch in after["batches"]] == [[0, 1, 2], [1]]
    assert [seed["seed"] for seed in after["seeds"]] == [0, 1, 2]
    assert after["seeds"][0] == content["seeds"][0]


def test_a_damaged_file_gives_no_verdict_and_is_set_aside_and_run_again(suite, folder, finished):
    path = store.file_of(folder, suite.cells[1])
    path.write_text(path.read_text("utf-8").replace('"score": -', '"score": 9', 1), "utf-8")
    shown, _ = again(suite, folder, is_show=True)
    assert shown.data["suites"][0]["lacking"] == ["tiny:Walk/never"]
    assert "damaged" in shown.data["suites"][0]["notes"][0]
    assert path.exists()
    result, said = again(suite, folder)
    assert any("set-aside-1" in line for line in said)
    assert path.with_name(path.name + ".set-aside-1").exists()
    for ours, before in zip(
        cell_of(result, "never")["per_seed"], cell_of(finished[1], "never")["per_seed"], strict=True
    ):
        assert ours == pytest.approx(before, rel=1e-4)  # it learns nothing, so nothing drifts


def test_a_spec_that_changed_is_told_and_its_old_result_not_used(suite, folder, nothing_trains):
    changed = [cell._replace(episodes=7) for cell in suite.cells]
    shown, _ = again(suite._replace(cells=tuple(changed)), folder, is_show=True)
    assert shown.data["suites"][0]["cells"] == []
    assert "episodes was 20 and is 7" in shown.data["suites"][0]["notes"][0]


def test_a_stopped_run_keeps_what_is_finished_and_judges_nothing_else(suite, tmp_path):
    out = tmp_path / "stopped"
    result, _ = again(suite, out, time_limit=0.0)
    assert result.exit_code == 75
    assert "run it again" in result.lines[-1]
    assert list(out.glob("*__*.json")) == []
    assert result.data["suites"][0]["lacking"] == ["tiny:Walk/fast", "tiny:Walk/never"]
    assert result.data["suites"][0]["claims"][0]["verdict"] == "– (not measured)"


def test_two_at_once_in_one_folder_are_refused(suite, folder):
    with lock.held(folder), pytest.raises(InputError, match="is being written by process"):
        again(suite, folder)


def test_a_quick_run_is_marked_everywhere(spec, tmp_path):
    out = tmp_path / "quick"
    quick = specs.load(str(spec), is_quick=True)
    result, said = again(quick, out, is_quick=True)
    assert "of 640 (quick)" in next(line for line in result.lines if "Walk/fast" in line)
    assert any("of 640 (quick)" in line for line in said)
    assert "(quick" in (out / "README.md").read_text("utf-8").splitlines()[0]
    assert result.data["suites"][0]["is_quick"]
    content = store.read_result(out, quick.cells[0]).content
    assert content is not None
    assert (content["is_quick"], content["env_steps"]) == (True, 320)
    assert "(quick)" in result.data["suites"][0]["claims"][0]["verdict"]


def test_a_score_below_the_published_one_exits_with_3(spec, finished, tmp_path, capsys):
    path = tmp_path / "walks.toml"
    path.write_text(SUITE.partition("[[task]]")[0] + UNREACHED, "utf-8")
    code = main(["reproduce", str(path), "--out", str(tmp_path / "out"), "--trust", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == 3
    assert answer["suites"][0]["cells"][0]["verdict"] == "worse"
    assert answer["suites"][0]["cells"][0]["share_reached"] == 0.0


def test_check_finds_a_regression_and_passes_what_is_equal(suite, folder, monkeypatch, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(folder, root / "walks_cpu_2026-01-01")
    monkeypatch.setattr(store, "RESULTS", root)
    same, _ = again(suite, folder, is_check=True)
    assert same.exit_code == 0
    assert not any(c["is_regression"] for c in same.data["suites"][0]["check"]["cells"])
    for index in (0, 1):  # stored results that were far better
        content = held(folder, suite, index)
        better = [{**seed, "score": seed["score"] + 5.0} for seed in content["seeds"]]
        store.write_result(
            root / "walks_cpu_2026-01-01", suite.cells[index], {**content, "seeds": better}
        )
    worse, _ = again(suite, folder, is_check=True)
    assert worse.exit_code == 3
    assert sum(line.startswith("regression: ") for line in worse.lines) == 2


def test_check_tells_of_failed_seeds_and_of_cells_that_it_cannot_compare(
    suite, folder, monkeypatch, tmp_path
):
    root = tmp_path / "results"
    there = shutil.copytree(folder, root / "walks_cpu_2026-01-01")
    monkeypatch.setattr(store, "RESULTS", root)
    content = held(folder, suite, 0)
    failed = [{**seed, "score": None} for seed in content["seeds"]]
    store.write_result(folder, suite.cells[0], {**content, "seeds": failed})
    store.file_of(there, suite.cells[1]).unlink()
    result, _ = again(suite, folder, is_check=True)
    assert result.exit_code == 3
    checked = result.data["suites"][0]["check"]
    assert [each["num_failed"] for each in checked["cells"]] == [3]
    assert checked["not_compared"] == ["tiny:Walk/never"]
    assert any("IQM none" in line and "3 seeds failed" in line for line in result.lines)
    assert any(line.startswith("not compared: 1 cells (tiny:Walk/never)") for line in result.lines)
    assert any(line.startswith("failed seeds: tiny:Walk/fast 3 of 3") for line in result.lines)


def test_check_wants_results_of_the_same_class_of_machine(suite, folder, monkeypatch, tmp_path):
    root = tmp_path / "results"
    other = shutil.copytree(folder, root / "walks_cpu_2026-01-01")
    monkeypatch.setattr(store, "RESULTS", root)
    for index in (0, 1):
        content = held(folder, suite, index)
        content["batches"][0]["fingerprint"]["processor"] = "another one"
        store.write_result(other, suite.cells[index], content)
    with pytest.raises(InputError, match="no stored results of walks from a machine like this"):
        again(suite, folder, is_check=True)


def test_results_of_another_machine_are_shown_and_not_gone_on_with(
    suite, folder, monkeypatch, tmp_path
):
    root = tmp_path / "results"
    there = shutil.copytree(folder, root / "walks_cpu_2026-01-01")
    monkeypatch.setattr(store, "RESULTS", root)
    assert running.folder_of(Request((suite,)), suite) == there
    store.file_of(there, suite.cells[1]).unlink()
    lacking = suite._replace(cells=suite.cells[1:2])  # its result joins those of the other cells
    assert running.folder_of(Request((lacking,)), lacking) == there
    content = held(folder, suite, 0)
    content["batches"][0]["fingerprint"]["cores"] = 99
    store.write_result(there, suite.cells[0], content)
    assert running.folder_of(Request((suite,)), suite) != there
    assert running.folder_of(Request((suite,), is_show=True), suite) == there
    shown = running.reproduce(Request((suite,), is_show=True), silent)
    assert any("99 cores" in line for line in shown.lines)


def test_packs_hold_cells_that_differ_in_numbers_only():
    suite = specs.load("ppo-table-1")
    jobs = [
        training.Job(cell, tuple(range(10))) for cell in suite.cells if cell.task == "Reacher-misc"
    ]
    found = [[job.cell.variant for job in pack] for pack in training.packs(jobs)]
    assert found == [
        ["none"],
        ["clip-0.1", "clip-0.2", "clip-0.3"],
        [
            *("adaptive-kl-0.003", "adaptive-kl-0.01", "adaptive-kl-0.03"),
            *("fixed-kl-0.3", "fixed-kl-1", "fixed-kl-3", "fixed-kl-10"),
        ],
        ["pg"],
        ["trpo"],
        ["dpo"],
        ["spo"],
    ]


def test_packs_do_not_grow_beyond_their_bound(suite):
    many = [training.Job(suite.cells[0], tuple(range(i, i + 100))) for i in range(0, 500, 100)]
    sizes = [sum(len(job.seeds) for job in pack) for pack in training.packs(many)]
    assert sizes == [200, 200, 100]


def test_curves_are_means_over_the_episodes_of_their_window():
    rows = {
        "episode_return_sum": np.array([[2.0, 4.0, 0.0, 9.0]]),
        "num_episodes": np.array([[1, 1, 0, 3]]),
    }
    assert records.episode_curves(rows, np.array([2, 4])) == [[3.0, 3.0]]
    assert records.episode_curves(rows, np.array([1, 2, 3, 4])) == [[2.0, 4.0, None, 3.0]]
    edges = records.curve_edges(98)
    assert len(edges) == 50
    assert edges[-1] == 98
    assert np.all(np.diff(edges) > 0)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["clasic"], "Nearest: classic"),
        (["classic", "--seeds", "none"], "must be a whole number"),
        (["classic", "--seeds", "0"], "at least 1"),
        (["classic", "--seeds", "1e9"], "seeds=1000000000 must be at most 1048576"),
        (["classic", "--show", "--check"], "give one of them"),
        (["classic", "--platform", "cup"], "Nearest: cpu"),
        (["classic", "--show", "--out", "no/such/folder"], "There are no results"),
        (["classic", "--show", "--quick"], "no quick results of classic on cpu in"),
        (["classic", "--time-limit", "-1"], "time_limit=-1 must be a number of more than 0."),
        (["classic", "--time-limit", "0"], "time_limit=0 must be a number of more than 0."),
        (["classic", "--time-limit", "nan"], "time_limit=nan must be a number of more than 0."),
        (["classic", "--time-limit", "inf"], "time_limit=inf must be a number of more than 0."),
        (["classic", "--time-limit", "soon"], "time_limit='soon' must be a number"),
        (["classic", "bsuite", "--out", "folder"], "leave it out for several"),
        (["classic", "--quik"], "--quick"),
    ],
)
def test_bad_words_are_one_sentence_and_exit_code_2(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_spec_the_suites_are_listed(capsys):
    assert main(["reproduce", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["suites"]
    assert [each["suite"] for each in listed] == specs.names()
