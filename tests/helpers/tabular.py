"""A tiny Markov decision process whose every number can be enumerated, in float64.

Nothing of the package is used here: this is the other side of the comparison.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LAYERS, WIDTH, ACTIONS = 3, 2, 2  # a trajectory has at most LAYERS steps
STATES = LAYERS * WIDTH
NONE = -1  # "no state": the episode is over


class MDP(NamedTuple):
    """States lie in layers, so that every episode ends and all of them can be written down."""

    start: np.ndarray  # [S]
    move: np.ndarray  # [S, A, S], rows sum to less than 1: the rest ends the episode
    reward: np.ndarray  # [S, A, S + 1], the last column is for the end
    gamma: float


class Trajectories(NamedTuple):
    """Every trajectory there is: [T, B], with garbage after the end of an episode."""

    probability: np.ndarray  # [B], under the policy
    state: np.ndarray  # [T, B]
    successor: np.ndarray  # [T, B], NONE where the episode ends
    action: np.ndarray  # [T, B]
    reward: np.ndarray  # [T, B]
    terminated: np.ndarray  # [T, B]
    alive: np.ndarray  # [T, B], whether step t belongs to the episode


def random_mdp(seed: int, gamma: float = 0.9) -> MDP:
    rng = np.random.default_rng(seed)
    start = np.zeros(STATES)
    start[:WIDTH] = rng.dirichlet(np.ones(WIDTH))
    move = np.zeros((STATES, ACTIONS, STATES))
    for layer in range(LAYERS - 1):
        for s, a in product(range(layer * WIDTH, (layer + 1) * WIDTH), range(ACTIONS)):
            following = rng.dirichlet(np.ones(WIDTH + 1))
            move[s, a, (layer + 1) * WIDTH : (layer + 2) * WIDTH] = following[:WIDTH]
    return MDP(start, move, rng.normal(size=(STATES, ACTIONS, STATES + 1)), gamma)


def mean_reward(mdp: MDP) -> np.ndarray:
    """r(s, a) [S, A], expected over the successor."""
    end = 1.0 - mdp.move.sum(-1, keepdims=True)
    return (np.concatenate([mdp.move, end], axis=-1) * mdp.reward).sum(-1)


def values(mdp: MDP, policy: jax.Array | np.ndarray) -> jax.Array:
    """V^pi [S] by solving (I - gamma P_pi) V = r_pi; differentiable in the policy [S, A]."""
    to = jnp.einsum("sa,sat->st", policy, mdp.move)
    reward = jnp.einsum("sa,sa->s", policy, mean_reward(mdp))
    return jnp.linalg.solve(jnp.eye(STATES) - mdp.gamma * to, reward)


def advantages(mdp: MDP, policy: np.ndarray) -> np.ndarray:
    """A^pi [S, A] = r(s, a) + gamma sum_s' P(s'|s, a) V(s') - V(s)."""
    value = np.asarray(values(mdp, policy))
    return mean_reward(mdp) + mdp.gamma * mdp.move @ value - value[:, None]


def visits(mdp: MDP, policy: np.ndarray) -> np.ndarray:
    """sum_t gamma^t P(s_t = s) [S]."""
    to = np.einsum("sa,sat->st", policy, mdp.move)
    return np.linalg.solve(np.eye(STATES) - mdp.gamma * to.T, mdp.start)


def objective(mdp: MDP, policy: jax.Array | np.ndarray) -> jax.Array:
    """J(pi), the expected discounted return."""
    return jnp.asarray(mdp.start) @ values(mdp, policy)


def enumerate_all(mdp: MDP, policy: np.ndarray) -> Trajectories:
    """Every trajectory with its probability; after an end anything may follow, as after a reset."""
    rng = np.random.default_rng(1)
    end = 1.0 - mdp.move.sum(-1)
    found: list[tuple[float, list[tuple]]] = []

    def extend(probability: float, steps: list[tuple], s: int) -> None:
        for a in range(ACTIONS):
            chance = probability * policy[s, a]
            followers = [*np.flatnonzero(mdp.move[s, a]), NONE]
            for t in followers:
                p = chance * (end[s, a] if t == NONE else mdp.move[s, a, t])
                step = (s, int(t), a, mdp.reward[s, a, t], t == NONE, True)
                if t == NONE:
                    found.append((p, [*steps, step]))
                else:
                    extend(p, [*steps, step], int(t))

    for s in range(WIDTH):
        extend(mdp.start[s], [], s)
    rows = []
    for _, steps in found:
        states = rng.integers(STATES, size=(LAYERS, 2))
        fill = [
            (s, t, rng.integers(ACTIONS), 1e3 * rng.normal(), rng.random() < 0.5, False)
            for s, t in states[len(steps) :]
        ]
        rows.append([*steps, *fill])
    columns = [np.array([[step[i] for step in row] for row in rows]).T for i in range(6)]
    state, successor, action, reward, terminated, alive = columns
    return Trajectories(
        np.array([p for p, _ in found]),
        state.astype(int),
        successor.astype(int),
        action.astype(int),
        reward.astype(float),
        terminated.astype(bool),
        alive.astype(bool),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
