"""Sweeps that are killed, damaged and mixed up: the same table, or a sentence; never another table.

One program for the whole file: 2 settings x 2 seeds on one device, members one after the other.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import CONFIG, HYPER

from ppo_jax.apps.sweep import driver, engine
from ppo_jax.apps.sweep.options import SweepOptions
from ppo_jax.apps.sweep.results import pictures
from ppo_jax.apps.sweep.results.table import Table
from ppo_jax.apps.sweep.search import study
from ppo_jax.cli import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.runtime import chunk_loop
from ppo_jax.storage import resume_point, sealed
from ppo_jax.storage.checkpoint_files import seal

OPTIONS: dict[str, Any] = {"seeds": 2, "eval_episodes": 4, "layout": "map", "log_every": 32}
OPTIONS |= {"devices": 1, "fresh_seeds": 0, "save_seconds": 1e-9}
SAMPLERS: dict[str, dict[str, Any]] = {
    "grid": {},
    "random": {"settings": 2},
    "halving": {"eta": 2, "min_env_steps": 64},
    "pbt": {"interval": 64},
    "tpe": {"settings": 4, "batch": 2},
}


class Killed(BaseException):
    """An end that no code catches: as far as files go, a SIGKILL."""


@pytest.fixture(scope="module", autouse=True)
def programs_are_kept() -> Iterator[None]:
    """Equal programs are compiled once for all tests of this file; a chunk is one iteration."""
    kept: dict[Any, engine.Engine] = {}
    build = engine.build

    def build_once(config: Config, hyper: Hyper, members: int, options: SweepOptions, what: str):
        if (config, members) not in kept:
            kept[config, members] = build(config, hyper, members, options, what)
        return kept[config, members]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "build", build_once)
        patch.setattr(engine, "seconds_per_iteration", lambda *_: 0.1)
        patch.setattr(pictures, "draw_all", lambda *_: [])
        patch.setattr(chunk_loop, "CHUNK_SECONDS", 1e-9)
        yield


def sweep(folder: Path, sampler: str, rates: tuple[float, ...] = (0.01, 0.1)) -> Table:
    given = {**OPTIONS, **SAMPLERS[sampler], "sampler": sampler, "out": str(folder)}
    if sampler == "tpe":
        pytest.importorskip("optuna")
    return driver.sweep(CONFIG, {"learning_rate": list(rates)}, HYPER, **given)


def kill(folder: Path, sampler: str, saves: int, **changes: Any) -> Path:
    """Begin a sweep and let it die when it is about to save again after some checkpoints."""
    inner, count = resume_point.save_pack, [0]

    def dying(*given: Any) -> None:
        count[0] += 1
        if count[0] > saves:
            raise Killed
        inner(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume_point, "save_pack", dying)
        with pytest.raises(Killed):
            sweep(folder, sampler, **changes)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sweeps that died after the start and two more checkpoints, by sampler and name."""
    root = tmp_path_factory.mktemp("killed")
    found = {name: kill(root / name, name, 3) for name in SAMPLERS}
    return found | {"other grid": kill(root / "other", "grid", 3, rates=(0.02, 0.2))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same sweeps without an interruption."""
    root = tmp_path_factory.mktemp("whole")
    return {name: sweep(root / name, name).folder for name in SAMPLERS}


@pytest.fixture
def copy(killed: dict[str, Path], tmp_path: Path) -> Any:
    return lambda name: shutil.copytree(killed[name], tmp_path / name.replace(" ", "-"))


def tables(folder: Path) -> list[str]:
    return [(folder / name).read_text("utf-8") for name in ("table.csv", "scores.csv")]


def resumed(folder: Path) -> list[str]:
    """Go on with a sweep; what it reports."""
    told: list[str] = []
    driver.resume(folder, listener=driver.Listener(told.append))
    return told


def checkpoints(folder: Path) -> list[Path]:
    """The files of arrays of the only pack's checkpoints, the oldest first."""
    return sorted(folder.glob("packs/*/checkpoints/step_*/arrays.safetensors"))


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_killed_sweep_whose_newest_checkpoint_is_damaged_ends_with_the_same_table(
    sampler: str, copy: Any, whole: dict[str, Path]
) -> None:
    folder = copy(sampler)
    assert len(checkpoints(folder)) == 2
    flip(checkpoints(folder)[-1])
    told = " ".join(resumed(folder))
    assert "arrays.safetensors is damaged: its bytes are not" in told
    assert "Falling back to the checkpoint before it." in told
    assert "begins anew" not in told
    assert tables(folder) == tables(whole[sampler])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sweep_without_a_whole_checkpoint_is_refused_and_left_as_it_is(
    sampler: str, copy: Any, capsys: pytest.CaptureFixture
) -> None:
    folder = copy(sampler)
    for path in checkpoints(folder):
        flip(path)
    before = state_of(folder / "packs")
    assert main.main(["sweep", str(folder), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "holds nothing to go on from" in err
    assert "its members are trained again" in err
    assert err.count("\n") == 1
    assert state_of(folder / "packs") == before


def test_a_full_disk_ends_a_sweep_with_one_sentence(
    copy: Any, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a")

    folder = copy("grid")
    monkeypatch.setattr(resume_point, "save_pack", full)
    assert main.main(["sweep", str(folder), "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "cannot be written (No space left on device)" in err
    assert f"ppo-jax sweep {folder} goes on" in err
    assert err.count("\n") == 1


def test_checkpoints_and_rows_of_another_sweep_are_refused(
    copy: Any, killed: dict[str, Path]
) -> None:
    theirs, folder = killed["other grid"] / "packs" / "000-000", copy("grid")
    own = folder / "packs" / "000-000"
    kept = own.with_name("kept")
    shutil.copytree(own, kept)
    shutil.rmtree(own / "checkpoints")
    shutil.copytree(theirs / "checkpoints", own / "checkpoints")
    with pytest.raises(InputError, match=r"is of another run .*/packs/000-000; this one is"):
        resumed(folder)
    shutil.rmtree(own)
    shutil.copytree(theirs, own)  # the whole pack, whose files agree with each other
    with pytest.raises(InputError, match=r"pack.json.* belongs to another sweep or pack \(run_id"):
        resumed(folder)
    shutil.rmtree(own)
    shutil.copytree(kept, own)
    shutil.copy(theirs / "metrics.jsonl", own)
    with pytest.raises(InputError, match=r"metrics.jsonl' does not hold the rows that were"):
        resumed(folder)
    assert (own / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()


def test_a_checkpoint_of_other_settings_is_refused_even_if_its_names_fit(copy: Any) -> None:
    folder = copy("grid")
    for path in checkpoints(folder):
        manifest = json.loads((path.parent / "manifest.json").read_text("utf-8"))
        metadata = manifest["metadata"]
        metadata["settings"]["config"]["num_epochs"] = 3
        content = {name: manifest[name] for name in manifest if name != "manifest_sha256"}
        (path.parent / "manifest.json").write_bytes(seal(content))
    with pytest.raises(InputError, match=r"other training \(config.num_epochs was 3 and is 2\)"):
        resumed(folder)


def edited(path: Path) -> None:
    """Let the first number of a result be 999."""
    content = json.loads(path.read_text("utf-8"))
    if path.name == "result.json":
        content["final_return"][0] = 999.0
    else:
        content["returns"]["0"] = [999.0, 999.0]
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def doubled(path: Path) -> None:
    """Write the last row a second time."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[-1]]))


@pytest.mark.parametrize(
    "sampler, name, damage, words",
    [
        ("grid", "packs/000-000/result.json", edited, "is damaged (its content is not"),
        ("grid", "packs/000-000/result.json", cut, "is damaged (it is no JSON"),
        ("grid", "packs/000-000/result.json", Path.unlink, "holds nothing to go on from"),
        ("grid", "packs/000-000/metrics.jsonl", doubled, "does not hold the rows"),
        ("grid", "plan.json", cut, "is damaged (it is no JSON"),
        ("grid", "sweep.json", cut, "is damaged (it is no JSON"),
        ("pbt", "packs/000-000/standing.json", edited, "is damaged (its content is not"),
        ("pbt", "packs/000-000/lineage.jsonl", doubled, "does not hold the rows"),
        ("tpe", "packs/00000-*/result.json", edited, "is damaged (its content is not"),
    ],
)
def test_a_damaged_or_edited_file_of_a_finished_sweep_is_refused(
    sampler: str, name: str, damage: Any, words: str, whole: dict[str, Path]
) -> None:
    folder = whole[sampler]
    (path,) = folder.glob(name)
    before = path.read_bytes()
    damage(path)
    try:
        with pytest.raises(InputError) as error:
            resumed(folder)
    finally:
        path.write_bytes(before)
    assert words in str(error.value)
    assert resumed(folder)  # mended, it is read again


def test_a_damaged_description_of_a_pack_is_written_anew(whole: dict[str, Path]) -> None:
    path = whole["grid"] / "packs" / "000-000" / "pack.json"
    expected, before = tables(whole["grid"]), path.read_bytes()
    cut(path)
    assert any("pack.json' is damaged" in line for line in resumed(whole["grid"]))
    assert path.read_bytes() == before
    assert tables(whole["grid"]) == expected


def test_returns_changed_in_a_study_are_refused(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(whole["tpe"], tmp_path / "tpe")
    with sqlite3.connect(folder / "study.db") as database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = '[9.0, 9.0]' WHERE key = 'final_return'"
        )
    with pytest.raises(InputError, match=r"final returns of setting 0 are not those of"):
        resumed(folder)


def test_a_pack_of_a_study_that_is_gone_is_named(whole: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(whole["tpe"], tmp_path / "tpe")
    next(folder.glob("packs/00000-*/pack.json")).unlink()
    with pytest.raises(InputError, match=r"pack.json' is gone, so the rows of setting 0"):
        resumed(folder)


def unsealed(path: Path) -> None:
    """Turn a file into that of version 0.1.0."""
    content = json.loads(path.read_text("utf-8"))
    for name in (sealed.SEAL, "run_id", "sweep_id", "logs"):
        content.pop(name, None)
    if path.name == "sweep.json":
        content["sweep_format"] = 1
    if path.name == "plan.json":
        content = content["groups"]
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@pytest.mark.parametrize("sampler", ["grid", "pbt"])
def test_a_sweep_of_version_0_1_0_goes_on(sampler: str, copy: Any, whole: dict[str, Path]) -> None:
    folder = copy(sampler)
    for path in (folder / "sweep.json", folder / "plan.json", *folder.glob("packs/*/pack.json")):
        unsealed(path)
    for path in folder.glob("packs/*/checkpoints/*/manifest.json"):
        content = json.loads(path.read_text("utf-8"))
        for name in ("run_id", "settings", "fingerprint", "logs"):
            del content["metadata"][name]
        del content["manifest_sha256"]
        path.write_bytes(seal(content))
    told = resumed(folder)
    assert any("version 0.1.0 began this sweep: it goes on" in line for line in told)
    assert not any("begins anew" in line for line in told)
    assert tables(folder) == tables(whole[sampler])
    resumed(folder)


def test_a_batch_of_tpe_that_was_trained_before_the_kill_is_reported_and_not_trained_again(
    tmp_path: Path, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", raise_killed)
        with pytest.raises(Killed):
            sweep(tmp_path / "tpe", "tpe")
    saved, inner = [], resume_point.save_pack

    def watched(owner: Any, *more: Any) -> None:
        saved.append(owner.folder.name[:5])
        inner(owner, *more)

    monkeypatch.setattr(resume_point, "save_pack", watched)
    assert not any("dead" in line for line in resumed(tmp_path / "tpe"))
    assert set(saved) == {"00002"}  # the second batch alone
    assert tables(tmp_path / "tpe") == tables(whole["tpe"])


def raise_killed(*_: Any) -> None:
    raise Killed
