"""Pictures of an episode as an animation: GIF through Pillow, MP4 through imageio."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ppo_jax.config.errors import InputError, install

FRAMES_PER_SECOND = 30
SUFFIXES = (".gif", ".mp4")


def check(path: Path) -> None:
    """Refuse a file that cannot become an animation, before an episode is played.

    Raises:
        InputError: another suffix, a missing folder, or a missing package.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"video={str(path)!r} must end in .gif or .mp4.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"video={str(path)!r} cannot be written, because {str(path.parent)!r} is no writable "
            "folder: name a file in another one."
        )
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError(
                f"MP4 needs the extra `video` ({install('video')}); .gif needs nothing."
            ) from None


def write(path: Path, frames: list[np.ndarray]) -> None:
    """Write RGB frames, uint8 [H, W, 3] each, in the format of the suffix."""
    if path.suffix.lower() == ".mp4":
        import imageio.v2 as imageio  # pyright: ignore[reportMissingImports]

        even: list[ArrayLike] = [
            frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames
        ]
        imageio.mimsave(path, even, fps=FRAMES_PER_SECOND, macro_block_size=2)
        return
    from PIL import Image

    pictures = [Image.fromarray(frame).quantize(64) for frame in frames]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        duration=1000 // FRAMES_PER_SECOND,
        loop=0,
        optimize=True,
    )
