"""What a run is: `Config` shapes the compiled program, `Hyper` holds every number in it.

If two values of a field can share one compiled program (and so one `vmap`), the field belongs to
`Hyper`; if it changes a shape or the program, it belongs to `Config`. Importing this file loads no
jax, so that bad input is answered at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

OBJECTIVES = ("clip", "pg", "is", "kl", "dpo", "spo", "drift", "trpo", "npg")
TRUST_REGION = ("trpo", "npg")  # one constrained step of the natural gradient, on L^IS
POLICIES = ("auto", "categorical", "gaussian", "gaussian-state-std", "gsde", "tanh-gaussian")
TORSOS = ("auto", "mlp", "cnn")
ACTIVATIONS = ("tanh", "relu", "swish", "gelu", "elu")
KL_DIRECTIONS = ("old-new", "new-old")
SHUFFLES = ("samples", "env-rows")
ADVANTAGE_NORMALIZATIONS = ("minibatch", "batch", "none")
TIME_LIMITS = ("truncation", "termination")
PRECISIONS = ("float32", "tf32", "bfloat16")


class InputError(ValueError):
    """Bad input: one sentence naming the value, the rule and the remedy (exit code 2)."""


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """The sentence part that names what the user may have meant, or an empty string."""
    lowered = {candidate.lower(): candidate for candidate in words}
    close = difflib.get_close_matches(word.lower(), lowered, n=count, cutoff=0.45)
    return f" Nearest: {', '.join(lowered[match] for match in close)}." if close else ""


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field that carries its own help text and allowed words."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Schedule:
    """A number that moves from `start` to `end` over `Hyper.schedule_env_steps` environment steps.

    `cosine` is 0 for a straight line and 1 for half a cosine; it is a number and not a word, so
    that members of one population may differ in it.
    """

    start: Any
    end: Any
    cosine: Any = 0.0

    def __str__(self) -> str:
        return f"{self.start:g}:{self.end:g}" + (":cosine" if self.cosine else "")


@dataclass(frozen=True)
class Config:
    """Everything that changes a shape or the compiled program. Hashable, so a static argument."""

    env: Any = option("CartPole-v1", "environment: a gymnax name, module:attribute, or an object")
    objective: str = option("clip", "surrogate objective", OBJECTIVES)
    drift: Any = option(None, "own drift D(ratio, advantage) of objective drift, module:function")
    kl_direction: str = option("old-new", "which exact KL objective kl penalises", KL_DIRECTIONS)
    total_env_steps: int = option(500_000, "training budget in environment steps of one seed")
    num_envs: int = option(8, "B, environments stepped side by side, per seed")
    rollout_length: int = option(128, "T, steps of each environment per iteration")
    num_epochs: int = option(4, "passes over each batch of T x B samples")
    num_minibatches: int = option(4, "minibatches per epoch; must divide T x B")
    num_cg_iterations: int = option(15, "conjugate-gradient steps of trpo and npg")
    measure_gradient_cosine: bool = option(
        False, "log the cosine between the gradients of L^PG and L^IS (costs two more an epoch)"
    )
    shuffle: str = option("samples", "what an epoch permutes", SHUFFLES)
    policy: str = option("auto", "action distribution (auto: by the action space)", POLICIES)
    torso: str = option("auto", "network body (auto: by the observation's shape)", TORSOS)
    hidden_sizes: tuple[int, ...] = option((64, 64), "widths of the hidden layers")
    activation: str = option("tanh", "activation of the hidden layers", ACTIVATIONS)
    shared_torso: bool = option(False, "actor and critic share the network body")
    orthogonal_init: bool = option(True, "orthogonal weights, gains sqrt(2), 0.01 and 1")
    network: Any = option(None, "own network, module:attribute or an (init_fn, apply_fn) pair")
    gsde_resample_steps: int = option(-1, "steps between gSDE noise draws (-1: once a rollout)")
    normalize_observations: bool = option(False, "standardise observations by running moments")
    normalize_rewards: bool = option(False, "divide rewards by the std of the discounted return")
    normalize_advantages: str = option(
        "minibatch", "where advantages are standardised", ADVANTAGE_NORMALIZATIONS
    )
    time_limits: str = option(
        "truncation", "how a time limit ends an episode (termination: for ablation)", TIME_LIMITS
    )
    precision: str = option("float32", "precision of matrix products", PRECISIONS)

    @property
    def batch_size(self) -> int:
        """N = T x B, samples per iteration and seed."""
        return self.num_envs * self.rollout_length

    @property
    def minibatch_size(self) -> int:
        return self.batch_size // self.num_minibatches

    @property
    def num_iterations(self) -> int:
        """The budget rounded up to whole iterations."""
        return -(-self.total_env_steps // self.batch_size)

    @property
    def trained_env_steps(self) -> int:
        """Environment steps that a whole run really takes, per seed."""
        return self.num_iterations * self.batch_size


@dataclass(frozen=True)
class Hyper:
    """Every number of a run: each may be a scalar, an array on a `vmap` axis, or a `Schedule`.

    "Off" is a value (an infinite clip, bound or norm), never another program.
    """

    learning_rate: Any = option(3e-4, "Adam's step size")
    gamma: Any = option(0.99, "discount factor")
    gae_lambda: Any = option(0.95, "lambda of GAE: 0 one-step, 1 Monte Carlo")
    clip_epsilon: Any = option(0.2, "half-width of the ratio's clip interval")
    clip_epsilon_high: Any = option(0.0, "upper half-width, where it differs (0: as clip_epsilon)")
    dual_clip: Any = option(math.inf, "bound c > 1 on the ratio where the advantage is negative")
    value_clip_epsilon: Any = option(math.inf, "half-width of the value clip (inf: off)")
    value_coef: Any = option(0.5, "weight of the value loss")
    entropy_coef: Any = option(0.0, "weight of the entropy bonus")
    max_grad_norm: Any = option(0.5, "bound of the gradient's global norm (inf: off)")
    adam_epsilon: Any = option(1e-5, "Adam's epsilon")
    kl_coef: Any = option(1.0, "beta, weight of the KL in objective kl")
    kl_target: Any = option(math.inf, "KL that an adaptive beta aims at (inf: beta is fixed)")
    kl_lr_target: Any = option(math.inf, "KL that an adaptive learning rate aims at (inf: off)")
    kl_stop: Any = option(math.inf, "KL[old||new] at which the remaining epochs are skipped")
    trust_region_kl: Any = option(0.01, "delta, bound on KL[old||new] of trpo and npg")
    fisher_damping: Any = option(0.1, "added to the Fisher matrix's diagonal by trpo and npg")
    log_std_init: Any = option(0.0, "initial log standard deviation of Gaussian policies")
    schedule_env_steps: Any = option(0.0, "length of the schedules (0: the whole budget)")
    env: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "the environment's own parameters, --env.NAME"}
    )


def parse_number(name: str, text: Any) -> float | Schedule:
    """`0.1`, `1e-3:0` or `1e-3:0:cosine` as a number or a `Schedule`."""
    if not isinstance(text, str):
        return text
    parts = text.split(":")
    shape = parts.pop() if len(parts) == 3 else "linear"
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or shape not in ("linear", "cosine"):
        raise InputError(
            f"{name}={text!r} is not a number: write a number such as 0.001, or a schedule "
            "START:END or START:END:cosine."
        )
    if len(numbers) == 1:
        return numbers[0]
    return Schedule(numbers[0], numbers[1], float(shape == "cosine"))


_SIZES = (
    *("total_env_steps", "num_envs", "rollout_length", "num_epochs", "num_minibatches"),
    "num_cg_iterations",
)

# name: (lowest, highest, lowest allowed itself)
_RANGES: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (0.0, math.inf, True),
    "gamma": (0.0, 1.0, True),
    "gae_lambda": (0.0, 1.0, True),
    "clip_epsilon": (0.0, math.inf, True),
    "clip_epsilon_high": (0.0, math.inf, True),
    "dual_clip": (1.0, math.inf, False),
    "value_clip_epsilon": (0.0, math.inf, False),
    "value_coef": (0.0, math.inf, True),
    "max_grad_norm": (0.0, math.inf, False),
    "adam_epsilon": (0.0, math.inf, False),
    "kl_coef": (0.0, math.inf, True),
    "kl_stop": (0.0, math.inf, False),
    "kl_target": (0.0, math.inf, False),
    "kl_lr_target": (0.0, math.inf, False),
    "trust_region_kl": (0.0, math.inf, False),
    "fisher_damping": (0.0, math.inf, True),
    "schedule_env_steps": (0.0, math.inf, True),
}

# Where infinity switches something off; anywhere else it is no number to learn with.
_MAY_BE_INFINITE = (
    *("clip_epsilon", "clip_epsilon_high", "dual_clip", "value_clip_epsilon", "max_grad_norm"),
    *("kl_target", "kl_lr_target", "kl_stop"),
)


def validate(config: Config, hyper: Hyper) -> None:
    """Refuse what cannot run, before anything is compiled.

    Raises:
        InputError: a sentence that names the value, the rule and the remedy.
    """
    for name in _SIZES:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
    for spec in dataclasses.fields(Config):
        check_choice(spec, getattr(config, spec.name))
    if not config.hidden_sizes or any(
        not isinstance(size, int) or size < 1 for size in config.hidden_sizes
    ):
        raise InputError(
            f"hidden_sizes={config.hidden_sizes!r} must name at least one width, each a whole "
            "number of at least 1, for example 64,64."
        )
    if config.gsde_resample_steps == 0 or config.gsde_resample_steps < -1:
        raise InputError(
            f"gsde_resample_steps={config.gsde_resample_steps} must be at least 1, or -1 for one "
            "draw a rollout."
        )
    _check_division(config)
    _check_standardised(config)
    if (config.drift is None) == (config.objective == "drift"):
        raise InputError(
            f"objective={config.objective!r} with drift={config.drift!r}: objective drift needs a "
            "drift (module:function), and no other objective takes one."
        )
    if config.total_env_steps < config.batch_size:
        raise InputError(
            f"total_env_steps={config.total_env_steps} is less than one iteration of num_envs x "
            f"rollout_length = {config.batch_size} steps: raise it to {config.batch_size} or "
            "lower num_envs or rollout_length."
        )
    for spec in dataclasses.fields(Hyper):
        if spec.name != "env":
            _check_number(spec.name, getattr(hyper, spec.name))
    if isinstance(hyper.schedule_env_steps, Schedule):
        raise InputError(
            f"schedule_env_steps={hyper.schedule_env_steps} is the length of the schedules and "
            "takes none itself: give one number of environment steps."
        )
    if config.objective == "spo" and any(_is_zero(end) for end in _ends(hyper.clip_epsilon)):
        raise InputError(
            f"clip_epsilon={hyper.clip_epsilon} must be more than 0 with objective spo, whose "
            "drift divides by it."
        )


def check_choice(spec: dataclasses.Field, value: Any) -> None:
    """Refuse a word that is none of the field's choices, where it has any."""
    choices = spec.metadata.get("choices")
    if choices and value not in choices:
        raise InputError(
            f"{spec.name}={value!r} is not one of {', '.join(choices)}."
            + nearest(str(value), choices)
        )


def _check_division(config: Config) -> None:
    rows, word = config.batch_size, "num_envs x rollout_length"
    if config.shuffle == "env-rows":
        rows, word = config.num_envs, "num_envs (with shuffle env-rows)"
    if rows % config.num_minibatches:
        divisors = [d for d in range(1, rows + 1) if rows % d == 0]
        best = min(divisors, key=lambda d: (abs(d - config.num_minibatches), d))
        raise InputError(
            f"num_minibatches={config.num_minibatches} does not divide {word} = {rows}; "
            f"the nearest number that does is {best}."
        )


def _check_standardised(config: Config) -> None:
    """A single advantage less its mean is 0: the policy would learn nothing, and nothing tell."""
    is_whole = config.normalize_advantages == "batch" or config.objective in TRUST_REGION
    rows = config.batch_size if is_whole else config.minibatch_size
    if config.normalize_advantages != "none" and rows < 2:
        word = "batch" if is_whole else "minibatch"
        remedy = "take more environments or a longer rollout"
        if not is_whole:
            remedy = "take fewer num_minibatches, normalize_advantages batch"
        raise InputError(
            f"normalize_advantages={config.normalize_advantages!r} would make the only advantage "
            f"of each {word} 0, so that the policy learns nothing: {remedy}, or "
            "normalize_advantages none."
        )


def _ends(value: Any) -> tuple[Any, ...]:
    return (value.start, value.end) if isinstance(value, Schedule) else (value,)


def _is_zero(end: Any) -> bool:
    return isinstance(end, int | float) and end == 0.0


def _check_number(name: str, value: Any) -> None:
    ends = _ends(value)
    if (
        not any(isinstance(end, int | float) and end != end for end in ends)
        and len({end in (math.inf, -math.inf) for end in ends if isinstance(end, int | float)}) > 1
    ):
        raise InputError(
            f"{name}={value} has no values between a finite and an infinite end: write a large "
            "number in place of inf."
        )
    low, high, closed = _RANGES.get(name, (-math.inf, math.inf, True))
    for end in ends:
        if hasattr(end, "aval") or getattr(end, "shape", ()) != ():
            continue  # an array on a vmap axis, or traced: its values are not here to be checked
        try:
            number = float(end)
        except (TypeError, ValueError):
            raise InputError(f"{name}={end!r} must be a number.") from None
        if math.isnan(number):
            raise InputError(f"{name}={end!r} must be a number.")
        if not (low <= number <= high) or (number == low and not closed):
            bound = f"at least {low:g}" if closed else f"more than {low:g}"
            upper = "" if high == math.inf else f" and at most {high:g}"
            raise InputError(f"{name}={end!r} must be {bound}{upper}.")
        if math.isinf(number) and name not in _MAY_BE_INFINITE:
            raise InputError(f"{name}={end!r} must be finite.")
