"""Result files: what is damaged, of another setting or of another cell is not believed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppo_jax.apps.reproduce import specs, store
from ppo_jax.apps.reproduce.cells import Cell

CELL = specs.load("ppo-table-1").cells[1]


def content_of(cell: Cell) -> dict[str, Any]:
    return {
        "format": store.FORMAT,
        "suite": cell.suite,
        "task": cell.task,
        "variant": cell.variant,
        "seeds": [{"seed": seed, "score": -100.0 - seed, "curve": [1.5]} for seed in range(10)],
        "setting": store.setting_of(cell),
        "protocol": "words",
        "note": "",
        "random": None,
        "best": None,
        "curve_env_steps": [8],
        "batches": [],
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store.write_result(tmp_path, CELL, content_of(CELL))


def problem(path: Path, cell: Cell = CELL) -> str:
    found = store.read_result(path.parent, cell)
    assert found.content is None
    assert found.problem is not None
    return found.problem


def rewritten(path: Path, change: dict[str, Any]) -> Path:
    """The file with other content and a fitting checksum, as an editor with care would leave it."""
    content = json.loads(path.read_text("utf-8"))
    return store.write_result(path.parent, CELL, {**content, **change})


def test_what_was_written_is_read(path):
    found = store.read_result(path.parent, CELL)
    assert found.problem is None
    assert found.content is not None
    assert found.content["seeds"] == content_of(CELL)["seeds"]
    assert found.seeds == tuple(range(10))


def test_no_file_is_no_problem(tmp_path):
    assert store.read_result(tmp_path, CELL) == store.Stored(None, None)


def test_every_flipped_bit_of_a_file_is_seen(path):
    data = path.read_bytes()
    generator = np.random.default_rng(0)
    read_back = 0
    for _ in range(300):
        place, bit = generator.integers(len(data)), generator.integers(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        path.write_bytes(bytes(flipped))
        found = store.read_result(path.parent, CELL)
        if found.content is not None:  # white space between two entries may change
            read_back += 1
            assert found.content == json.loads(data)
    assert read_back < 15


@pytest.mark.parametrize("size", [0, 1, 500, -3])
def test_a_cut_file_is_seen(path, size):
    path.write_bytes(path.read_bytes()[:size])
    assert "cannot be read" in problem(path)


def test_a_changed_number_is_seen(path):
    path.write_text(path.read_text("utf-8").replace("-104.0", "-14.0"), "utf-8")
    assert "damaged" in problem(path)


def test_another_setting_is_named(path):
    changed = CELL._replace(config=dataclasses.replace(CELL.config, num_epochs=3))
    assert "config.num_epochs was 10 and is 3" in problem(path, changed)
    assert "episodes was 100 and is 50" in problem(path, CELL._replace(episodes=50))
    assert "is_quick was False and is True" in problem(path, CELL._replace(is_quick=True))


def test_the_result_of_another_cell_is_refused(path):
    other = specs.load("ppo-table-1").cells[2]
    path.rename(store.file_of(path.parent, other))
    assert "another cell than ppo-table-1/Pendulum-v1/clip-0.2" in problem(path, other)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": 99}, "format 99"),
        ({"seeds": [{"seed": 0, "score": "high"}]}, "without a number"),
        ({"seeds": [{"seed": 0}]}, "without a number"),
        ({"seeds": [{"seed": 0, "score": 1.0}, {"seed": 0, "score": 2.0}]}, "a seed twice"),
        ({"seeds": None}, "without a number"),
        ({"setting": None}, "the setting is missing"),
    ],
)
def test_content_that_fits_its_checksum_must_make_sense_too(path, change, words):
    assert words in problem(rewritten(path, change))


def test_a_failed_seed_is_no_damage(path):
    rewritten(path, {"seeds": [{"seed": 0, "score": None, "curve": [None]}]})
    assert store.read_result(path.parent, CELL).seeds == (0,)


def test_json_that_is_no_result_is_refused(path):
    path.write_text("[1, 2]", "utf-8")
    assert "no result" in problem(path)


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()
        (root / name / "a__b.json").touch()


def test_folders_of_the_suite_and_the_platform_come_newest_first(tmp_path):
    made(tmp_path, "s_cpu_2026-01-02", "s_cpu_2026-01-10", "s_cpu_2026-01-10-2")
    made(tmp_path, "s_gpu_2026-02-01", "s_cpu_2026-03-01_quick", "check_s_cpu_2026-04-01")
    (tmp_path / "s_cpu_2026-09-09").mkdir()  # empty
    found = [path.name for path in store.folders("s", "cpu", False, tmp_path)]
    assert found == ["s_cpu_2026-01-10-2", "s_cpu_2026-01-10", "s_cpu_2026-01-02"]
    quick = [path.name for path in store.folders("s", "cpu", True, tmp_path)]
    assert quick == ["s_cpu_2026-03-01_quick"]
    assert store.folders("t", "cpu", False, tmp_path) == []


def test_a_new_folder_takes_no_folder_that_holds_results(tmp_path):
    made(tmp_path, "s_cpu_2026-01-02")
    found = [store.unused("s", "cpu", False, date, tmp_path).name for date in ("2026-01-02", "x")]
    assert found == ["s_cpu_2026-01-02-2", "s_cpu_x"]
    assert store.unused("s", "cpu", True, "2026-01-02", tmp_path).name == "s_cpu_2026-01-02_quick"


def test_a_folder_in_which_nothing_but_training_was_begun_is_one_of_the_suite(tmp_path):
    (tmp_path / "s_cpu_2026-01-02" / "unfinished" / "a").mkdir(parents=True)
    assert store.folders("s", "cpu", False, tmp_path) == []
    (tmp_path / "s_cpu_2026-01-02" / "unfinished" / "a" / "pack.json").touch()
    assert [path.name for path in store.folders("s", "cpu", False, tmp_path)] == [
        "s_cpu_2026-01-02"
    ]
    assert not store.has_results(tmp_path / "s_cpu_2026-01-02")
    assert store.unused("s", "cpu", False, "2026-01-02", tmp_path).name == "s_cpu_2026-01-02-2"


def test_results_of_the_package_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = store.readable("classic", "cpu", False)
    assert found.parent == store.SHIPPED
    assert store.read_result(found, specs.load("classic").cells[0]).content is not None
    own = tmp_path / store.RESULTS / "classic_cpu_2030-01-01"
    own.mkdir(parents=True)
    assert store.readable("classic", "cpu", False) == [found]  # nothing is in it yet
    (own / "a__b.json").write_text("{}", "utf-8")
    assert [path.name for path in store.readable("classic", "cpu", False)] == [own.name]


def test_the_package_has_the_results_of_all_suites() -> None:
    stored = Path(__file__).parents[3] / "benchmarks" / "results"
    names = {path.name for path in stored.glob("*_????-??-??*") if store.has_results(path)}
    suites = {name for name in names if name.split("_")[0] in specs.names()}
    assert {path.name for path in store.SHIPPED.iterdir()} == suites
