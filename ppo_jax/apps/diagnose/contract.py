"""Does an environment keep the contract? Played for a while, each breach told as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ppo_jax.apps.diagnose.random_play import NUM_STEPS, Play, play_twice, random_action
from ppo_jax.envs.interface import Box, Discrete, Environment, time_limit

_LARGE = 20.0  # typical magnitude beyond which a network wants its observations standardised


class Finding(NamedTuple):
    """One breach, or one thing worth knowing."""

    severity: str  # "error": training would be wrong or fail; "warning": worse or slower; "note"
    what: str  # what was seen and what goes wrong if it stays
    remedy: str


def check(environment: Environment, key: Array, num_steps: int = NUM_STEPS) -> list[Finding]:
    """Everything that can be found wrong with `environment` by tracing and playing it.

    Args:
        key: start states, transitions and random actions are drawn from it.
        num_steps: steps of each of NUM_ENVS environments.
    """
    findings = list(_check_types(environment))
    if any(finding.severity == "error" for finding in findings):
        return findings  # it cannot be played
    try:
        play, again = play_twice(environment, key, num_steps)
    except Exception as error:
        findings.append(_fails("a vmapped, compiled rollout of it", error))
        return findings
    findings += _check_numbers(play)
    findings += _check_determinism(environment, play, again)
    findings += _check_ends(environment, play)
    findings += _check_resets(environment, play, key)
    findings += _check_actions(environment, play, key)
    findings += _check_parameters(environment, key)
    return findings


def _fails(what: str, error: Exception) -> Finding:
    reason = str(error).strip().split("\n")[0]
    return Finding(
        "error",
        f"{what} fails with {type(error).__name__}: {reason}",
        "write it in jax.numpy on unbatched arrays, without Python branches on their values",
    )


def _check_types(environment: Environment) -> Iterator[Finding]:
    """Shapes, dtypes and structures, by tracing alone."""
    params, key = environment.default_params, jax.random.key(0)
    try:
        observation, state = jax.eval_shape(environment.reset, key, params)
        action = jax.eval_shape(lambda key: random_action(environment.action_space, key), key)
        step = jax.eval_shape(environment.transition, key, state, action, params)
        observation_next, state_next, reward, terminated, truncated, _ = step
    except Exception as error:
        yield _fails("tracing reset and transition", error)
        return
    declared = (tuple(environment.observation_shape), environment.observation_dtype)
    for word, value in (("reset", observation), ("transition", observation_next)):
        seen = (value.shape, value.dtype.name)
        if seen != declared:
            yield Finding(
                "error",
                f"{word} returns an observation of shape and dtype {seen}, the environment "
                f"declares {declared}: the network would be built for another input",
                "make observation_shape and observation_dtype those of what is returned",
            )
    if jax.tree.structure(state) != jax.tree.structure(state_next):
        yield Finding(
            "error",
            "reset and transition return states of different structure, which no loop can carry",
            "return the same fields from both",
        )
        return
    pairs = list(zip(*map(jax.tree.leaves_with_path, (state, state_next)), strict=True))
    for (path, before), (_, after) in pairs:
        name = jax.tree_util.keystr(path)
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            yield Finding(
                "error",
                f"state{name} is {before.dtype}{list(before.shape)} after reset and "
                f"{after.dtype}{list(after.shape)} after transition, which no loop can carry",
                "cast it to one dtype and shape in both",
            )
        elif before.weak_type != after.weak_type:
            yield Finding(
                "warning",
                f"state{name} is weakly typed after only one of reset and transition: the program "
                "would be compiled twice",
                "write jnp.asarray(value, dtype) instead of a Python number",
            )
    for word, value, dtype in (
        ("reward", reward, jnp.floating),
        ("terminated", terminated, jnp.bool_),
        ("truncated", truncated, jnp.bool_),
    ):
        if value.shape != () or not jnp.issubdtype(value.dtype, dtype):
            yield Finding(
                "error",
                f"{word} is {value.dtype}{list(value.shape)}: shapes would broadcast silently",
                f"return one {'float' if word == 'reward' else 'bool'} of shape ()",
            )


def _check_numbers(play: Play) -> Iterator[Finding]:
    for word, value in (("observation", play.observation_next), ("reward", play.reward)):
        share = float(np.mean(~np.isfinite(np.asarray(value, np.float32))))
        if share > 0:
            yield Finding(
                "error",
                f"{share:.2%} of the {word} numbers are not finite: the first would end training",
                f"find the division or overflow behind the {word}",
            )
    observation = np.asarray(play.observation_next, np.float32)
    largest = float(np.max(np.abs(observation), initial=0.0, where=np.isfinite(observation)))
    if play.observation_next.dtype == np.float32 and largest > _LARGE:
        yield Finding(
            "warning",
            f"observations reach {largest:.3g}: networks learn slowly from such magnitudes",
            "train with --normalize-observations",
        )
    reward = np.asarray(play.reward)
    if np.ptp(reward) == 0 and (reward.max() == 0 or not np.asarray(play.terminated).any()):
        yield Finding(
            "note",
            f"every reward of the random play is {reward.max():g} and no return differs by it: "
            "there is nothing to learn from until a better end is found by chance",
            "expect that exploration needs help, or check the reward",
        )


def _check_determinism(environment: Environment, play: Play, again: Play) -> Iterator[Finding]:
    fields = ("observation_next", "reward", "terminated", "truncated")
    differ = [
        name
        for name in fields
        if not np.array_equal(getattr(play, name), getattr(again, name), equal_nan=True)
    ]
    if differ:
        yield Finding(
            "error",
            f"the same keys gave another {', '.join(differ)}: runs could not be repeated",
            "draw every random number from the key that is given",
        )
        return
    rows = np.linspace(0, len(play.reward) - 1, 4).astype(int)
    transition = jax.jit(environment.transition)
    for row in rows:
        state = jax.tree.map(lambda leaf, row=row: leaf[row, 0], play.state)
        key = jax.random.wrap_key_data(play.key[row, 0])
        single = transition(key, state, play.action[row, 0], environment.default_params)
        if not np.allclose(
            np.asarray(single[0], np.float32),
            np.asarray(play.observation_next[row, 0], np.float32),
            rtol=1e-3,
            atol=1e-3,
        ):
            yield Finding(
                "error",
                "one environment alone moves otherwise than the same one within a batch",
                "write reset and transition for one environment, without looking at batch axes",
            )
            return


def _check_ends(environment: Environment, play: Play) -> Iterator[Finding]:
    terminated, truncated = np.asarray(play.terminated), np.asarray(play.truncated)
    if (terminated & truncated).any():
        yield Finding(
            "warning",
            f"{int((terminated & truncated).sum())} steps are terminated and truncated at once; "
            "the trainer counts them as terminated, so their successor is worth nothing",
            "return truncated & ~terminated, or clear terminated if only the time limit ended it",
        )
    ended = terminated | truncated
    limit = time_limit(environment, environment.default_params)
    steps, envs = ended.shape
    if not ended.any() and (limit is None or limit > steps):
        yield Finding(
            "warning" if limit is None else "note",
            f"no episode ended within {steps} random steps: without an end there is no "
            "episode return to report and no fresh start",
            "give it a time limit that sets truncated"
            if limit is None
            else f"nothing, if episodes may last {limit} steps",
        )
    ends = [np.flatnonzero(ended[:, b]) for b in range(envs)]
    longest = max(int(np.diff(rows, prepend=-1, append=steps - 1).max()) for rows in ends)
    if limit is not None and longest > limit:
        yield Finding(
            "error",
            f"an episode lasted {longest} steps, the time limit is {limit}: the limit is not kept",
            "set truncated once the limit is reached, or declare the real one",
        )


def _check_resets(environment: Environment, play: Play, key: Array) -> Iterator[Finding]:
    """Whether an ending transition already returned a fresh start instead of its successor.

    A whole number of the state that counts steps gives it away: it must count the last step too.
    """
    ended = np.asarray(play.terminated | play.truncated)
    if not ended.any():
        return
    start = jax.eval_shape(environment.reset, key, environment.default_params)[1]
    counters = 0
    for index, leaf in enumerate(jax.tree.leaves(start)):
        if leaf.shape != () or jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            continue
        before, after = (
            np.asarray(jax.tree.leaves(state)[index], np.float64)
            for state in (play.state, play.state_next)
        )
        counted = after == before + 1
        if not (counted if ended.all() else counted[~ended]).all():
            continue
        counters += 1
        if (after[ended] < before[ended]).all():
            yield Finding(
                "error",
                "it resets by itself: its step counter falls back at every episode's end, so the "
                "final observation is lost and time limits would bootstrap from a fresh start",
                "return the true successor; the trainer resets (in gymnax: step_env, not step)",
            )
            return
    if not counters:
        yield Finding(
            "note",
            "whether it resets by itself cannot be seen: its state counts no steps",
            "make sure that an ending transition returns the final observation, not a fresh one",
        )


def _check_actions(environment: Environment, play: Play, key: Array) -> Iterator[Finding]:
    space = environment.action_space
    if isinstance(space, Box):
        if not (np.asarray(space.low) < np.asarray(space.high)).all():
            yield Finding(
                "error",
                "the action space has a lower bound that is not below its upper bound",
                "declare low < high",
            )
            return
        if not np.isfinite(space.low).all() or not np.isfinite(space.high).all():
            yield Finding(
                "warning",
                "the action space is unbounded: actions cannot be scaled or clipped to it",
                "declare finite bounds; policy tanh-gaussian needs them",
            )
    if isinstance(space, Discrete):
        choices = jnp.arange(space.n)
    else:
        choices = jax.vmap(partial(random_action, space))(jax.random.split(key, 8))
    rows = np.linspace(0, len(play.reward) - 1, 32).astype(int)
    state = jax.tree.map(lambda leaf: leaf[rows, 0], play.state)
    keys = jax.random.wrap_key_data(play.key[rows, 0])
    over_states = jax.vmap(environment.transition, (0, 0, None, None))
    over_choices = jax.vmap(over_states, (None, None, 0, None))
    outcome = jax.jit(over_choices)(keys, state, choices, environment.default_params)
    seen = [np.asarray(outcome[0], np.float32), *(np.asarray(part) for part in outcome[2:5])]
    if all(np.array_equal(part, np.broadcast_to(part[:1], part.shape)) for part in seen):
        yield Finding(
            "warning",
            "the action changed neither observation, reward nor end at any of 32 states: at least "
            "within one step nothing can be learnt from it",
            "check that the transition uses its action, unless effects come later",
        )


def _check_parameters(environment: Environment, key: Array) -> Iterator[Finding]:
    params = environment.default_params
    if not jax.tree.leaves(params):
        return

    def one(params: Any) -> Any:
        _, state = environment.reset(key, params)
        action = random_action(environment.action_space, key)
        return environment.transition(key, state, action, params)[:5]

    try:
        stacked = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), params)
        jax.eval_shape(jax.vmap(one), stacked)
    except Exception as error:
        yield Finding(
            "warning",
            f"its parameters cannot lie on a vmap axis ({type(error).__name__}): sweeps over "
            "--env.NAME would fail",
            "use the parameters in jax.numpy only, not in Python branches or shapes",
        )
