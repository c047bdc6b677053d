"""The overview of all commands, and the way from other programs' commands to these."""

from __future__ import annotations

from collections.abc import Mapping

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.config.errors import nearest

# Heading -> command -> an example or a remark; the order is that of the first steps.
_GROUPS: dict[str, dict[str, str]] = {
    "Start": {
        "train": "ppo-jax train CartPole-v1 --seeds 8",
        "watch": "an episode of the trained policy",
        "eval": "scores over whole episodes",
        "report": "runs or a suite as one HTML page",
    },
    "Go on": {
        "resume": "after a stop or a kill; train ENV --init-from RUN fine-tunes",
        "runs": "the runs, newest first",
        "diff": "settings in which two runs differ",
    },
    "Search": {"sweep": "ppo-jax sweep CartPole-v1 learning_rate=1e-4..1e-2:5:log"},
    "Take along": {"export": "the policy for NumPy, ONNX, StableHLO"},
    "Understand": {
        "explain": "why the ratio? answered by experiment",
        "replay": "one seed again, bit for bit",
        "debug": "why a seed turned non-finite",
    },
    "Compare": {
        "compare": "runs by the interval of their difference",
        "reproduce": "published results next to measured ones",
        "bench": "the speed of this machine, and where time goes",
    },
    "Look up": {
        "envs": "environments",
        "presets": "tuned settings; with a name, one of them as a file",
        "doctor": "checks of this machine and of an environment",
        "completion": "tab completion for bash, zsh or fish",
    },
}

# Commands of other programs -> ours.
_OTHERS = {
    "enjoy": "watch",
    "play": "watch",
    "render": "watch",
    "view": "watch",
    "record": "watch",
    "evaluate": "eval",
    "test": "eval",
    "learn": "train",
    "run": "train",
    "fit": "train",
    "tune": "sweep",
    "optimize": "sweep",
    "search": "sweep",
    "ls": "runs",
    "list": "runs",
    "plot": "report",
    "continue": "resume",
    "benchmark": "bench",
    "profile": "bench",
}


def overview(commands: Mapping[str, Command]) -> Answer:
    """Show every command with its argument and an example or a remark."""
    lines = ["ppo-jax: PPO, TRPO and A2C in JAX. Train, look, compare.", ""]
    for heading, remarks in _GROUPS.items():
        for name, remark in remarks.items():
            usage = f"{name} {commands[name].usage}".strip()
            lines.append(f"{heading:<12}{usage:<24}{remark}")
            heading = ""
    lines += [
        "",
        "PPO is --objective clip, the default. eval, watch, resume and report take the newest run",
        "if none is named. `ppo-jax help COMMAND` has the options; `ppo-jax -V` the version.",
        "Documentation: the README and the folder docs of the repository.",
    ]
    return Answer({"commands": {name: each.summary for name, each in commands.items()}}, lines)


def other_command(name: str, commands: Mapping[str, Command]) -> str:
    """Return the end of a sentence with the command that `name` may mean."""
    known = _OTHERS.get(name.lower())
    if known is not None:
        return f" Its name here: {known}."
    if name in ("--verbose", "-v"):
        return " A command comes first; it takes --debug."
    return nearest(name, commands)
