"""An agent: environment, network and policy family of a `Config`, and the policy that acts."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import jax

from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.validate import check_whole_envs
from ppo_jax.envs import leaves, registration
from ppo_jax.envs.interface import (
    Environment,
    actor_view,
    has_views,
    refuse_host,
    without_action_mask,
)
from ppo_jax.envs.previous import with_previous
from ppo_jax.models.body import Network
from ppo_jax.models.drift import load_drift
from ppo_jax.models.network import make_network
from ppo_jax.models.policy import Policy
from ppo_jax.models.policy_head import Family
from ppo_jax.models.torsos import LeafCode
from ppo_jax.rl import moments
from ppo_jax.rl.types import Moments, PyTree


class Agent(NamedTuple):
    """The static parts that a `Config` names."""

    environment: Environment
    network: Network
    family: Family


def assemble(config: Config) -> Agent:
    """Find the environment and build the network that `config` names.

    Raises:
        InputError: they do not fit each other.
    """
    try:
        hash(config)
    except TypeError:  # an environment object that holds arrays, such as a Box's bounds
        return _assemble.__wrapped__(config.env, config)
    return _assemble(config.env, config)


@lru_cache(maxsize=64)
def _assemble(env: object, config: Config) -> Agent:
    with jax.ensure_compile_time_eval():
        environment = with_previous(registration.find(env), config.previous_inputs)
    if environment.raw is None:  # else the adapter has looked
        leaves.require_kept(environment)
    leaves.metric_names(environment)  # refuses what is no dict of numbers
    if config.start_states:
        refuse_host(environment, "its starts cannot come from a buffer", "leave --start-states out")
    network, family = make_network(
        config,
        environment.observation,
        environment.action_space,
        leaf_codes(config, environment),
    )
    if config.network is not None and has_memory(network):
        check_whole_envs(config, "a network that has a memory")
    if config.objective == "drift":
        load_drift(config.drift)  # refuses now a function that is no drift
    return Agent(environment, network, family)


def has_memory(network: Network) -> bool:
    """Check for a network whose actions depend on what it saw before."""
    params = jax.eval_shape(network.init, jax.random.key(0))
    return bool(jax.tree.leaves(jax.eval_shape(lambda p: network.start(p, 1), params)))


def leaf_codes(config: Config, environment: Environment) -> tuple[LeafCode, ...]:
    """Codes of the leaves for a built-in network.

    Bytes and whole numbers of many values are scaled, and categories are one-hot. A leaf that the
    normaliser standardises is neither.
    """
    return tuple(named_codes(config, environment).values())


def named_codes(config: Config, environment: Environment) -> dict[str, LeafCode]:
    """`leaf_codes` by the names of the leaves, without the action mask."""
    codes: dict[str, LeafCode] = {}
    if config.scale_integers:
        largest = leaves.largest_integers(environment)
        codes |= {name: LeafCode(scale=scale) for name, scale in largest.items()}
    if config.scale_bytes:
        highest = leaves.highest_bytes(environment)
        codes |= {name: LeafCode(scale=scale) for name, scale in highest.items()}
    if config.one_hot_integers:
        few = leaves.categories(environment)
        codes |= {name: LeafCode(low=low, count=count) for name, (low, count) in few.items()}
    seen = leaves.named(without_action_mask(environment.observation))
    if config.normalize_observations:
        codes = {
            name: code
            for name, code in codes.items()
            if name in seen and not moments.is_counted(seen[name], environment.observation)
        }
    return {name: codes.get(name, LeafCode()) for name in seen}


def without_critic(config: Config, agent: Agent, policy: Policy) -> tuple[Agent, Policy]:
    """The agent and the policy without the part of the observation that only the critic sees.

    A network of the user's own takes whole observations, and keeps that part.
    """
    if config.network is not None or not has_views(agent.environment.observation):
        return agent, policy
    observation = actor_view(agent.environment.observation)
    agent = agent._replace(environment=agent.environment._replace(observation=observation))
    if policy.moments is None:
        return agent, policy
    mean, m2 = actor_view(policy.moments.mean), actor_view(policy.moments.m2)
    return agent, policy._replace(moments=policy.moments._replace(mean=mean, m2=m2))


def env_params(environment: Environment, hyper: Hyper) -> PyTree:
    """The environment's parameters with the run's own values."""
    return environment.override(environment.default_params, dict(hyper.env))


def acting_policy(
    config: Config, agent: Agent, params: PyTree, stats: Moments, world: PyTree = None
) -> Policy:
    """The policy of a state: its parameters and the normaliser that they were trained with.

    Args:
        world: the environment's parameters, whose bounds the actions keep; the default ones if
            None.
    """
    seen = stats if config.normalize_observations else None
    follow = agent.environment.action_bounds
    bounds = None if follow is None or world is None else follow(world)
    drops_bad = config.drop_bad_transitions
    return Policy(agent.network, agent.family, params, seen, bounds, drops_bad)
