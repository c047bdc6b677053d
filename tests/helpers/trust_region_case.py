"""Policies with a batch drawn from each, and the trust-region steps that are taken on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from networks import shown
from objective_cases import POLICIES, draw_batch

from ppo_jax.config.config import Config, Hyper
from ppo_jax.kernels.collectives import ALONE, Across
from ppo_jax.models.body import Network
from ppo_jax.models.network import make_network
from ppo_jax.models.policy_head import Family
from ppo_jax.rl.ratios import ratio_metrics
from ppo_jax.rl.types import Batch, Setting
from ppo_jax.training.natural_gradient import trust_region_update
from ppo_jax.training.optimizer import init_optimizer
from ppo_jax.training.update import Learner

# Half the compile time, and no less exact.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Case(NamedTuple):
    """A policy, its parameters and a batch drawn from it."""

    config: Config
    network: Network
    family: Family
    params: Any
    batch: Batch


@cache
def case_of(policy: str, size: int = 64) -> Case:
    """In double precision; the hidden layer is small, the curvature large."""
    word, space = POLICIES[policy]
    config = Config(
        policy=word,
        objective="trpo",
        hidden_sizes=(6,),
        num_envs=4,
        rollout_length=size // 4,
        num_epochs=2,
        num_minibatches=2,
        normalize_advantages="none",
    )
    network, family = make_network(config, shown(3), space)
    params = jit(network.init)(jax.random.key(2), -1.5)
    # The policy head starts with a gain of 0.01: of a policy that sees little, little is shown.
    flat, unravel = ravel_pytree(params)
    noise = np.random.default_rng(3).normal(size=flat.shape)
    params = unravel(flat + 0.3 * noise.astype(flat.dtype))
    batch = jit(lambda p: draw_batch(network, family, p, (3,), size))(params)
    # Likely actions are good: a Gaussian shrinks, and its KL leaves the quadratic model behind.
    likely = batch.log_prob_old - jnp.mean(batch.log_prob_old)
    batch = batch._replace(advantage=0.3 * batch.advantage + likely / jnp.std(likely))
    return Case(config, network, family, params, batch)


def step(
    case: Case, hyper: Hyper, batch: Batch | None = None, across: Across = ALONE, **changes: Any
) -> tuple:
    """(params, metrics) after one trust-region step from a fresh optimiser."""
    config = dataclasses.replace(case.config, **changes)
    opt_state = init_optimizer(config, hyper, case.params)
    learner, metrics, ratios = trust_region_update(
        Setting(config, hyper, across),
        case.network,
        case.family,
        Learner(case.params, opt_state, jnp.ones(()), jnp.ones((), bool)),
        case.batch if batch is None else batch,
        jax.random.key(1),
    )
    return learner.params, metrics | ratio_metrics(across.gather(ratios))


@cache
def stepper(policy: str) -> Callable[[Hyper, Batch], tuple]:
    """`step` of a policy in double precision as one program for all numbers."""
    return jit(lambda hyper, batch: step(case_of(policy), hyper, batch))


def is_policy(path: tuple) -> bool:
    """By the names of our own networks, with separate torsos."""
    names = {getattr(entry, "key", None) for entry in path}
    return not names & {"critic_torso", "value_head"}


def part(params: Any, wanted: bool) -> np.ndarray:
    """The policy's parameters, or the critic's, as one vector in the order of `ravel_pytree`."""
    return np.concatenate(
        [
            np.ravel(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            if is_policy(path) == wanted
        ]
    )


DELTAS = np.array([1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0])


@cache
def over_deltas(policy: str) -> tuple[Any, dict[str, jax.Array], Any]:
    """One program: the step of every delta, without critic steps and with long ones."""
    case = case_of(policy)

    def member(delta: jax.Array, learning_rate: jax.Array) -> tuple:
        return step(case, Hyper(trust_region_kl=delta, learning_rate=learning_rate))

    count = len(DELTAS)
    both = jit(jax.vmap(member))(np.tile(DELTAS, 2), np.repeat([0.0, 0.05], count))
    (resting, _), (learning, metrics) = (
        jax.tree.map(lambda leaf, half=half: leaf[half], both)
        for half in (slice(count), slice(count, None))
    )
    return resting, metrics, learning
