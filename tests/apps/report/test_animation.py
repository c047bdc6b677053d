"""The animation of a report page: of which seed, how much of it, how large."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_page import Page, false_numbers, make_run
from tiny import CONFIG, programs_are_kept, tiny_run

import ppo_jax
from ppo_jax.apps.report import animation, run_data, write
from ppo_jax.config.config import Hyper


@pytest.mark.slow
def test_an_animation_shows_the_typical_seed_of_a_real_run(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, env="CartPole-v1")
    with programs_are_kept():
        result = tiny_run(tmp_path / "run", config, Hyper())
    done = ppo_jax.report(tmp_path / "run", tmp_path / "a.html")
    assert done["notes"] == []
    page = Page((tmp_path / "a.html").read_text("utf-8"))
    said = page.data["runs"][0]["animation"]
    final = result.summary["final_return"]
    distances = [abs(x - final["iqm"]) for x in final["per_seed"]]
    assert said["member"] == distances.index(min(distances))
    assert said["steps_shown"] == said["episode_steps"] > 5  # CartPole falls, but not at once
    kinds = [link.split(";")[0] for link in page.links]
    assert sorted(kinds)[-2:] == ["data:image/gif", "data:image/png"]
    assert false_numbers(page) == []


def test_what_cannot_be_drawn_is_said_and_does_not_stop_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    make_run(folder)  # it has no checkpoint
    done = write.report(folder, tmp_path / "a.html")
    assert len(done["notes"]) == 1
    assert "holds no checkpoint that can be read" in done["notes"][0]
    assert done["notes"][0].split(": ", 1)[1] in Page((tmp_path / "a.html").read_text("utf-8")).text
    killed = {**run_data.read(folder, "x"), "summary": None}
    assert animation.of_run(folder, killed) == "No animation: the run has no final evaluation."


def moving_square(count: int, side: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (side, side, 3), np.uint8) for _ in range(count)]


def test_frames_are_left_out_until_the_animation_is_small_enough() -> None:
    frames = moving_square(32, 48)
    whole = animation._gif(frames, 10**9)
    assert whole is not None
    small = animation._gif(frames, len(whole) // 3)
    assert small is not None
    assert len(small) <= len(whole) // 3
    with Image.open(io.BytesIO(small)) as picture:
        assert picture.n_frames == 8
    assert animation._gif(frames, 1000) is None


def test_large_pictures_are_scaled_down_and_small_ones_are_not() -> None:
    assert animation._smaller(np.zeros((640, 960, 3), np.uint8)).shape == (213, 320, 3)
    assert animation._smaller(np.zeros((100, 320, 3), np.uint8)).shape == (100, 320, 3)


def test_the_still_is_the_frame_itself() -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[2:4] = (250, 10, 0)
    url = animation._url("png", animation._png(frame))
    with Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), frame)
