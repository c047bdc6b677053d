"""Options of the host loop: devices, files, evaluations and stops. None changes a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ppo_jax.config.config import option
from ppo_jax.config.errors import InputError
from ppo_jax.config.validate import check_fields

POLICY_MODES = ("auto", "deterministic", "sampled")
PLATFORMS = ("cpu", "gpu", "tpu")
RESUME = ("never", "auto")

# Options that may change when a run is resumed. None changes a weight or a logged row; the run may
# only end at another point.
CHANGEABLE = (
    *("checkpoint_every", "checkpoint_minutes", "keep", "max_seconds", "stop_at_return"),
    *("devices", "platform", "quiet", "tensorboard", "wandb"),
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
    platform: str | None = option(None, "kind of device (else the best one available)", PLATFORMS)
    quiet: bool = option(False, "no live progress")
    tensorboard: bool = option(False, "log to TensorBoard as well (extra: tensorboard)")
    wandb: str | None = option(None, "log to this Weights & Biases project too (extra: wandb)")


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
    minutes, limit = options.checkpoint_minutes, options.max_seconds
    if not (math.isfinite(minutes) and minutes >= 0):
        raise InputError(f"checkpoint_minutes={minutes} must be a number of at least 0.")
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise InputError(f"max_seconds={limit} must be a number of more than 0.")
    if options.resume == "auto" and options.out is None:
        raise InputError("resume='auto' needs the run's folder: name it with --out.")
