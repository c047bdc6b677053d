"""Pictures show the episode of the policy that is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.config.config import Config, Hyper
from ppo_jax.envs.interface import Box, Environment
from ppo_jax.runtime import frames
from ppo_jax.runtime.saved_run import load_state
from ppo_jax.training import trainer


def test_the_frames_follow_the_policy_that_is_drawn(swung: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(frames, "MAX_FRAMES", 3)
    config, hyper, _, state, _ = load_state(swung.folder)
    member = jax.tree.map(lambda leaf: leaf[0], state)
    shown = [
        frames.draw_frames(config, hyper, member, mode, 7).pictures
        for mode in ("deterministic", "sampled")
    ]
    np.testing.assert_array_equal(shown[0][0], shown[1][0])  # the same start
    assert any(not np.array_equal(*pair) for pair in zip(*shown, strict=True))
    assert all(frame.dtype == np.uint8 and frame.shape[2] == 3 for frame in shown[0])


def test_a_film_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "a.gif"
    file.symlink_to(tmp_path / "b.gif")
    whole = frames.Episode([np.zeros((4, 4, 3), np.uint8)], 0.0, is_whole=True)
    frames.save(file, whole)
    assert file.read_bytes().startswith(b"GIF8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {file}  # the link was replaced, not followed

    def fail(path: Path, pictures: Any) -> None:
        path.write_bytes(b"GIF8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frames.video, "write", fail)
    with pytest.raises(OSError, match="No space"):
        frames.save(file, whole)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_frames_of_sampled_gsde_hold_its_noise_as_a_rollout_does(monkeypatch: Any) -> None:
    """The picture is the action taken; the observation stands still, so only noise moves it."""

    def transition(key: Any, state: Any, action: Any, params: Any) -> tuple:
        no = jnp.zeros((), bool)
        return jnp.ones(1), action[0], jnp.zeros(()), no, no, {}

    environment = Environment(
        name="still",
        reset=lambda key, params: (jnp.ones(1), jnp.zeros(())),
        transition=transition,
        default_params=(),
        observation_shape=(1,),
        observation_dtype="float32",
        action_space=Box((1,), np.full(1, -np.inf), np.full(1, np.inf)),
        max_episode_steps=None,
        override=lambda params, values: params,
        render=lambda state, params: np.float32(state),
    )
    fields = {"num_envs": 2, "rollout_length": 4, "hidden_sizes": (8,), "gsde_resample_steps": 3}
    config = Config(env=environment, policy="gsde", **fields)
    monkeypatch.setattr(frames, "MAX_FRAMES", 9)
    member = trainer.init(config, Hyper(), jax.random.key(0))
    shown = frames.draw_frames(config, Hyper(), member, "sampled", 7).pictures[1:]
    held = [shown[:3], shown[3:4], shown[4:7], shown[7:8], shown[8:]]  # a rollout has 4 steps
    assert len(set(map(float, shown))) == len(held)
    assert all(len(set(map(float, same))) == 1 for same in held)
