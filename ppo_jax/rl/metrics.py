"""The table of metrics: one row for each number that an iteration or a logged point reports.

The logs, the progress line, the report and the documentation read this table. A new metric is one
row here and one line at its computation. This file imports no jax.
"""

from __future__ import annotations

from typing import NamedTuple

# Reductions of a metric over the iterations of a logged point.
MEAN, SUM, MAX, LAST = "mean", "sum", "max", "last"

# Places that show a metric. Each place includes the ones after it; every metric is in the file.
SCREEN = "screen"  # progress line
REPORT = "report"  # chart of a report
CHANGE = "change"  # chart of a report, but only if the metric changes over the run
FILE = "file"  # metrics.jsonl


class Metric(NamedTuple):
    """A row of the table."""

    title: str
    meaning: str
    unit: str  # empty for pure numbers and shares
    reduction: str
    shown: str


METRICS: dict[str, Metric] = {
    "episode_return": Metric(
        "Return", "mean return of the training episodes that ended", "reward", MEAN, SCREEN
    ),
    "kl_old_new": Metric(
        "KL", "exact KL[π_old‖π_θ], mean over the samples before each step", "nats", MEAN, SCREEN
    ),
    "clip_fraction": Metric("Clip fraction", "share of ratios outside 1 ± ε", "", MEAN, REPORT),
    "entropy": Metric("Entropy", "mean entropy of the policy", "nats", MEAN, REPORT),
    "explained_variance": Metric(
        "Explained variance",
        "1 − Var[R − V] / Var[R] of the critic before the update",
        "",
        MEAN,
        REPORT,
    ),
    "ess_fraction": Metric(
        "Effective sample size", "(Σr)² / (N Σr²) of the ratios r", "", MEAN, REPORT
    ),
    "ratio_max": Metric("Largest ratio", "largest π_θ(a|s) / π_old(a|s)", "", MAX, REPORT),
    "value_loss": Metric("Value loss", "loss of the critic", "reward²", MEAN, REPORT),
    "grad_norm": Metric(
        "Gradient norm", "global norm of the gradient before clipping", "", MEAN, REPORT
    ),
    "kl_coef": Metric("β", "coefficient of the KL penalty, as adapted", "", MEAN, CHANGE),
    "learning_rate": Metric(
        "Learning rate", "step size of the optimiser, as scheduled and adapted", "", LAST, CHANGE
    ),
    "episode_length": Metric(
        "Episode length", "mean length of the training episodes that ended", "steps", MEAN, REPORT
    ),
    "updates_fraction": Metric(
        "Updates",
        "share of minibatches that changed the weights; trpo: accepted share of the step",
        "",
        MEAN,
        CHANGE,
    ),
    "refused_fraction": Metric(
        "Refused", "share of iterations whose update was not finite", "", MEAN, CHANGE
    ),
    "eval_return": Metric(
        "Evaluation return",
        "mean return of whole episodes, evaluated during training",
        "reward",
        LAST,
        REPORT,
    ),
    "policy_loss": Metric("Policy loss", "the surrogate, negated", "", MEAN, FILE),
    "kl_new_old": Metric("Reverse KL", "exact KL[π_θ‖π_old], as kl_old_new", "nats", MEAN, FILE),
    "kl_k1": Metric("KL, k1", "Schulman's estimator −log r of KL[π_old‖π_θ]", "nats", MEAN, FILE),
    "kl_k3": Metric(
        "KL, k3", "Schulman's estimator r − 1 − log r of KL[π_old‖π_θ]", "nats", MEAN, FILE
    ),
    "ratio_mean": Metric("Mean ratio", "mean π_θ(a|s) / π_old(a|s)", "", MEAN, FILE),
    "clamped_fraction": Metric(
        "Clamped fraction",
        "share of log-ratios clamped to ±20, which keeps ratios finite",
        "",
        MEAN,
        FILE,
    ),
    "log_ratio_abs_first": Metric(
        "First log-ratio",
        "largest |log r| of the first minibatch; 0 up to rounding",
        "nats",
        MAX,
        FILE,
    ),
    "gradient_cosine_first_epoch": Metric(
        "Gradient cosine, first epoch",
        "cosine of ∇L^PG and ∇L^IS at the start of the first epoch",
        "",
        MEAN,
        FILE,
    ),
    "gradient_cosine_last_epoch": Metric(
        "Gradient cosine, last epoch",
        "cosine of ∇L^PG and ∇L^IS at the start of the last epoch",
        "",
        MEAN,
        FILE,
    ),
    "kl_old_new_probe_first_epoch": Metric(
        "KL, first epoch",
        "KL[π_old‖π_θ] at the start of the first epoch",
        "nats",
        MEAN,
        FILE,
    ),
    "kl_old_new_probe_last_epoch": Metric(
        "KL, last epoch", "KL[π_old‖π_θ] at the start of the last epoch", "nats", MEAN, FILE
    ),
    "ess_fraction_probe_first_epoch": Metric(
        "Effective sample size, first epoch",
        "effective sample size at the start of the first epoch",
        "",
        MEAN,
        FILE,
    ),
    "ess_fraction_probe_last_epoch": Metric(
        "Effective sample size, last epoch",
        "effective sample size at the start of the last epoch",
        "",
        MEAN,
        FILE,
    ),
    "dropped_fraction": Metric(
        "Dropped",
        "share of transitions left out, with `--drop-bad-transitions` only",
        "",
        MEAN,
        CHANGE,
    ),
    "alive": Metric("Alive", "1 until too many updates were refused, then 0", "", LAST, FILE),
    "num_episodes": Metric("Episodes", "training episodes that ended", "episodes", SUM, FILE),
    "episode_return_sum": Metric(
        "Sum of returns", "sum over the training episodes that ended", "reward", SUM, FILE
    ),
    "episode_length_sum": Metric(
        "Sum of lengths", "sum over the training episodes that ended", "steps", SUM, FILE
    ),
}

# Metrics of an environment of its own, `Environment.metrics`: `env/NAME` in a row of the log is the
# mean over the episodes that ended, `env/NAME_sum` of an iteration their sum.
ENV_PREFIX = "env/"
_SUM_SUFFIX = "_sum"

# The host computes these for a logged point. `trainer.iterate` returns all others.
OF_POINTS = ("episode_return", "episode_length", "eval_return")


def env_metric_sum(name: str) -> str:
    """The name of an environment's metric in an iteration, summed over the episodes that ended."""
    return f"{ENV_PREFIX}{name}{_SUM_SUFFIX}"


def mean_of_env(name: str) -> str | None:
    """The name in the log of an environment's metric of an iteration; None for another metric."""
    is_own = name.startswith(ENV_PREFIX) and name.endswith(_SUM_SUFFIX)
    return name.removesuffix(_SUM_SUFFIX) if is_own else None


def describe(name: str) -> Metric:
    """The row of a metric; one of an environment's own is described by its name."""
    if name in METRICS:
        return METRICS[name]
    meaning = "mean over the training episodes that ended, as the environment counts it"
    title = name.removeprefix(ENV_PREFIX).replace("_", " ")
    return Metric(title, meaning, "", MEAN, CHANGE)


def reduction_of(name: str) -> str:
    """Return how a metric is reduced over iterations; one outside the table by its mean."""
    if mean_of_env(name) is not None:
        return SUM
    return METRICS[name].reduction if name in METRICS else MEAN
