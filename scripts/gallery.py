"""Train the policies of docs/gallery.md and draw an episode of each: `python scripts/gallery.py`.

    python scripts/gallery.py --work FOLDER                # all; runs that are there are kept
    python scripts/gallery.py --work FOLDER CartPole-v1    # one of them

Every picture is made by `ppo-jax train` and `ppo-jax eval --video`. It is then made smaller, frame
by frame, and the page is written with the commands and the returns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageSequence

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images" / "gallery"
MAX_BYTES, MAX_SIDE, MAX_FRAMES = 140_000, 192, 200

BATCHES = "--num-envs 32 --rollout-length 64 --num-epochs 10 --num-minibatches 16"
SCALED = "--normalize-observations --normalize-rewards"
GRID = "--num-envs 8 --rollout-length 128 --num-epochs 10 --num-minibatches 16 --torso mlp"
BOARD = "--num-envs 64 --rollout-length 32 --num-epochs 4 --num-minibatches 8 --torso mlp"

# Environment -> flags of `train`; without any, the preset of its name. A policy mode that stands
# here holds for the picture, too.
SHOWN = {
    "CartPole-v1": "",
    "Breakout-MinAtar": "",
    "brax/inverted_pendulum": (
        f"--no-preset --total-env-steps 200000 {BATCHES} {SCALED} --learning-rate 3e-4"
    ),
    "playground/CartpoleBalance": (
        f"--no-preset --total-env-steps 200000 {BATCHES} {SCALED} --learning-rate 1e-3:0"
    ),
    "xminigrid/MiniGrid-DoorKey-5x5": (
        f"--no-preset --total-env-steps 100000 {GRID} {SCALED} --learning-rate 5e-4:0"
        " --entropy-coef 0.01:0"
    ),
    "navix/Navix-Empty-8x8-v0": (
        f"--no-preset --total-env-steps 100000 {GRID} {SCALED} --learning-rate 3e-4"
    ),
    "jumanji/Snake-v1": (
        "--no-preset --total-env-steps 1000000 --num-envs 64 --rollout-length 64 --num-epochs 4"
        " --num-minibatches 16 --torso mlp --hidden-sizes 256,256 --normalize-observations"
        " --learning-rate 1e-3:0 --entropy-coef 0.02:0 --policy-mode sampled"
    ),
    "jumanji/Game2048-v1": (
        "--no-preset --total-env-steps 250000 --num-envs 32 --rollout-length 64 --num-minibatches 8"
        " --normalize-rewards --learning-rate 1e-3 --entropy-coef 0.01"
    ),
    "gymnasium/InvertedPendulum-v5": "--preset gymnasium/mujoco --total-env-steps 102400",
    "craftax/Craftax-Classic-Symbolic-v1": (
        "--no-preset --total-env-steps 300000 --num-envs 64 --rollout-length 64 --num-minibatches 8"
        " --learning-rate 1e-3:0 --gae-lambda 0.8 --entropy-coef 0.01"
    ),
    "pgx/connect_four": (
        f"--no-preset --total-env-steps 200000 {BOARD} --gamma 1 --learning-rate 1e-3:0"
        " --entropy-coef 0.01:0"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SHOWN))
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in asked.names:
        show(name, asked.work.resolve() / name.replace("/", "__"))
    write_page()


def show(name: str, run: Path) -> None:
    """Train one policy, if it is not there, and draw it."""
    words = ["train", name, *SHOWN[name].split(), "--quiet", "--json", "--out", str(run)]
    if not (run / "summary.json").exists():
        ppo_jax(*words, "--eval-episodes", "32")
    film = run / "episode.gif"
    if not film.exists():
        ppo_jax("eval", str(run), "--episodes", "1", *mode_flags(name), "--video", str(film))
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    stem = name.replace("/", "-").lower()
    size = make_smaller(film, PICTURES / f"{stem}.gif")
    facts = {
        "env": name,
        "return": summary["final_return"]["mean"],
        "policy_mode": summary["policy_mode"],
        "env_steps": summary["env_steps"],
        "seconds_of_training": round(summary["train_seconds"]),
    }
    (PICTURES / f"{stem}.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print(name, facts["return"], size, "bytes", flush=True)


def mode_flags(name: str) -> list[str]:
    """The policy mode among an environment's flags, as flags of `eval`."""
    words = SHOWN[name].split()
    place = words.index("--policy-mode") if "--policy-mode" in words else len(words)
    return words[place : place + 2]


def ppo_jax(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "ppo_jax", *words], check=True, stdout=subprocess.DEVNULL)


def make_smaller(source: Path, target: Path) -> int:
    """Shrink the frames of a GIF, and drop every second one until it is small enough."""
    film = Image.open(source)
    duration = film.info.get("duration", 40)
    frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)][:MAX_FRAMES]
    share = min(1.0, MAX_SIDE / max(frames[0].size))
    size = tuple(round(side * share) for side in frames[0].size)
    frames = [frame.resize(size, Image.Resampling.BOX) for frame in frames]
    while True:
        few = [frame.quantize(32, dither=Image.Dither.NONE) for frame in frames]
        few[0].save(
            target, save_all=True, append_images=few[1:], duration=duration, loop=0, optimize=True
        )
        if target.stat().st_size <= MAX_BYTES or len(frames) < 8:
            return target.stat().st_size
        frames, duration = frames[::2], duration * 2


def write_page() -> None:
    """Write docs/gallery.md from the pictures that are there."""
    lines = [
        "# Gallery",
        "",
        "Episodes of trained policies, one seed each. The commands below a picture made it, and "
        "`python scripts/gallery.py --work FOLDER`",
        "makes the pictures of all suites. A return is the mean of 32 episodes. A picture is made "
        f"smaller, and may show the first {MAX_FRAMES}",
        "steps or every second one. [environments.md](environments.md) has the suites, "
        "[results.md](results.md) several seeds.",
    ]
    for name, flags in SHOWN.items():
        stem = name.replace("/", "-").lower()
        if not (PICTURES / f"{stem}.gif").exists():
            continue
        facts = json.loads((PICTURES / f"{stem}.json").read_text("utf-8"))
        lines += [
            "",
            f"## {name}",
            "",
            f"![An episode of {name}](images/gallery/{stem}.gif)",
            "",
            f"    ppo-jax train {name} {flags}".rstrip(),
            " ".join(["    ppo-jax eval runs/RUN", *mode_flags(name), "--video episode.gif"]),
            "",
            f"Return {facts['return']:.4g} "
            f"({facts['policy_mode']}) after {facts['env_steps']:,} environment steps.",
        ]
    (ROOT / "docs" / "gallery.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
