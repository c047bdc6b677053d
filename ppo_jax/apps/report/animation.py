"""One episode of a run's policy as an animation small enough for a page."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.config.errors import InputError
from ppo_jax.config.trust import Trust, code_names, unvouched

MAX_SIDE = 320  # pixels
MAX_FRAMES = 240  # a longer episode is cut here
MAX_BYTES = 400_000  # limit of one animation, which loses frames until it is smaller


class Animation(NamedTuple):
    """An episode as pictures for a page."""

    image: str  # data URL of a GIF
    still: str  # data URL of one frame, for paper and for readers who want no motion
    facts: dict[str, Any]  # member, seed and steps, for the data of the page


def of_run(
    folder: Path, run: Mapping[str, Any], max_bytes: int = MAX_BYTES, trust: Trust = False
) -> Animation | str:
    """Draw an episode of the run's typical seed, whose final return is nearest to the IQM.

    Returns:
        the animation, or a sentence with the reason why there is none.
    """
    if run["summary"] is None or run["summary"]["final_return"]["iqm"] is None:
        return "No animation: the run has no final evaluation."
    refused = unvouched(code_names(run["config"]), trust)
    if refused:
        return (
            f"No animation: the run names the program {refused[0][1]!r}, and a report loads no "
            "programs unless --trust allows it."
        )
    from ppo_jax.config.options import RunOptions
    from ppo_jax.runtime import devices, evaluation, frames, saved_run

    final = run["summary"]["final_return"]
    scores = [np.inf if x is None else abs(x - final["iqm"]) for x in final["per_seed"]]
    member = int(np.argmin(scores))
    mode = run["summary"]["policy_mode"]
    devices.prepare_jax(RunOptions())
    try:
        config, hyper, state = saved_run.load_member(folder, member, trust=trust)
        episode = frames.draw_frames(config, hyper, state, mode, evaluation.FINAL)
    except InputError as error:
        return f"No animation: {error}"
    pictures, _, ended = episode
    shown = pictures[: MAX_FRAMES + 1]
    smaller = [_smaller(frame) for frame in shown]
    image = _gif(smaller, max_bytes)
    if image is None:
        return "No animation: its pictures are too large for a page."
    return Animation(
        image=_url("gif", image),
        still=_url("png", _png(smaller[len(smaller) // 2])),
        facts={
            "member": member,
            "seed": int(run["options"].get("seed") or 0) + member,
            "final_return": final["per_seed"][member],
            "steps_shown": len(shown) - 1,
            "episode_steps": len(pictures) - 1 if ended else None,
            "policy_mode": mode,
        },
    )


def _smaller(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    share = MAX_SIDE / max(frame.shape[:2])
    if share >= 1.0:
        return frame
    size = (round(frame.shape[1] * share), round(frame.shape[0] * share))
    return np.asarray(Image.fromarray(frame).resize(size))


def _gif(frames: list[np.ndarray], max_bytes: int) -> bytes | None:
    """Encode the frames as a GIF; drop every second one until it is small enough."""
    from ppo_jax.analysis import video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.gif"
        while True:
            video.write(path, frames)
            if path.stat().st_size <= max_bytes:
                return path.read_bytes()
            if len(frames) < 8:
                return None
            frames = frames[::2]


def _png(frame: np.ndarray) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).quantize(32).save(file, "PNG", optimize=True)
    return file.getvalue()


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
