"""The cause of a frozen member: the operation, the line, the samples."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, Walk, WalkState

from ppo_jax.apps.diagnose.debug import debug
from ppo_jax.apps.run import quarantine
from ppo_jax.cli.main import main
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.storage import checkpoint, run_folder
from ppo_jax.training import schedules, trainer, update

pytestmark = pytest.mark.slow  # each operation of an update is compiled alone


class Pit(Walk):
    """Near 1.2 lies a pit, and beyond it the reward is not a number."""

    name = "Pit"

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> tuple:
        x = state.x + params.speed * (2 * action - 1)
        state = WalkState(x=x, time=state.time + 1)
        reward = jnp.log(1.2 - jnp.abs(x))
        return self.get_obs(state), state, reward, self.is_terminal(state, params), {}


HYPER = Hyper(learning_rate=0.01)


def frozen_run(folder: Path, config: Config, spoil: Any = lambda state: state) -> Path:
    """Two members after three iterations, of which each may have refused its updates."""
    arrays = schedules.as_arrays(config, HYPER)
    keys = jax.random.split(jax.random.key(0), 2)
    state = spoil(jax.vmap(lambda key: trainer.init(config, arrays, key))(keys))
    step = jax.jit(jax.vmap(lambda state: trainer.iterate(config, arrays, state)[0]))
    for _ in range(3):
        state = step(state)
    folder.mkdir()
    run_folder.write_config(folder, config, HYPER, RunOptions(out=str(folder), seeds=2), None)
    metadata = {"env_steps": 3 * config.batch_size, "num_seeds": 2}
    checkpoint.save(checkpoint.checkpoint_folder(folder, 96), state, metadata)
    return folder


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = dataclasses.replace(CONFIG, env=Pit())
    return frozen_run(tmp_path_factory.mktemp("runs") / "fallen", config)


@pytest.fixture(scope="module")
def blown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second member's critic is so large that its gradient's norm overflows."""

    def spoil(state: Any) -> Any:
        kernel = state.params["body"]["value_head"]["kernel"]
        state.params["body"]["value_head"]["kernel"] = kernel.at[1].set(1e25)
        return state

    return frozen_run(tmp_path_factory.mktemp("runs") / "blown", CONFIG, spoil)


def test_a_reward_that_is_no_number_is_traced_to_its_line(fallen: Path) -> None:
    report = debug(fallen, env=Pit())
    assert (report["alive"], report["failures"], report["iteration"]) == (False, 3, 3)
    fault = report["fault"]
    lines, first = inspect.getsourcelines(Pit.step_env)
    number = first + next(i for i, line in enumerate(lines) if "jnp.log" in line)
    assert fault["operation"] == "log"
    assert fault["source"].startswith(f"tests/apps/diagnose/test_debug.py:{number} ")
    assert fault["code"] == "reward = jnp.log(1.2 - jnp.abs(x))"
    ((kind, step, count),) = fault["path"]
    assert (kind, count) == ("scan", 8)
    # Its samples: rewards are not finite from the step that is named on, so nor are the returns.
    with np.load(report["batch"]) as batch:
        target = batch["value_target"].reshape(8, 4)
        assert batch["observation"].shape == (32, 2)
        assert set(batch.files) >= {"action", "advantage", "distribution_old.logits"}
    assert not np.isfinite(target[step]).all()
    assert "minibatch" not in report  # it was spoilt before there was one
    assert json.loads((fallen / "debug-0" / "report.json").read_text())["fault"] == json.loads(
        json.dumps(fault)
    )


def test_a_gradient_that_overflows_is_traced_to_its_minibatch(blown: Path) -> None:
    report = debug(blown, member=1)
    fault = report["fault"]
    assert fault["operation"] in ("square", "mul", "integer_pow", "dot_general", "reduce_sum")
    assert fault["source"].startswith("ppo_jax/")
    assert [step[0] for step in fault["path"]][:2] == ["scan", "scan"]
    assert (report["epoch"], report["minibatch_number"]) == (1, 1)
    with np.load(report["minibatch"]) as few, np.load(report["batch"]) as whole:
        assert few["observation"].shape == (16, 2)
        rows = {tuple(row) for row in np.c_[whole["log_prob_old"], whole["value_target"]]}
        assert {tuple(row) for row in np.c_[few["log_prob_old"], few["value_target"]]} <= rows


def test_the_minibatches_are_those_that_training_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded where training draws them."""
    arrays = schedules.as_arrays(CONFIG, HYPER)
    state = trainer.init(CONFIG, arrays, jax.random.key(3))
    drawn = []
    whole = update.minibatch_order

    def record(*given: Any) -> jax.Array:
        rows = whole(*given)
        jax.debug.callback(lambda found: drawn.append(np.asarray(found)), rows, ordered=True)
        return rows

    monkeypatch.setattr(update, "minibatch_order", record)
    jax.block_until_ready(jax.jit(lambda s: trainer.iterate(CONFIG, arrays, s))(state))
    jax.effects_barrier()
    monkeypatch.undo()
    (rows,) = drawn
    np.testing.assert_array_equal(rows, quarantine.minibatch_rows(CONFIG, 1, state))
    assert not np.array_equal(rows[0], rows[1])


def test_a_member_that_has_not_failed_has_nothing_to_explain(blown: Path) -> None:
    with pytest.raises(InputError, match=r"member=0: .* nothing to explain \(those that failed: 1"):
        debug(blown, member=0)
    with pytest.raises(InputError, match="member=2 is not among"):
        debug(blown, member=2)


def test_the_command_tells_the_operation_and_the_line(
    blown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "why"
    assert main(["debug", str(blown), "--member", "1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "3 updates refused, then frozen; the last one in iteration 3" in told
    assert "first     made by" in told
    assert "within    step 1 of 2 of a scan" in told
    assert main(["debug", str(blown), "--member", "1", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_an_update_that_failed_once_is_made_again_from_the_iteration_before() -> None:
    arrays = schedules.as_arrays(CONFIG, HYPER)
    state = trainer.init(CONFIG, arrays, jax.random.key(0))
    once = state._replace(iteration=jnp.int32(5), failures=jnp.int32(1))
    assert quarantine.offending(once).iteration == 4
    assert quarantine.offending(once._replace(alive=jnp.zeros((), bool))).iteration == 5
