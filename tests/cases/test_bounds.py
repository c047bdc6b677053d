"""Bounds of actions follow the environment's parameters wherever a policy acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_folder import FAST, Answer, Shell, in_case

from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.apps.sweep.driver import sweep
from ppo_jax.cli import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.training import trainer

pytestmark = pytest.mark.slow

Enter = Callable[[str], Shell]
CASE = "bounds-follow-params"  # its reward is the action: the best return is the limit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run under a limit of 8, in whose case the tests go on."""
    folder = tmp_path_factory.mktemp("bounds") / "run"
    with in_case(CASE):
        words = ["train", "env:Push", "--env.limit", "8", *FAST, "--out", str(folder), "--quiet"]
        assert main.main(words) == 0
        yield folder


@pytest.mark.parametrize(
    "limit, policy",
    [
        *((8.0, "gaussian"), (8.0, "tanh-gaussian"), (8.0, "gsde"), (3.0, "gaussian-state-std")),
        *((2.0, "gaussian"), (0.5, "gaussian"), (0.5, "tanh-gaussian")),
    ],
)
def test_the_best_return_is_the_limit(shell: Enter, limit: float, policy: str) -> None:
    set_to = () if limit == 2.0 else ("--env.limit", limit)
    answer = shell(CASE).train("Push", *set_to, *FAST, "--policy", policy, "--json", "--seeds", 5)
    assert answer.code == 0
    best = sorted(answer.returns)[2:]  # the standard deviation of a seed may shrink too early
    assert best == [pytest.approx(limit, rel=0.02)] * 3


def test_an_evaluation_keeps_the_runs_bounds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main.main(["eval", str(run), "--episodes", "4", "--json"]) == 0
    assert Answer(0, *capsys.readouterr()).returns == [pytest.approx(8.0, rel=0.02)]


@pytest.mark.parametrize("format", ["run", "numpy", "stablehlo", "onnx"])
def test_a_policy_out_of_a_run_keeps_its_bounds(run: Path, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    made = run
    if format != "run":
        made = run.parent / f"policy.{format}" if format != "numpy" else run.parent / "numpy"
        assert main.main(["export", str(run), "--format", format, "--out", str(made)]) == 0
    assert float(load_policy(made)(np.ones(1, np.float32))[0]) == pytest.approx(8.0, rel=0.02)


def test_a_replay_records_the_actions_that_were_taken(run: Path) -> None:
    words = ["replay", str(run), "--member", "0", "--out", str(run.parent / "again"), "--json"]
    assert main.main(words) == 0
    recorded = np.load(max((run.parent / "again").glob("**/trajectory_*.npz")))
    np.testing.assert_array_equal(
        recorded["action"], np.clip(recorded["action_sampled"], -8.0, 8.0)
    )
    assert recorded["action"].max() > 2.0


def test_settings_of_a_sweep_have_their_own_bounds(shell: Enter) -> None:
    ppo = shell(CASE)
    config = Config(
        env="env:Push", num_envs=16, rollout_length=16, hidden_sizes=(16,), total_env_steps=16384
    )
    table = sweep(
        config,
        {"env.limit": [0.5, 2, 8]},
        Hyper(learning_rate=3e-3),
        seeds=2,
        fresh_seeds=2,
        out=str(ppo.runs / "sweep"),
    )
    found = {row["values"]["env.limit"]: row["final_return"]["iqm"] for row in table.settings}
    assert found == {limit: pytest.approx(limit, rel=0.02) for limit in (0.5, 2, 8)}


def test_a_vmapped_training_keeps_each_members_bounds(shell: Enter) -> None:
    shell(CASE)
    config = Config(
        env="env:Push", num_envs=16, rollout_length=16, hidden_sizes=(16,), total_env_steps=8192
    )

    def last_return(limit: jax.Array) -> jax.Array:
        hyper = Hyper(learning_rate=3e-3, env={"limit": limit})
        _, rows = trainer.train(config, hyper, jax.random.key(0))
        return rows["episode_return_sum"][-1] / rows["num_episodes"][-1]

    found = jax.jit(jax.vmap(last_return))(jnp.array([0.5, 4.0]))
    assert found.tolist() == [pytest.approx(0.5, rel=0.05), pytest.approx(4.0, rel=0.05)]


@pytest.mark.parametrize(
    "limit, words",
    [
        ("-1", "whose lower bound lies above the upper one"),
        ("nan", "must be a number"),
        ("inf", "must stay so"),
        ("true", "must be a number"),
    ],
)
def test_a_limit_that_breaks_the_bounds_is_refused(shell: Enter, limit: str, words: str) -> None:
    ppo = shell(CASE)
    assert ppo.train("Push", "--env.limit", limit, *FAST).is_refused(words)
    assert ppo("sweep", "env:Push", f"env.limit=3,{limit}", *FAST).is_refused(words)
