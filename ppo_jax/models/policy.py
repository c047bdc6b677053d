"""The policy that acts: a network with its parameters and the normaliser they were trained with."""

from __future__ import annotations

from typing import NamedTuple

from ppo_jax.kernels.reductions import finite_or_zero
from ppo_jax.models.body import Network
from ppo_jax.models.policy_head import Family
from ppo_jax.rl import moments
from ppo_jax.rl.types import Moments, PyTree


class Policy(NamedTuple):
    """The acting policy: frozen for the length of a rollout."""

    network: Network
    family: Family
    params: PyTree
    moments: Moments | None  # observations' moments, None if they are not normalised
    bounds: PyTree = None  # (low, high) of the actions, None if no parameter moves them
    drops_bad: bool = False  # transitions that are not finite are left out

    def see(self, observation: PyTree) -> PyTree:
        """Return raw observations in the form that the network takes."""
        if self.drops_bad:
            observation = finite_or_zero(observation)
        if self.moments is None:
            return observation
        return moments.standardise(self.moments, observation)

    def to_env(self, action: PyTree) -> PyTree:
        """Sampled actions as the environment takes them."""
        return self.family.to_env(action, self.bounds)
