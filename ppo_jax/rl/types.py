"""Data types of the trainer. Comments behind arrays give their shapes:

T time steps, B environments, N = T x B samples, M minibatch, A action dimensions,
*O the observation's own shape, leaf by leaf, *D the leaves of a distribution's parameters.

`()` marks an absent part, such as the memory of a feed-forward network. It has no leaves, so it
changes neither programs nor checkpoints.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from ppo_jax.config.config import Config, Hyper, Schedule
from ppo_jax.kernels.collectives import ALONE, Across

PyTree = Any
Scalar: TypeAlias = "Array | float"  # a number of `Hyper` at one moment of the schedules

jax.tree_util.register_dataclass(Schedule, ["start", "end", "cosine"], [])
jax.tree_util.register_dataclass(Hyper, list(Hyper.__dataclass_fields__), [])


class Setting(NamedTuple):
    """Settings of an iteration: static settings, numbers at this moment, and its devices."""

    config: Config
    hyper: Hyper[Scalar]  # resolved, no schedules
    across: Across = ALONE  # devices that share the environments of one seed


class Moments(NamedTuple):
    """Running mean and variance of a stream of vectors; `mean` and `m2` may be trees of arrays."""

    count: Array  # []
    mean: PyTree  # [*O]
    m2: PyTree  # [*O], sum of squared deviations from the mean


class EnvCarry(NamedTuple):
    """State of the environments from one step to the next, and from one iteration to the next."""

    state: PyTree  # [B, ...], the environments' own states
    observation: PyTree  # [B, *O], raw, of the next step
    episode_return: Array  # [B], undiscounted reward so far in the running episode
    episode_length: Array  # [B], int32
    noise: PyTree  # exploration noise that outlives a step: gSDE's [B, F, A], else ()
    memory: PyTree = ()  # [B, ...], the network's, before it sees `observation`


class Window(NamedTuple):
    """Observations of whole environments over time, in a network's input form.

    A feed-forward network takes rows in any order, and reads `observation` alone.
    """

    observation: PyTree  # [T, B, *O] or rows [N, *O], as the network sees it (normalised)
    reset: Array | tuple[()] = ()  # [T, B] bool, True where an episode begins
    memory: PyTree = ()  # [B, ...], before the first step

    def by_environment(self) -> Window:
        """Rows [B x T] of a window [T, B]; the steps of each environment are contiguous."""

        def rows(leaf: Array) -> Array:
            return jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

        observation, reset = jax.tree.map(rows, (self.observation, self.reset))
        return Window(observation, reset, self.memory)


class Rollout(NamedTuple):
    """T steps of B environments under one frozen policy."""

    window: Window  # [T, B]
    action: PyTree  # [T, B, ...], as sampled, before clipping or squashing for the environment
    log_prob: Array  # [T, B], log pi_old(action | observation)
    distribution: PyTree  # [T, B, *D], parameters of pi_old(. | observation)
    value: Array  # [T, B], V_old(observation)
    value_next: Array  # [T, B], V_old of the successor: 0 if terminated, V(final obs) if truncated
    reward: Array  # [T, B], as the environment returned it
    terminated: Array  # [T, B], bool
    truncated: Array  # [T, B], bool, never set together with `terminated`
    is_bad: Array | tuple[()] = ()  # [T, B], bool; a transition to be left out, if any may be


class EpisodeStats(NamedTuple):
    """Running sums over the episodes that ended within one iteration."""

    num_episodes: Array  # []
    return_sum: Array  # []
    length_sum: Array  # []
    metric_sums: PyTree = ()  # name -> [], the environment's own metrics, if it has any


class Batch(NamedTuple):
    """N samples, in the order in which minibatches are drawn from them."""

    window: Window  # rows [N, *O]; its memory, if any, is that of environments [B, ...]
    action: PyTree  # [N, ...]
    log_prob_old: Array  # [N]
    distribution_old: PyTree  # [N, *D]
    value_old: Array  # [N]
    advantage: Array  # [N]
    value_target: Array  # [N]
    weight: Array | tuple[()] = ()  # [N], of mean 1, 0 for a sample that is left out


class Adapted(NamedTuple):
    """Factors on two hyperparameters that follow the KL; 1 if they are not adaptive."""

    kl_coef: Array  # []
    learning_rate: Array  # []


class TrainState(NamedTuple):
    """The whole state of a run: `iterate` needs nothing else."""

    key: Array  # [], the run's key; iteration i draws from fold_in(key, 5 i .. 5 i + 4)
    iteration: Array  # [], int32
    params: PyTree
    opt_state: PyTree  # the optimiser's
    observation_moments: Moments  # [*O]
    return_moments: Moments  # []
    discounted_return: Array  # [B], for the scale of the rewards
    carry: EnvCarry
    adapted: Adapted
    alive: Array  # [], bool; False once `failures` has reached `Hyper.max_failures`
    failures: Array  # [], int32; refused updates, less two for each accepted one, at least 0


# One row per iteration: name -> scalar. `rl/metrics.py` explains each name.
Metrics = dict[str, Array]
