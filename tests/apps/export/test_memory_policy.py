"""Exported policies with a memory: each side carries its own through whole episodes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG

from ppo_jax.apps.export import export as exporting
from ppo_jax.apps.export.export import export
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.errors import InputError
from ppo_jax.config.options import RunOptions
from ppo_jax.models.agent import acting_policy, assemble
from ppo_jax.storage import checkpoint, run_folder
from ppo_jax.training import schedules, trainer

pytestmark = pytest.mark.slow


def own_init(key: jax.Array) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 2)
    return {"input": jax.random.normal(keys[0], (4, 3)), "out": jax.random.normal(keys[1], (3, 3))}


def own_apply(params: Any, memory: Any, observation: jax.Array) -> tuple[Any, tuple]:
    hidden = jnp.tanh(observation @ params["input"] + 0.9 * memory["hidden"])
    out = hidden @ params["out"]
    turned = jnp.where(memory["steps"] % 2 == 0, out[:2], out[1::-1])
    return {"hidden": hidden, "steps": memory["steps"] + 1}, (turned, out[2])


def own_start() -> dict[str, jax.Array]:
    return {"hidden": jnp.full(3, 0.5), "steps": jnp.zeros((), jnp.int32)}


SMALL = Config(num_envs=2, rollout_length=8, num_minibatches=1, hidden_sizes=(8,), memory_size=6)
CASES: dict[str, dict[str, Any]] = {
    "gru": {"memory": "gru", "memory_start": "learned", "env": "Pendulum-v1"},
    "lstm": {"memory": "lstm", "memory_layers": 2, "normalize_observations": True},
    "mingru": {"memory": "mingru", "memory_layers": 2, "shared_torso": True},
    "lru": {"memory": "lru", "env": "Pendulum-v1", "policy": "tanh-gaussian"},
    "attention": {
        "memory": "attention",
        "memory_size": 32,
        "memory_window": 5,
        "previous_inputs": "action+reward+start",
        "normalize_observations": True,
    },
    "own": {"network": (own_init, own_apply, own_start)},
}


def shaken(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: 1.5 * leaf + 0.1 * jnp.cos(jnp.arange(leaf.size * 1.0)).reshape(leaf.shape),
        tree,
    )


def saved(folder: Path, config: Config) -> Path:
    """A run of one seed as it is saved, without any training."""
    hyper = schedules.as_arrays(config, Hyper())
    state = jax.jit(trainer.init, static_argnums=0)(config, hyper, jax.random.key(0))
    state = jax.tree.map(lambda leaf: leaf[None], state._replace(params=shaken(state.params)))
    with run_folder.claimed(config, Hyper(), RunOptions(out=str(folder)), jax.devices()[:1]):
        pass
    words = {"env_steps": 16, "num_seeds": 1}
    checkpoint.save(checkpoint.checkpoint_folder(folder, 16), state, words)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_every_format_acts_alike_through_whole_episodes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 sequences of 128 steps with their resets; forgetting or not resetting would show."""
    config = dataclasses.replace(SMALL, **CASES[name])
    hyper = schedules.as_arrays(config, Hyper())
    state = jax.jit(trainer.init, static_argnums=0)(config, hyper, jax.random.key(0))
    seen = state.observation_moments._replace(count=jnp.float32(9.0))
    seen = seen._replace(m2=jax.tree.map(lambda leaf: leaf + 3.0, seen.m2))
    state = state._replace(params=shaken(state.params), observation_moments=seen)
    parts = assemble(config)
    world = parts.environment.default_params
    policy = acting_policy(config, parts, state.params, seen, world)
    steps = exporting.record(config, hyper, state)
    assert steps.begins.shape == (128, 8)
    formats = ("stablehlo",) if name == "own" else ("numpy", "onnx", "stablehlo")
    for format in formats:
        if format == "onnx":
            pytest.importorskip("onnxruntime")
        artefact = exporting.build_artefact(format, config, parts, policy)
        found = exporting.compare_along(parts.environment, policy, artefact, steps)
        assert found.num_observations == 1024
        assert found.largest_difference <= 1e-5, format
    whole = steps._replace(begins=np.zeros_like(steps.begins))
    whole.begins[0] = True
    act = artefact.act
    forgetful = artefact._replace(act=lambda rows, memory: (act(rows, memory)[0], memory))
    assert exporting.compare_along(parts.environment, policy, forgetful, whole)[1] > 1e-3


def test_a_saved_recurrent_policy_is_called_with_its_memory(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, memory="gru", memory_size=4, memory_start="learned")
    run = saved(tmp_path / "run", config)
    report = export(run, format="numpy", out=tmp_path / "alone")
    assert report["largest_difference"] <= 1e-5
    ours, theirs = load_policy(run), load_policy(tmp_path / "alone")
    rows = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    for policy in (ours, theirs):
        with pytest.raises(InputError, match=r"action, memory = policy\(observation, memory\)"):
            policy(rows[0])
        with pytest.raises(InputError, match="memory"):
            policy(rows[0], policy.start(2))
    many, own, alone = theirs.start(3), ours.start(3), ours.start()
    for row in rows:
        found, many = theirs(row, many)
        expected, own = ours(row, own)
        single, alone = ours(row[1], alone)
        np.testing.assert_array_equal(found, expected)
        assert single == expected[1]
        np.testing.assert_allclose(many["memory"], own, atol=1e-6)
        np.testing.assert_allclose(alone, own[1], atol=1e-6)
    sampled, _ = ours(rows[0], ours.start(3), key=jax.random.key(0))
    assert sampled.shape == (3,)
    code = (
        "import sys, numpy as np; sys.modules['ppo_jax'] = None\n"
        "from policy import act\n"
        "action, memory = act(np.ones(2), act.start())\n"
        "action, memory = act(np.ones(2), memory)\n"
        "print(action, memory['memory'].shape)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "alone", capture_output=True, text=True
    )
    _, memory = ours(np.ones(2), ours.start())
    assert found.stdout.split() == [str(int(ours(np.ones(2), memory)[0])), "(4,)"], found.stderr
