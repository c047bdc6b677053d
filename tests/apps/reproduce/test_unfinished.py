"""Packs of a reproduction that are killed, stopped, damaged and mixed up: the same results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from counted_stop import CountedStop
from tiny import programs_are_kept

from ppo_jax.apps.reproduce import running, specs, store, training
from ppo_jax.apps.reproduce.running import Request
from ppo_jax.apps.reproduce.specs import Suite
from ppo_jax.config.errors import InputError
from ppo_jax.storage import resume_point, sealed

SUITE = """
title = "Walks"
about = "For tests."
[defaults]
seeds = 2
episodes = 4
total_env_steps = 160
[defaults.config]
num_envs = 4
rollout_length = 8
num_epochs = 1
num_minibatches = 2
hidden_sizes = [8]
[defaults.hyper.env]
speed = 0.4
[[task]]
name = "tiny:Walk"
[[variant]]
name = "fast"
hyper = { learning_rate = 0.02 }
[[variant]]
name = "slow"
hyper = { learning_rate = 0.001 }
"""


class Killed(BaseException):
    """An end that no code catches: as far as files go, a SIGKILL."""


@pytest.fixture(scope="module", autouse=True)
def kept_programs() -> Iterator[None]:
    with programs_are_kept(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CHUNK_SECONDS", 1e-9)  # one iteration a chunk
        yield


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("spec") / "walks.toml"
    path.write_text(SUITE, "utf-8")
    return specs.load(str(path))


def run(suite: Suite, folder: Path) -> tuple[int, list[str]]:
    """Reproduce with a checkpoint after every iteration: exit code, and all that was reported."""
    told: list[str] = []
    request = Request((suite,), out=str(folder), save_seconds=1e-9)
    done = running.reproduce(request, told.append)
    return done.exit_code, [*told, *done.lines]


def results(suite: Suite, folder: Path) -> list[Any]:
    """All of the results but clock times and dates."""
    contents = [store.read_result(folder, cell).content for cell in suite.cells]
    return [(c and c["seeds"], c and [b["diagnostics"] for b in c["batches"]]) for c in contents]


@pytest.fixture(scope="module")
def whole(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The results of a reproduction without an interruption, which leaves nothing behind."""
    folder = tmp_path_factory.mktemp("whole") / "walks"
    run(suite, folder)
    assert not (folder / store.UNFINISHED).exists()
    found = results(suite, folder)
    assert all(seeds and len(seeds) == 2 for seeds, _ in found)
    return found


def killed(suite: Suite, folder: Path, module: Any, name: str, calls: int) -> None:
    """Let a reproduction die in the call of a function that follows the first `calls`."""
    inner, count = getattr(module, name), [0]

    def dying(*given: Any) -> Any:
        count[0] += 1
        if count[0] > calls:
            raise Killed
        return inner(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, dying)
        with pytest.raises(Killed):
            run(suite, folder)


@pytest.fixture(scope="module")
def begun(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose only pack died after 3 of 5 iterations, each of them saved."""
    folder = tmp_path_factory.mktemp("begun") / "walks"
    killed(suite, folder, resume_point, "save_pack", 3)
    return folder


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> Path:
    return shutil.copytree(begun, tmp_path / "walks")


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("unfinished/*/checkpoints/step_*/arrays.safetensors"))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_killed_pack_goes_on_from_its_newest_checkpoint_with_the_same_results(
    suite: Suite, copy: Path, whole: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [path.parent.name[-3:] for path in checkpoints(copy)] == ["064", "096"]
    lengths: list[int] = []
    inner = training.train_all

    def watched(config: Any, advance: Any, begun: Any, *more: Any) -> Any:
        lengths.append(begun.iteration)
        return inner(config, advance, begun, *more)

    monkeypatch.setattr(training, "train_all", watched)
    run(suite, copy)
    assert lengths == [3]
    assert results(suite, copy) == whole
    assert not (copy / store.UNFINISHED).exists()


def test_a_stop_saves_all_and_goes_on_with_the_same_results(
    suite: Suite, tmp_path: Path, whole: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, codes = tmp_path / "walks", []
    while not codes or codes[-1] == 75:
        assert len(codes) < 9
        with monkeypatch.context() as patch:
            patch.setattr(running.signals, "listening", lambda: CountedStop(4))
            code, told = run(suite, folder)
        codes.append(code)
        if code == 75:
            assert "all is saved; run it again to go on." in told[-1]
    assert codes[:2] == [75, 75]
    assert results(suite, folder) == whole


def test_a_kill_between_the_results_of_two_cells_trains_nothing_again(
    suite: Suite, tmp_path: Path, whole: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "walks"
    killed(suite, folder, store, "write_result", 1)
    first, second = results(suite, folder)
    assert first == whole[0]
    assert second == (None, None)
    monkeypatch.setattr(resume_point, "save_pack", lambda *_: pytest.fail("trained again"))
    run(suite, folder)
    assert results(suite, folder) == whole


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    suite: Suite, copy: Path, whole: list[Any]
) -> None:
    flip(checkpoints(copy)[-1])
    _, told = run(suite, copy)
    assert any("Falling back to the checkpoint before it." in line for line in told)
    assert results(suite, copy) == whole


def damage_all(folder: Path) -> None:
    for path in checkpoints(folder):
        flip(path)


def damage_description(folder: Path) -> None:
    (path,) = folder.glob("unfinished/*/pack.json")
    path.write_text(path.read_text("utf-8").replace('"seeds"', '"seed"', 1), "utf-8")


@pytest.mark.parametrize(
    "damage, words",
    [
        (
            damage_all,
            r"holds nothing to go on from: .*is damaged.* Restore it from a copy, or remove",
        ),
        (damage_description, r"pack.json' is damaged \(its content is not what was written"),
    ],
)
def test_a_pack_that_cannot_go_on_is_refused_and_not_begun_anew(
    damage: Callable[[Path], None], words: str, suite: Suite, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(InputError, match=words):
        run(suite, copy)
    assert len(checkpoints(copy)) == 2


def test_a_checkpoint_of_another_pack_is_refused(suite: Suite, copy: Path, tmp_path: Path) -> None:
    other = suite._replace(cells=tuple(cell._replace(first_seed=7) for cell in suite.cells))
    killed(other, tmp_path / "other", resume_point, "save_pack", 3)
    for ours, theirs in zip(checkpoints(copy), checkpoints(tmp_path / "other"), strict=True):
        shutil.rmtree(ours.parent)
        shutil.copytree(theirs.parent, ours.parent)
    with pytest.raises(InputError, match="is of another run"):
        run(suite, copy)


def test_a_folder_of_another_day_goes_on_if_nothing_but_a_pack_was_begun_in_it(
    suite: Suite, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = shutil.copytree(begun, tmp_path / "walks_cpu_2026-01-01")
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    assert running.folder_of(Request((suite,)), suite) == there
    with pytest.raises(InputError, match="There are no results of walks"):
        running.folder_of(Request((suite,), is_show=True), suite)
    (path,) = there.glob("unfinished/*/pack.json")
    content = sealed.read_sealed(path, "")
    content["fingerprint"]["cores"] = 99
    sealed.write_sealed(path, content)
    assert running.folder_of(Request((suite,)), suite) != there


def test_a_pack_of_other_seeds_is_left_and_named(suite: Suite, copy: Path) -> None:
    other = suite._replace(cells=tuple(cell._replace(first_seed=7) for cell in suite.cells))
    _, told = run(other, copy)
    assert any("other cells, seeds or settings than those asked for" in line for line in told)
    assert len(checkpoints(copy)) == 2
    assert [seed["seed"] for seed in results(other, copy)[0][0]] == [7, 8]
