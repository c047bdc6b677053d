"""The settings of a run: `Config` shapes the compiled program, `Hyper` holds its numbers.

A field belongs to `Hyper` if two of its values can share one compiled program, and so one `vmap`.
A field that changes a shape or the program belongs to `Config`. This file imports no jax, so that
bad input is refused without delay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from ppo_jax.config.errors import InputError, nearest
from ppo_jax.config.names import distant_hint, exact_hint

if TYPE_CHECKING:
    import numpy as np
    from jax import Array

# One number, or an array of numbers on a `vmap` axis.
Value: TypeAlias = "float | np.floating | np.ndarray | Array"
# A field of `Hyper` as the user gives it.
Number: TypeAlias = "Value | Schedule"
Num = TypeVar("Num", bound="Number", covariant=True)

OBJECTIVES = ("clip", "pg", "is", "kl", "dpo", "spo", "drift", "trpo", "npg")
# Words of papers and other programs that mean exactly one word here, by field.
SAME_WORDS = {
    "objective": {"ppo": "clip", "ppo-clip": "clip", "ppo-kl": "kl", "ppo-penalty": "kl"},
}
TRUST_REGION = ("trpo", "npg")  # one constrained step of the natural gradient, on L^IS
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd", "muon", "rmsprop_torch")
POLICIES = ("auto", "categorical", "gaussian", "gaussian-state-std", "gsde", "tanh-gaussian")
TORSOS = ("auto", "mlp", "cnn")
MEMORIES = ("none", "gru", "lstm", "mingru", "lru", "attention")
MEMORY_STARTS = ("zero", "learned")
PREVIOUS = ("action", "reward", "start")  # inputs from the step before
PREVIOUS_INPUTS = (
    *("none", *PREVIOUS, "action+reward", "action+start", "reward+start", "action+reward+start"),
)
ACTIVATIONS = ("tanh", "relu", "swish", "gelu", "elu")
KL_DIRECTIONS = ("old-new", "new-old")
SHUFFLES = ("samples", "env-rows")
ADVANTAGE_NORMALIZATIONS = ("minibatch", "batch", "none")
TIME_LIMITS = ("truncation", "termination")
PRECISIONS = ("float32", "tf32", "bfloat16")


def canonical(field: str, word: Any) -> Any:
    """Replace another program's word for a field's value by the same one here."""
    return SAME_WORDS.get(field, {}).get(word.lower(), word) if isinstance(word, str) else word


def hint(name: str, words: Iterable[str]) -> str:
    """Return the end of a sentence with the settings nearest to `name`, other names included."""
    known = tuple(words)
    return exact_hint(name, known) or nearest(name, known) or distant_hint(name, known)


def refuse_unknown(owner: type, names: Iterable[str]) -> None:
    """Refuse names that are no fields of a dataclass of settings; the sentence names the nearest.

    Raises:
        InputError: the first such name.
    """
    own = [spec.name for spec in fields(owner)]
    for name in names:
        if name in own:
            continue
        others = [other for other in (Config, Hyper) if name in other.__dataclass_fields__]
        way = f" It is a field of {others[0].__name__}." if others else hint(name, own)
        raise InputError(f"{owner.__name__} has no {name!r}.{way}")


def whole(value: Any) -> Any:
    """A whole number of NumPy or jax as Python's own; anything else as it is."""
    try:
        return value if isinstance(value, bool) else index(value)
    except TypeError:
        return value


def settle_counts(record: Any) -> None:
    """Make the counts of a frozen dataclass Python's own, for hashes, files and messages."""
    for spec in fields(record):
        if str(spec.type).removesuffix(" | None") == "int":
            object.__setattr__(record, spec.name, whole(getattr(record, spec.name)))


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """Make a dataclass field that carries its help text and allowed words."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Schedule:
    """A number that moves from `start` to `end` over `Hyper.schedule_env_steps` environment steps.

    `cosine` is 0 for a straight line and 1 for half a cosine. It is a number, so members of one
    population may differ in it.
    """

    start: Value
    end: Value
    cosine: Value = 0.0

    def __str__(self) -> str:
        return f"{self.start:g}:{self.end:g}" + (":cosine" if self.cosine else "")


@dataclass(frozen=True)
class Config:
    """Everything that changes a shape or the compiled program; hashable, so a static argument."""

    env: Any = option("CartPole-v1", "environment: a gymnax name, module:attribute, or an object")
    objective: str = option("clip", "surrogate objective", OBJECTIVES)
    optimizer: Any = option(
        "adam", f"optimiser: {', '.join(OPTIMIZERS)}, or module:function of the user's own"
    )
    drift: Any = option(None, "own drift D(ratio, advantage) of objective drift, module:function")
    kl_direction: str = option("old-new", "direction of the KL in objective kl", KL_DIRECTIONS)
    total_env_steps: int = option(500_000, "training budget in environment steps of one seed")
    num_envs: int = option(8, "B, environments of one seed, stepped side by side")
    rollout_length: int = option(128, "T, steps of each environment per iteration")
    start_states: int = option(
        0, "fresh start states a rollout, from which its new episodes draw (0: one each)"
    )
    num_epochs: int = option(4, "passes over each batch of T x B samples")
    num_minibatches: int = option(4, "minibatches per epoch; must divide T x B")
    num_cg_iterations: int = option(15, "conjugate-gradient steps of trpo and npg")
    measure_gradient_cosine: bool = option(
        False, "log the cosine between the gradients of L^PG and L^IS (two more gradients an epoch)"
    )
    shuffle: str = option(
        "samples", "rows that an epoch permutes (a memory: always env-rows)", SHUFFLES
    )
    policy: str = option("auto", "action distribution (auto: by the action space)", POLICIES)
    torso: str = option("auto", "network body (auto: by the observation's shape)", TORSOS)
    hidden_sizes: tuple[int, ...] = option((64, 64), "widths of the hidden layers")
    activation: str = option("tanh", "activation of the hidden layers", ACTIVATIONS)
    shared_torso: bool = option(False, "actor and critic share the network body")
    orthogonal_init: bool = option(True, "orthogonal weights, gains sqrt(2), 0.01 and 1")
    memory: str = option("none", "core with a memory between torso and heads", MEMORIES)
    memory_size: int = option(128, "width of the memory")
    memory_layers: int = option(1, "layers of the memory, one on the other")
    memory_window: int = option(16, "K, observations of an episode that memory attention sees")
    memory_start: str = option("zero", "memory at the start of an episode", MEMORY_STARTS)
    previous_inputs: str = option(
        "none", "inputs from the step before, and a flag at the start", PREVIOUS_INPUTS
    )
    network: Any = option(
        None, "own network, module:attribute or (init_fn, apply_fn), with start_fn for a memory"
    )
    gsde_resample_steps: int = option(-1, "steps between gSDE noise draws (-1: once a rollout)")
    scale_bytes: bool = option(
        True, "divide uint8 observations by the highest value of their space (built-in networks)"
    )
    one_hot_integers: bool = option(
        True, "see whole numbers of 3 to 64 values one-hot, as tiles of a grid (built-in networks)"
    )
    scale_integers: bool = option(
        True, "divide other whole numbers by the largest that they can be (built-in networks)"
    )
    normalize_observations: bool = option(False, "standardise observations by running moments")
    normalize_rewards: bool = option(False, "divide rewards by the std of the discounted return")
    normalize_advantages: str = option(
        "minibatch", "samples over which advantages are standardised", ADVANTAGE_NORMALIZATIONS
    )
    drop_bad_transitions: bool = option(
        False,
        "leave out a transition whose reward or observation is not finite, not the whole batch",
    )
    time_limits: str = option(
        "truncation",
        "how a time limit ends an episode (termination: for ablation)",
        TIME_LIMITS,
    )
    precision: str = option("float32", "precision of matrix products", PRECISIONS)

    def __new__(cls, *values: Any, **named: Any) -> Self:
        del values
        refuse_unknown(cls, named)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", canonical("objective", self.objective))
        settle_counts(self)
        if isinstance(self.hidden_sizes, tuple):
            object.__setattr__(self, "hidden_sizes", tuple(map(whole, self.hidden_sizes)))

    @property
    def batch_size(self) -> int:
        """N = T x B, samples per iteration and seed."""
        return self.num_envs * self.rollout_length

    @property
    def minibatch_size(self) -> int:
        """Samples per optimiser step."""
        return self.batch_size // self.num_minibatches

    @property
    def num_iterations(self) -> int:
        """The budget rounded up to whole iterations."""
        return -(-self.total_env_steps // self.batch_size)

    @property
    def trained_env_steps(self) -> int:
        """Environment steps that a whole run takes, per seed."""
        return self.num_iterations * self.batch_size


@dataclass(frozen=True)
class Hyper(Generic[Num]):
    """Every number of a run: each may be a scalar, an array on a `vmap` axis, or a `Schedule`.

    "Off" is a value (an infinite clip, bound or norm), never another program. The type's parameter
    is the type of the numbers: a user gives `Number`, and `Hyper[Value]` has no schedules left.
    """

    learning_rate: Num = option(Schedule(3e-3, 0.0), "step size of the optimiser")
    gamma: Num = option(0.99, "discount factor")
    gae_lambda: Num = option(0.95, "lambda of GAE: 0 one-step, 1 Monte Carlo")
    clip_epsilon: Num = option(0.2, "half-width of the ratio's clip interval")
    clip_epsilon_high: Num = option(0.0, "upper half-width, if it differs (0: as clip_epsilon)")
    dual_clip: Num = option(math.inf, "bound c > 1 on the ratio if the advantage is negative")
    value_clip_epsilon: Num = option(math.inf, "half-width of the value clip (inf: off)")
    value_coef: Num = option(0.5, "weight of the value loss")
    entropy_coef: Num = option(0.0, "weight of the entropy bonus")
    max_grad_norm: Num = option(0.5, "bound of the gradient's global norm (inf: off)")
    adam_epsilon: Num = option(1e-5, "epsilon of adam, adamw and both forms of rmsprop")
    weight_decay: Num = option(0.0, "decay of the weights by adamw and muon, times the step size")
    momentum: Num = option(0.0, "share of the last step that sgd and muon keep")
    rmsprop_decay: Num = option(0.99, "decay of rmsprop's mean of squared gradients")
    kl_coef: Num = option(1.0, "beta, weight of the KL in objective kl")
    kl_target: Num = option(math.inf, "KL that an adaptive beta aims at (inf: beta is fixed)")
    kl_lr_target: Num = option(math.inf, "KL that an adaptive learning rate aims at (inf: off)")
    kl_stop: Num = option(math.inf, "KL[old||new] at which the remaining epochs are skipped")
    trust_region_kl: Num = option(0.01, "delta, bound on KL[old||new] of trpo and npg")
    fisher_damping: Num = option(0.1, "added to the Fisher matrix's diagonal by trpo and npg")
    log_std_init: Num = option(0.0, "initial log standard deviation of Gaussian policies")
    max_failures: Num = option(
        3.0, "refused updates that freeze a seed; each accepted one takes two back (inf: never)"
    )
    schedule_env_steps: Num = option(0.0, "length of the schedules (0: the whole budget)")
    env: Mapping[str, Any] = field(
        default_factory=dict, metadata={"help": "the environment's own parameters, --env.NAME"}
    )

    def __new__(cls, *values: Any, **named: Any) -> Self:
        del values
        refuse_unknown(cls, named)
        return super().__new__(cls)
