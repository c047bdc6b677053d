"""A note for environments whose observation alone does not tell states of different reward apart.

Steps of the random play are sorted by what the policy knows: observation and action. If two of them
look alike, and the same step pays or ends otherwise for certain, something unseen decides. Rewards
that a random key decides are left out, and so are observations that never come twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ppo_jax.apps.diagnose.contract_play import Finding
from ppo_jax.apps.diagnose.random_play import Play
from ppo_jax.envs.interface import Environment

MAX_STEPS = 256  # looked at again under other keys
NUM_KEYS = 16  # a coin's step looks certain once in 65,536
MIN_SHARE = 0.01  # least share of such steps; fewer are no reason for a memory


def findings(environment: Environment, play: Play) -> Iterator[Finding]:
    """A note if observation and action leave open what a step pays, or if it ends the episode."""
    groups, outcomes = _groups(play), _outcomes(play)
    rows = np.flatnonzero(np.isin(groups, _ambiguous(groups, outcomes)))
    if not len(rows):
        return
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_STEPS)).astype(int)]
    chosen = np.unique(chosen)
    sure = chosen[_is_certain(environment, play, chosen)]
    differing = _ambiguous(groups[sure], outcomes[sure])
    share = np.mean(np.isin(groups, differing))
    if share >= MIN_SHARE:
        yield Finding(
            "note",
            f"this environment may need memory: in {share:.0%} of the random steps another step "
            "looked the same and took the same action, and it paid or ended otherwise",
            "train with --memory gru, or show what decides it",
        )


def _flat(tree: Any) -> np.ndarray:
    """The leaves [T, B, ...] of a tree as rows [T x B, numbers]."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    count = leaves[0].shape[0] * leaves[0].shape[1]
    return np.concatenate([leaf.reshape(count, -1).astype(np.float64) for leaf in leaves], axis=1)


def _groups(play: Play) -> np.ndarray:
    """The number of each step's kind, [T x B]: equal for equal observations and actions."""
    rows = np.ascontiguousarray(_flat((play.observation, play.action)))
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def _outcomes(play: Play) -> np.ndarray:
    """Reward and end of each step, [T x B, 2]. Rewards equal to rounding are equal."""
    reward = np.asarray(play.reward, np.float64).ravel()
    step = 1e-4 * max(1e-12, float(np.max(np.abs(reward), initial=0.0, where=np.isfinite(reward))))
    return np.stack([np.round(reward / step), np.asarray(play.terminated).ravel()], axis=1)


def _ambiguous(groups: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """The kinds of steps that had more than one outcome."""
    kinds = np.unique(np.column_stack([groups, outcomes]), axis=0)[:, 0]
    numbers, counts = np.unique(kinds, return_counts=True)
    return numbers[counts > 1]


def _is_certain(environment: Environment, play: Play, rows: np.ndarray) -> np.ndarray:
    """Steps whose outcome is the same under other random keys, [len(rows)] bool."""
    state, action = (
        jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[rows], tree)
        for tree in (play.state, play.action)
    )
    keys = jax.random.split(jax.random.key(1), (NUM_KEYS, len(rows)))
    step = jax.vmap(environment.transition, (0, 0, 0, None))
    program = jax.jit(jax.vmap(step, (0, None, None, None)))
    _, _, reward, terminated, _, _ = program(keys, state, action, environment.default_params)
    found = np.stack([np.asarray(reward, np.float64), np.asarray(terminated, np.float64)])
    before = np.stack([np.asarray(part).ravel()[rows] for part in (play.reward, play.terminated)])
    return np.asarray(np.isclose(found, before[:, None]).all(axis=(0, 1)))
