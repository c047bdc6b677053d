"""Animations on the disk."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppo_jax.analysis import video
from ppo_jax.config.errors import InputError

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def frames() -> list[np.ndarray]:
    return [np.full((21, 33, 3), colour, np.uint8) for colour in COLOURS]


def test_a_gif_shows_the_frames_in_their_order_and_for_ever(tmp_path: Path) -> None:
    video.write(tmp_path / "a.gif", frames())
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (3, (33, 21), 0)
        for index, colour in enumerate(COLOURS):
            picture.seek(index)
            shown = np.asarray(picture.convert("RGB"))[10, 10]
            np.testing.assert_allclose(shown, colour, atol=8)  # 64 colours a frame


def test_the_suffix_decides_in_any_case(tmp_path: Path) -> None:
    video.check(tmp_path / "a.GIF")
    video.write(tmp_path / "a.GIF", frames())
    with Image.open(tmp_path / "a.GIF") as picture:
        assert picture.format == "GIF"


def test_an_mp4_shows_the_frames_cut_to_even_sides(tmp_path: Path) -> None:
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    video.check(tmp_path / "a.mp4")
    video.write(tmp_path / "a.mp4", frames() * 10)
    with imageio.get_reader(tmp_path / "a.mp4") as reader:
        assert reader.get_data(0).shape[:2] == (20, 32)
        assert reader.count_frames() == 30


def test_what_cannot_become_an_animation_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, words in (
        ("a.avi", r"must end in \.gif or \.mp4"),
        ("a", r"must end in \.gif or \.mp4"),
        ("nowhere/a.gif", "is no writable folder"),
    ):
        with pytest.raises(InputError, match=words):
            video.check(tmp_path / name)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"extra `video` \(pip install .*; \.gif needs nothing"):
        video.check(tmp_path / "a.mp4")
