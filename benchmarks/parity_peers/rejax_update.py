"""One update of ours beside Rejax's: the same parameters, Adam's moments and batch, all in float32.

    PYTHONPATH=. PYTHON benchmarks/parity_peers/rejax_update.py [TASK ...]

PYTHON has requirements.txt of this folder and what ppo_jax needs. Rejax takes our rollout and our
order of the samples, and computes its own values and advantages. Prints the largest differences of
values, advantages and parameters after some iterations of training, and the largest step.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import rejax_peer
from jax.flatten_util import ravel_pytree
from rejax.algos.ppo import AdvantageMinibatch, Trajectory

sys.path.append(str(Path(__file__).resolve().parents[1]))
import parity

from ppo_jax.training import trainer
from ppo_jax.training.update import minibatch_order

BEFORE = (0, 1, 5, 20)  # iterations of training before the update


def compare(name: str) -> Iterator[dict[str, float]]:
    """The largest differences of some updates on a task."""
    task = parity.TASKS[name]
    config, hyper = parity.setting(parity.PEERS["rejax"], task)
    algorithm = rejax_peer.create(dataclasses.asdict(task))
    iterate = jax.jit(lambda state: trainer.iterate(config, hyper, state)[0])
    sample = jax.jit(lambda state: trainer.sample(config, hyper, state))
    update = jax.jit(algorithm.update)
    state, num_rows = trainer.init(config, hyper, jax.random.key(0)), config.batch_size
    for i in range(max(BEFORE) + 1):
        after = iterate(state)
        if i in BEFORE:
            ours, estimates = sample(state)
            peer = with_state(algorithm, state)
            batch, value = batch_of(algorithm, peer, ours)
            key = trainer.iteration_keys(state)[..., -1]
            order = minibatch_order(config, key, num_rows, task.num_envs)
            for rows in order.reshape(-1, order.shape[-1]):
                peer = update(peer, jax.tree.map(lambda x, rows=rows: x[rows], batch))
            trees = (named(algorithm, after.params), (peer.actor_ts.params, peer.critic_ts.params))
            yield {
                "iteration": i,
                "value": distance(value, ours.rollout.value),
                "advantage": distance(batch.advantages, estimates.batch.advantage),
                "parameters": distance(*trees),
                "largest step": distance(after.params, state.params),
            }
        state = after


def with_state(algorithm: Any, state: Any) -> Any:
    """Rejax's state with our parameters and Adam's moments."""
    flat, unravel = ravel_pytree(state.params)
    leaves = jax.tree.leaves(state.opt_state)
    mu, nu = (unravel(leaf) for leaf in leaves if leaf.shape == flat.shape)
    [count] = (leaf for leaf in leaves if leaf.ndim == 0)
    moments = list(zip(*(named(algorithm, tree) for tree in (mu, nu)), strict=True))
    peer = algorithm.init_state(jax.random.PRNGKey(0))
    found = []
    for place, train_state in enumerate((peer.actor_ts, peer.critic_ts)):

        def put(node: Any, place: int = place) -> Any:
            if not isinstance(node, optax.ScaleByAdamState):
                return node
            first, second = moments[place]
            return node._replace(count=count.astype(jnp.int32), mu=first, nu=second)

        opt_state = jax.tree.map(
            put, train_state.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState)
        )
        params = named(algorithm, state.params)[place]
        found.append(train_state.replace(params=params, opt_state=opt_state))
    return peer.replace(actor_ts=found[0], critic_ts=found[1])


def named(algorithm: Any, params: Any) -> tuple[Any, Any]:
    """Our parameters under Rejax's names: those of the actor and of the critic."""
    body, layers = params["body"], range(len(params["body"]["actor_torso"]))
    torsos = [
        [body[torso][f"Dense_{i}"] for i in layers] for torso in ("actor_torso", "critic_torso")
    ]
    actor = {"features": {f"Dense_{i}": torsos[0][i] for i in layers}}
    actor["action_logits" if algorithm.discrete else "action_mean"] = body["policy_head"]
    if not algorithm.discrete:
        actor["action_log_std"] = params["log_std"]
    critic = [*torsos[1], body["value_head"]]
    return {"params": actor}, {"params": {f"Dense_{i}": each for i, each in enumerate(critic)}}


def batch_of(algorithm: Any, peer: Any, ours: Any) -> tuple[Any, Any]:
    """Our rollout as Rejax's batch [N], with its own advantages; and its values [T, B]."""
    steps, shape = ours.rollout, ours.rollout.reward.shape
    observation = steps.window.observation
    ended = steps.terminated | steps.truncated
    values = jax.vmap(lambda rows: algorithm.critic.apply(peer.critic_ts.params, rows))
    value = values(observation)
    last = jnp.where(ended[-1], 0, values(ours.carry.observation[None])[0])
    trajectory = Trajectory(observation, steps.action, steps.log_prob, steps.reward, value, ended)
    batch = AdvantageMinibatch(trajectory, *algorithm.calculate_gae(trajectory, last))
    rows = shape[0] * shape[1]
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), batch), value


def distance(first: Any, second: Any) -> float:
    both = (ravel_pytree(tree)[0] for tree in (first, second))
    return float(jnp.abs(jnp.subtract(*both)).max())


if __name__ == "__main__":
    for name in sys.argv[1:] or parity.PEERS["rejax"].tasks:
        for found in compare(name):
            print(name, ", ".join(f"{key} {value:.2g}" for key, value in found.items()), flush=True)
