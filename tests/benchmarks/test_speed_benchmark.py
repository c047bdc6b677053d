"""Numbers that the speed benchmarks compute from measurements, against those by hand."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"


@pytest.fixture(autouse=True)
def _speed_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks import each other by name, as scripts of one folder."""
    monkeypatch.syspath_prepend(str(SPEED))


def trainer(speeds: list[float], jax: str = "1") -> dict:
    runs = [{"env_steps": 1000, "wall_seconds": 1000 / s, "cpu_seconds": 1.0} for s in speeds]
    compiles = [{"trace_seconds": 1.0, "compile_seconds": 2.0, "compile_cpu_seconds": 2.5}]
    return {"runs": runs, "compiles": compiles, "versions": {"jax": jax}}


def test_flops_of_a_cartpole_step_are_counted_layer_by_layer() -> None:
    from cases import CASES

    actor = (4 * 64, 64 * 64, 64 * 2)
    critic = (4 * 64, 64 * 64, 64 * 1)
    forward = 2 * (sum(actor) + sum(critic))
    # Backward: a product for the weights and one for the input, but for the observation.
    backward = 2 * forward - 2 * (actor[0] + critic[0])
    assert CASES["c"].flops_per_env_step == forward + 4 * (forward + backward) == 227_200


def test_ratios_are_of_medians_and_of_pairs() -> None:
    import compare

    ours, theirs = trainer([300.0, 100.0, 200.0]), trainer([100.0, 100.0, 50.0])
    for each in (ours, theirs):
        each |= compare.summarise(each)
    found = compare.against(ours, theirs)
    assert found["speed_ratio"] == pytest.approx(2.0)
    assert found["speed_ratio_pairs"] == pytest.approx([3.0, 1.0, 4.0])
    assert found["compile_ratio"] == 1.0
    assert found["same_jax"]


def test_share_of_the_ceiling_is_flops_done_over_flops_possible() -> None:
    import compare

    ceiling = {
        "runs": [{"env_steps": 3_000_000, "wall_seconds": 2.0}],  # 1.5 MFLOP/s
        **{"layout": "numpy-1024", "layouts_tried": {}, "versions": {}},
    }
    found = compare.shares(1000, ceiling, {"ppo_jax": {"env_steps_per_second": 600.0}})
    assert found["share"]["ppo_jax"] == pytest.approx(0.4)


def test_share_of_the_environment_is_its_time_for_a_step_over_the_trainers() -> None:
    import compare

    alone = {
        "runs": [{"env_steps": 1000, "wall_seconds": 0.5, "cpu_seconds": 1.0}],
        **{"layout": "plain", "layouts_tried": {}},
    }
    ours = {"env_steps_per_second": 500.0, "env_steps_per_cpu_second": 250.0}
    found = compare.environment_shares(alone, {"ppo_jax": ours})
    assert found["share"]["ppo_jax"] == 0.25  # 0.5 ms of 2 ms
    assert found["cpu_share"]["ppo_jax"] == 0.25  # 1 ms of 4 ms


def test_a_clone_is_found_by_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import cloned

    file = tmp_path / "b" / "training" / "script.py"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("SOURCES", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert cloned("training/script.py", "B") == str(file.parent)
    assert cloned("training/script.py", "B", parents=2) == str(tmp_path / "b")
    with pytest.raises(SystemExit, match="C is no package"):
        cloned("ppo.py", "C")


def test_growth_is_the_exponent_of_a_power_law() -> None:
    import growth

    points = [{"size": n, "seconds": 3.0 * n**0.5, "peak_bytes": 7} for n in (4, 16, 64)]
    found = growth.exponents(points)
    assert found["growth"] == [0.5, 0.5]
    assert found["growth_overall"] == 0.5
    assert found["memory_growth_overall"] == 0.0


@pytest.mark.parametrize(
    ("line", "solved"),
    [
        ("return    500  one seed (128 deterministic episodes a seed)", True),
        ("evaluated after 20,480 environment steps a seed: return 475", True),
        ("evaluated after 10,240 environment steps a seed: return 474.9", False),
        ("75/391  19%  2s left  41.4k env steps/s  return 500  KL 0.0045", False),
        ("trained   100,096 environment steps a seed, 21,601 steps/s in 4.6 s", False),
    ],
)
def test_only_a_deterministic_return_of_475_solves(line: str, solved: bool) -> None:
    import start

    assert start.is_solved(line) is solved


def test_a_training_that_was_not_solved_has_no_median() -> None:
    import start

    assert start.spread([1.0, math.inf, math.inf]) == {"median": None, "low": 1.0, "high": None}


def test_the_words_that_start_looks_for_are_the_words_that_a_run_says() -> None:
    import start

    from ppo_jax.runtime import text

    assert start.is_solved(text.evaluation_line(10_240, 480.0))
    assert not start.is_solved(text.evaluation_line(10_240, None))


def test_a_shim_that_runs_nothing_is_no_interpreter(tmp_path: Path) -> None:
    from peers import version_of

    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert version_of(str(shim)) is None
    assert version_of(sys.executable) == sys.version_info[:2]


def test_versions_are_of_installed_packages_and_none_for_an_absent_one() -> None:
    import jax
    import machine

    found = machine.versions("no-such-package")
    assert found["jax"] == jax.__version__
    assert found["python"] == sys.version.split()[0]
    assert found["no-such-package"] is None
