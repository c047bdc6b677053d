"""Options of the host loop: devices, files, evaluations and stops. None changes a weight."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ppo_jax.config.config import option, settle_counts
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import check_fields

POLICY_MODES = ("auto", "deterministic", "sampled")
PLATFORMS = ("cpu", "gpu", "tpu")
CHECKPOINTS = ("newest", "best")  # or a number of environment steps
RESUME = ("never", "auto")
CLUSTERS = ("none", "auto")
HOSTS = ("hosts", "coordinator", "num_hosts", "host_index")  # options that join several hosts

# Options that may change when a run is resumed. None changes a weight or a logged row; the run may
# only end at another point.
CHANGEABLE = (
    *("checkpoint_every", "checkpoint_minutes", "keep", "max_seconds", "stop_at_return"),
    *("devices", "mesh", "platform", "quiet", "tensorboard", "wandb"),
    *HOSTS,
)


@dataclass(frozen=True)
class RunOptions:
    """The host loop's settings; steps are environment steps of one seed."""

    seeds: int = option(1, "seeds trained side by side in one program")
    seed: int = option(0, "first seed; the others count up from it")
    out: str | None = option(None, "run folder (else runs/ENV-OBJECTIVE-UTCTIME)")
    eval_every: int = option(0, "environment steps between evaluations (0: only at the end)")
    eval_episodes: int = option(128, "whole episodes of each seed in an evaluation")
    policy_mode: str = option(
        "auto", "how evaluation acts (auto: as the environment asks)", POLICY_MODES
    )
    log_every: int = option(0, "environment steps between log rows (0: about 100 rows a run)")
    checkpoint_every: int = option(0, "environment steps between checkpoints (0: by minutes only)")
    checkpoint_minutes: float = option(5.0, "minutes between checkpoints (0: by steps only)")
    keep: int = option(2, "newest checkpoints to keep, beside the best evaluated one")
    resume: str = option("never", "auto: resume the run in --out, if there is one", RESUME)
    max_seconds: float | None = option(None, "save and stop after so many seconds (exit code 75)")
    stop_at_return: float | None = option(
        None, "stop once the IQM of an evaluation reaches this (training returns hint when to look)"
    )
    init_from: str | None = option(None, "start from the policy of another run's folder")
    devices: int | None = option(None, "devices to use (auto, as when left out: all of them)")
    mesh: str | None = option(None, "devices for seeds and for each seed's environments, by hand")
    platform: str | None = option(None, "kind of device (else the best one available)", PLATFORMS)
    hosts: str = option(
        "none", "auto: join the hosts of SLURM, Open MPI, Kubernetes or TPU", CLUSTERS
    )
    coordinator: str | None = option(None, "address and port of host 0, to join hosts by hand")
    num_hosts: int | None = option(None, "hosts that join at the coordinator")
    host_index: int | None = option(None, "number of this host, from 0 on")
    quiet: bool = option(False, "no live progress")
    tensorboard: bool = option(False, "log to TensorBoard as well (extra: tensorboard)")
    wandb: str | None = option(None, "log to this Weights & Biases project too (extra: wandb)")

    def __post_init__(self) -> None:
        settle_counts(self)


# name: (lowest, highest whole number)
_COUNTS = {
    "seeds": (1, 2**20),
    "seed": (0, 2**32 - 1),
    "eval_every": (0, 2**53),
    "eval_episodes": (1, 2**24),
    "log_every": (0, 2**53),
    "checkpoint_every": (0, 2**53),
    "keep": (1, 2**31),
    "devices": (1, 2**20),
    "num_hosts": (1, 2**16),
    "host_index": (0, 2**16),
}


def validate_options(options: RunOptions) -> None:
    """Refuse options that no run can follow.

    Raises:
        InputError: a sentence that names the value, the rule and the remedy.
    """
    check_fields(options, _COUNTS)
    if options.seed + options.seeds > 2**32:
        raise InputError(
            f"seed={options.seed} is too large for {options.seeds} seeds: the last one must be "
            f"at most {2**32 - 1}."
        )
    if options.stop_at_return is not None and not math.isfinite(options.stop_at_return):
        raise InputError(f"stop_at_return={options.stop_at_return} must be a finite number.")
    parse_mesh(options.mesh)
    check_hosts(options)
    minutes, limit = options.checkpoint_minutes, options.max_seconds
    if not (math.isfinite(minutes) and minutes >= 0):
        raise InputError(f"checkpoint_minutes={minutes} must be a number of at least 0.")
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise InputError(f"max_seconds={limit} must be a number of more than 0.")
    if options.resume == "auto" and options.out is None:
        raise InputError("resume='auto' needs the run's folder: name it with --out.")


def check_hosts(options: RunOptions) -> None:
    """Refuse hosts that cannot find each other."""
    by_hand = (options.coordinator, options.num_hosts, options.host_index)
    if all(value is None for value in by_hand):
        return
    if None in by_hand or options.hosts != "none":
        raise InputError(
            "coordinator, num_hosts and host_index join hosts by hand: give all three, and no "
            "hosts='auto'."
        )
    address, _, port = str(options.coordinator).rpartition(":")
    if not (address and re.fullmatch(r"\d{1,5}", port) and int(port) < 2**16):
        raise InputError(
            f"coordinator={options.coordinator!r} must be an address and a port, such as "
            "10.0.0.1:5577: give those of host 0."
        )
    if (options.host_index or 0) >= (options.num_hosts or 0):
        raise InputError(
            f"host_index={options.host_index} must be below num_hosts={options.num_hosts}: hosts "
            "count from 0."
        )


def has_hosts(options: RunOptions) -> bool:
    """Check whether a run is to have several hosts."""
    return options.hosts != "none" or options.coordinator is not None


def parse_mesh(words: str | None) -> tuple[int, int] | None:
    """The lengths of the axes `seed` and `env` of `seed=4,env=2`, 1 for one that is left out.

    Raises:
        InputError: other words.
    """
    if words is None:
        return None
    found = {"seed": 1, "env": 1}
    for part in words.split(","):
        name, _, number = part.strip().partition("=")
        if name not in found or not number.isdecimal() or not 1 <= int(number) <= 2**20:
            raise InputError(
                f"mesh={words!r} must be lengths of the axes seed and env, such as seed=4,env=2."
            )
        found[name] = int(number)
    return found["seed"], found["env"]
