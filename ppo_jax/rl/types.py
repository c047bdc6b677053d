"""The nouns of the trainer. Letters behind arrays are their shapes:

T time steps, B environments, N = T x B samples, M minibatch, A action dimensions,
*O the observation's own shape, *D the leaves of a distribution's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax import Array

from ppo_jax.config.config import Hyper, Schedule

PyTree = Any

jax.tree_util.register_dataclass(Schedule, ["start", "end", "cosine"], [])
jax.tree_util.register_dataclass(Hyper, list(Hyper.__dataclass_fields__), [])


class Moments(NamedTuple):
    """Running mean and variance of a stream of vectors."""

    count: Array  # []
    mean: Array  # [*O]
    m2: Array  # [*O], sum of squared deviations from the mean


class EnvCarry(NamedTuple):
    """What the rollout hands from one step to the next, and from one iteration to the next."""

    state: PyTree  # [B, ...], the environments' own states
    observation: Array  # [B, *O], raw, of the next step
    episode_return: Array  # [B], undiscounted reward so far in the running episode
    episode_length: Array  # [B], int32
    noise: PyTree  # exploration noise that outlives a step: gSDE's [B, F, A], else ()


class Rollout(NamedTuple):
    """T steps of B environments under one frozen policy."""

    observation: Array  # [T, B, *O], as the networks see it (normalised)
    action: Array  # [T, B, ...], as sampled, before clipping or squashing for the environment
    log_prob: Array  # [T, B], log pi_old(action | observation)
    distribution: PyTree  # [T, B, *D], parameters of pi_old(. | observation)
    value: Array  # [T, B], V_old(observation)
    value_next: Array  # [T, B], V_old of the successor: 0 if terminated, V(final obs) if truncated
    reward: Array  # [T, B], as the environment gave it
    terminated: Array  # [T, B], bool
    truncated: Array  # [T, B], bool, never set together with `terminated`


class EpisodeStats(NamedTuple):
    """Running sums over the episodes that ended within one iteration."""

    num_episodes: Array  # []
    return_sum: Array  # []
    length_sum: Array  # []


class Batch(NamedTuple):
    """N samples, in the order in which minibatches are drawn from them."""

    observation: Array  # [N, *O]
    action: Array  # [N, ...]
    log_prob_old: Array  # [N]
    distribution_old: PyTree  # [N, *D]
    value_old: Array  # [N]
    advantage: Array  # [N]
    value_target: Array  # [N]


class Adapted(NamedTuple):
    """Factors on two hyperparameters that follow the KL; 1 where they are not adaptive."""

    kl_coef: Array  # []
    learning_rate: Array  # []


class TrainState(NamedTuple):
    """Everything that a run carries: hand it to `iterate` and nothing else is needed."""

    key: Array  # [], the run's key; iteration i draws from fold_in(key, 5 i .. 5 i + 4)
    iteration: Array  # [], int32
    params: PyTree
    opt_state: PyTree  # over the flat parameter vector
    observation_moments: Moments  # [*O]
    return_moments: Moments  # []
    discounted_return: Array  # [B], for the scale of the rewards
    carry: EnvCarry
    adapted: Adapted
    alive: Array  # [], bool; False once MAX_FAILURES updates in a row were refused
    failures: Array  # [], int32; updates refused in a row, as they would have written non-finite


# One row per iteration: name -> scalar. See docs/design.md for what each name means.
Metrics = dict[str, Array]


@jax.tree_util.register_pytree_node_class
class MetricTable(Mapping[str, Any]):
    """Rows of metrics: name -> [..., rows], held as one array.

    A column is taken out by whoever asks for it: to hand out each as an array of its own would cost
    a compiled program one more kernel a name.
    """

    def __init__(self, values: Any, names: tuple[str, ...]) -> None:
        self.values_by_row = values  # [..., rows, names]
        self.names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return self.values_by_row[..., self.names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, ...]]:
        return (self.values_by_row,), self.names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: tuple[Any]) -> MetricTable:
        return cls(values[0], names)
