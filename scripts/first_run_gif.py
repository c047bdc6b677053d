"""Draw docs/images/first_run.gif: a real first training, and an episode of the policy.

`python scripts/first_run_gif.py` runs `ppo-jax train CartPole-v1` and `ppo-jax eval --video` in a
temporary folder. The lines are those that the program prints. Only the clock is not: each line is
shown for as long as it takes to read.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageSequence

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images" / "first_run.gif"
COMMAND = "ppo-jax train CartPole-v1"
WIDTH, HEIGHT, MARGIN, LINE = 800, 400, 14, 19
PAPER, INK, DIM, GREEN = "#14181f", "#e6e6e6", "#8b949e", "#7ee787"
EPISODE_FRAMES, EPISODE_HEIGHT = 45, 180
MAX_BYTES = 500_000
FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"


def main() -> None:
    """Train, evaluate, draw."""
    with tempfile.TemporaryDirectory() as folder:
        lines = ppo_jax(folder, "train", "CartPole-v1", "--out", "runs/RUN")
        ppo_jax(folder, "eval", "runs/RUN", "--video", "episode.gif", "--episodes", "16")
        with Image.open(Path(folder) / "episode.gif") as film:
            episode = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    step = max(1, len(episode) // 3 // EPISODE_FRAMES)
    write(lines, episode[: EPISODE_FRAMES * step : step])


def ppo_jax(folder: str, *words: str) -> list[str]:
    """Run a command, and return the lines that it prints for people."""
    done = subprocess.run(
        [sys.executable, "-m", "ppo_jax", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]


def write(lines: list[str], episode: list[Image.Image]) -> None:
    """Write the animation: the command, the live line in its place, the summary, the episode."""
    progress = [line for line in lines if "% " in line and " left" in line]
    first = lines.index(progress[0])
    head, tail = lines[:first], [line for line in lines[first:] if line not in progress]
    frames, seconds = [terminal(COMMAND[: 4 * i] + "_", []) for i in range(1, 8)], [0.1] * 7
    frames.append(terminal(COMMAND, head))
    seconds.append(0.8)
    for line in progress:
        frames.append(terminal(COMMAND, [*head, line]))
        seconds.append(0.35)
    whole = [*head, progress[-1], *tail]
    frames.append(terminal(COMMAND, whole))
    seconds.append(1.5)
    for picture in episode:
        frames.append(terminal(COMMAND, whole, picture))
        seconds.append(0.08)
    seconds[-1] = 3.0
    TARGET.parent.mkdir(exist_ok=True)
    palette = frames[-1].quantize(48, dither=Image.Dither.NONE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    small[0].save(
        TARGET,
        save_all=True,
        append_images=small[1:],
        duration=[round(1000 * each) for each in seconds],
        loop=0,
        optimize=True,
    )
    size = TARGET.stat().st_size
    print(f"{TARGET}: {len(frames)} frames, {size:,} bytes")
    if size > MAX_BYTES:
        raise SystemExit(f"{TARGET} has more than {MAX_BYTES:,} bytes: take fewer frames.")


def terminal(command: str, lines: list[str], picture: Image.Image | None = None) -> Image.Image:
    """One frame: the prompt, the lines below it, and a picture at the bottom."""
    frame = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(frame)
    font = ImageFont.truetype(str(FONT), 13)
    draw.text((MARGIN, MARGIN), "$ ", GREEN, font)
    draw.text((MARGIN + 16, MARGIN), command, INK, font)
    for row, line in enumerate(lines, 1):
        color = INK if " left" in line or line.startswith("return") else DIM
        draw.text((MARGIN, MARGIN + row * LINE), shortened(line), color, font)
    if picture is not None:
        scale = EPISODE_HEIGHT / picture.height
        small = picture.resize((round(picture.width * scale), EPISODE_HEIGHT))
        frame.paste(small, ((WIDTH - small.width) // 2, HEIGHT - EPISODE_HEIGHT - MARGIN))
    return frame


def shortened(line: str, letters: int = 97) -> str:
    return line if len(line) <= letters else line[: letters - 1] + "…"


if __name__ == "__main__":
    main()
