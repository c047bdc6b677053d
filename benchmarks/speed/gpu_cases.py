"""The cases of `gpu.py`: their variants, ratios and shares, and the process of a trainer.

`python gpu_cases.py --worker TRAINER --case CASE` answers worker.py's commands. It runs in the
trainer's own environment, which need not have ppo_jax: standard library and `cases` only.
"""

from __future__ import annotations

import argparse
import dataclasses
import runpy
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cases
from cases import Case

HERE = Path(__file__).resolve().parent
OURS, PEER = "ppo_jax", "rejax"

# Kinds of CUDA graphs; a run of ours asks for graphs that hold loops, if the driver can.
LOOPS, OWN, NONE = "graphs for loops", "graphs as XLA makes them", "no graphs"


def gpu_cases(is_small: bool) -> dict[str, Case]:
    """The cases by name; budgets are whole iterations of about a second on an H100."""

    def case(
        name: str, title: str, envs: int, iterations: int, seeds: int = 1, **more: Any
    ) -> Case:
        if is_small:
            envs, seeds, iterations = min(envs, 16), min(seeds, 8), 2
        return Case(name, title, iterations * 128 * envs, envs, seeds, **more)

    pendulum: dict[str, Any] = {"env": "Pendulum-v1", "normalize_observations": True}
    breakout: dict[str, Any] = {"env": "Breakout-MinAtar", "activation": "relu", "torso": "cnn"}
    found = (
        case("g2048", "CartPole, 2,048 envs", 2048, 100),
        case("pendulum", "Pendulum, normalised, 2,048 envs", 2048, 100, **pendulum),
        case("seeds16", "CartPole, 16 agents x 64 envs", 64, 200, 16),
        case("seeds256", "CartPole, 256 agents x 64 envs", 64, 40, 256),
        case("breakout", "Breakout-MinAtar, 1,024 envs", 1024, 20, **breakout),
        case("trpo", "CartPole, TRPO, 2,048 envs", 2048, 40, objective="trpo"),
        case("g16384", "CartPole, 16,384 envs", 16_384, 20),
        case("g65536", "CartPole, 65,536 envs", 65_536, 8),
        case("agents", "CartPole, 2,048 agents x 4 envs", 4, 40, 2048),
        case("curve", "CartPole, 2,048 agents x 4 envs, 5e5 steps each", 4, 977, 2048),
    )
    return {each.name: each for each in found}


class Variant(NamedTuple):
    """One way to run a case."""

    trainer: str
    graphs: str = ""  # "" for a run's own choice, or one of the kinds above
    precision: str = "float32"  # of ours; Rejax's products are TF32

    @property
    def label(self) -> str:
        """The trainer, and what is unlike its default."""
        precision = "" if self.precision == "float32" else self.precision
        return ", ".join(filter(None, (self.trainer, self.graphs, precision)))


# A variant without options is its trainer's default. Rejax has no convolution: it takes the grid as
# one row. It has no TRPO.
OURS_ALONE = (Variant(OURS), Variant(OURS, precision="tf32"))
DEFAULTS = (*OURS_ALONE, Variant(PEER))
VARIANTS = {
    "g2048": (
        *DEFAULTS,
        Variant(OURS, precision="bfloat16"),
        *(Variant(OURS, graphs) for graphs in (LOOPS, OWN, NONE)),
        Variant(PEER, LOOPS),
    ),
    "trpo": OURS_ALONE,
    "curve": (Variant(OURS),),
}


def against(found: dict[str, Any]) -> dict[str, float]:
    """Ratio of our speed to Rejax's: both by default, and each at its best.

    A ratio that has no two speeds is left out.
    """
    speeds = {
        label: each["env_steps_per_second"]
        for label, each in found["trainers"].items()
        if "env_steps_per_second" in each
    }
    ratios = {}
    if OURS in speeds and PEER in speeds:
        ratios["default"] = speeds[OURS] / speeds[PEER]
    best = [
        max((speed for label, speed in speeds.items() if label.split(",")[0] == name), default=0.0)
        for name in (OURS, PEER)
    ]
    if all(best):
        ratios["best"] = best[0] / best[1]
    return ratios


def bytes_per_env_step(case: Case) -> int:
    """Bytes of memory traffic per step if each layer's result passes through memory.

    A model: in each epoch every hidden activation of both networks is written and read forward,
    read backward, and its gradient written and read, 4 bytes each; a record (observation, action,
    two logits, log-probability, value, advantage, target) is written once and read once an epoch.
    """
    activations = 2 * sum(case.hidden_sizes) * 4
    record = (cases.ENV_SIZES[case.env][0] + 7) * 4
    return case.num_epochs * 5 * activations + (1 + case.num_epochs) * record


def roofline(case: Case, speed: float, ceilings: dict[str, float]) -> dict[str, float]:
    """The share of what this device could do by arithmetic and by memory traffic."""
    flops, traffic = case.flops_per_env_step, bytes_per_env_step(case)
    by_flops = ceilings["matmul_flops_per_second"] / flops
    by_bytes = ceilings["copy_bytes_per_second"] / traffic
    return {
        "flops_per_env_step": flops,
        "bytes_per_env_step_if_layers_pass_through_memory": traffic,
        "ceiling_by_flops": by_flops,
        "ceiling_by_bytes": by_bytes,
        "fraction_of_flops": speed / by_flops,
        "fraction_of_bytes": speed / by_bytes,
    }


def serve(arguments: argparse.Namespace) -> None:
    """Main loop of a trainer's process: worker.py's protocol on the cases of this file."""
    register(arguments.case, arguments.precision, arguments.small)
    script = HERE / f"worker_{arguments.worker}.py"
    sys.argv = [str(script), "--case", arguments.case]
    runpy.run_path(str(script), run_name="__main__")


def register(name: str, precision: str, is_small: bool) -> None:
    """Add the cases to those that a worker knows, one of them at a precision."""
    found = gpu_cases(is_small)
    own = dataclasses.replace(found[name], precision=precision)
    cases.ALL_CASES.update({**found, name: own})  # in place: worker.py holds this dict


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker", choices=(OURS, PEER), required=True)
    parser.add_argument("--case", choices=gpu_cases(False), required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--small", action="store_true", help="small sizes, on any device")
    return parser.parse_args()


if __name__ == "__main__":
    serve(parse())
