"""An adapter's environment beside the suite's own functions, on the same keys and actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.apps.diagnose.random_play import random_action
from ppo_jax.apps.export.load_policy import load_policy
from ppo_jax.cli import main
from ppo_jax.envs.interface import Environment, action_mask
from ppo_jax.storage import checkpoint, checkpoint_list

STOPPED = 75  # exit code of a run that can be resumed


class Steps(NamedTuple):
    """Values that both sides returned, [T, B, ...]."""

    observation: Any
    reward: Any
    terminated: Any
    truncated: Any


def play(
    environment: Environment, reset: Callable, step: Callable, *, steps: int = 200, envs: int = 4
) -> tuple[Any, Steps, Steps]:
    """Random legal actions, given to both in one program; both start again where one ends.

    Args:
        reset: key -> (observation, state), of the suite's own functions.
        step: (key, state, action) -> (observation, state, reward, terminated, truncated).

    Returns:
        (actions, the adapter's steps, the suite's own steps); index 0 of the observations is the
        first one of all.
    """
    params = environment.default_params

    def both_reset(key: Any) -> tuple[Any, Any]:
        observation, state = environment.reset(key, params)
        with jax.numpy_rank_promotion("allow"):
            own_observation, own_state = reset(key)
        return (observation, own_observation), (state, own_state)

    def both_step(key: Any, states: Any, mask: Any) -> tuple:
        key_action, key_step, key_reset = jax.random.split(key, 3)
        action = random_action(environment.action_space, key_action, mask)
        ours, state, *rest, _ = environment.transition(key_step, states[0], action, params)
        with jax.numpy_rank_promotion("allow"):
            own, own_state, *own_rest = step(key_step, states[1], action)
        fresh, fresh_states = both_reset(key_reset)
        ended = rest[1] | rest[2]
        after = (state, like(own_state, states[1]))
        states = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh_states, after)
        shown = jnp.where(ended, 1, 0)
        legal = action_mask(jax.tree.map(lambda a, b: jnp.where(shown, a, b), fresh[0], ours))
        return states, legal, (action, Steps(ours, *rest), Steps(own, *own_rest))

    @jax.jit
    def program(keys: Any) -> Any:
        def one(key: Any) -> Any:
            key_reset, key_steps = jax.random.split(key)
            first, states = both_reset(key_reset)
            states = (states[0], like(states[1], states[1]))

            def body(carry: Any, key: Any) -> Any:
                states, legal, found = both_step(key, *carry)
                return (states, legal), found

            keys = jax.random.split(key_steps, steps)
            return first, jax.lax.scan(body, (states, action_mask(first[0])), keys)[1]

        return jax.vmap(one)(keys)

    first, (actions, ours, own) = jax.device_get(program(jax.random.split(jax.random.key(7), envs)))

    def joined(start: Any, steps: Steps) -> Steps:
        whole = jax.tree.map(lambda a, b: np.concatenate([a[:, None], b], 1), start, steps[0])
        return steps._replace(observation=whole)

    return actions, joined(first[0], ours), joined(first[1], own)


def like(state: Any, example: Any) -> Any:
    """`state` with the dtypes of `example`, without weak types: a loop carries it."""

    def cast(leaf: Any, old: Any) -> Any:
        old = jnp.asarray(old)
        if jnp.issubdtype(old.dtype, jax.dtypes.extended):
            return leaf
        return jax.lax.convert_element_type(leaf, old.dtype)

    return jax.tree.map(cast, state, example)


def require_equal(ours: Steps, own: Steps, rtol: float = 0.0) -> None:
    """Equal observations, rewards and ends; integers are compared as real numbers."""
    assert jax.tree.structure(ours.observation) == jax.tree.structure(own.observation)
    for a, b in zip(*map(jax.tree.leaves, (ours, own)), strict=True):
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=rtol, atol=rtol)


def require_steady_types(environment: Environment) -> None:
    """Reset and transition return the same strong types, so that a loop compiles once."""

    def avals(tree: Any) -> list:
        return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]

    params, key = environment.default_params, jax.random.key(0)
    first = jax.eval_shape(environment.reset, key, params)
    action = random_action(environment.action_space, key)
    step = jax.eval_shape(environment.transition, key, first[1], action, params)
    assert avals(step[:2]) == avals(first)
    assert not any(weak for _, _, weak in avals(step[:5]))
    assert avals(first[0]) == avals(environment.observation)
    assert [x[:2] for x in avals(step[2:5])] == [((), np.float32), ((), np.bool_), ((), np.bool_)]


def require_fresh_keys(environment: Environment) -> None:
    """Reset and transition use no random key twice, by JAX's own check. It runs nothing."""
    params, key = environment.default_params, jax.random.key(0)
    action = random_action(environment.action_space, key)
    with jax.debug_key_reuse(True):
        state = jax.jit(environment.reset).lower(key, params).out_info[1]
        jax.jit(environment.transition).lower(key, state, action, params)


def ages_at_the_cut(environment: Environment, params: Any, action: Any, steps: int) -> list[int]:
    """Ages at which one environment was truncated, if it always takes one action."""

    def body(state: Any, key: Any) -> Any:
        _, state, _, terminated, truncated, _ = environment.transition(key, state, action, params)
        return state, (terminated, truncated)

    @jax.jit
    def program(key: Any) -> Any:
        _, state = environment.reset(key, params)
        return jax.lax.scan(body, state, jax.random.split(key, steps))[1]

    terminated, truncated = program(jax.random.key(0))
    assert not terminated.any()
    return [int(t) + 1 for t in np.flatnonzero(truncated)]


def trained(name: str, folder: Path, capsys: pytest.CaptureFixture, *more: str) -> dict[str, Any]:
    """Train 128 steps by `ppo-jax train NAME`, and return the summary that it prints."""
    sizes = {
        "num-envs": 4,
        "rollout-length": 16,
        "total-env-steps": 128,
        "num-epochs": 1,
        "num-minibatches": 2,
        "hidden-sizes": 8,
        "eval-episodes": 1,
        "out": folder / "run",
    }
    flags = [f"--{flag}={value}" for flag, value in sizes.items()]
    words = ["train", name, *flags, "--quiet", "--json", *more]
    assert main.main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["env"], summary["env_steps"], summary["num_failed"]) == (name, 128, 0)
    manifest = json.loads((folder / "run" / "manifest.json").read_text("utf-8"))
    assert manifest["versions"][name.partition("/")[0]]
    return summary


def require_stops_and_exports(environment: Environment, folder: Path) -> None:
    """Require that a stop of the run that `trained` made changes no bit, and its export no action.

    The exported policy reads NumPy alone.
    """
    whole, half, artefact = folder / "run", folder / "half", folder / "policy"
    words = ["train", environment.name, "--config", str(whole / "config.json"), "--quiet"]
    assert main.main([*words, "--out", str(half), "--max-seconds", "1e-9"]) == STOPPED
    assert main.main(["resume", str(half), "--quiet"]) == 0
    for file in (whole / "metrics.jsonl", checkpoint_list.latest(whole)[0] / checkpoint.ARRAYS):
        assert file.read_bytes() == (half / file.relative_to(whole)).read_bytes()
    assert main.main(["export", str(whole), "--out", str(artefact)]) == 0
    keys = jax.random.split(jax.random.key(5), 16)
    params = environment.default_params
    seen = jax.device_get(jax.jit(jax.vmap(environment.reset, (0, None)))(keys, params)[0])
    ours, exported = (load_policy(place)(seen) for place in (whole, artefact))
    np.testing.assert_allclose(exported, ours, rtol=1e-5, atol=1e-6)
    assert len(ours) == 16
