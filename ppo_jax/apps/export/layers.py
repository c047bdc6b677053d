"""A built-in network's policy as a description and named arrays, for programs without jax."""

from __future__ import annotations

import io
import json
import math
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.export.numpy_policy import FORMAT
from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs.interface import Box, Discrete, Environment, shown_shape
from ppo_jax.models.agent import Agent, Policy
from ppo_jax.rl import moments

OBSERVATION_CLIP = 10.0  # as in `moments.standardise`


class PlainPolicy(NamedTuple):
    """Layers, normaliser and the rule of the deterministic action; see `numpy_policy.actions`."""

    description: dict[str, Any]  # JSON
    arrays: dict[str, np.ndarray]  # float32


def describe_network(config: Config, parts: Agent, policy: Policy, env_name: str) -> PlainPolicy:
    """The deterministic policy of a member as layers.

    Args:
        policy: of one member, without a leading axis of seeds.

    Raises:
        InputError: the network is the user's own, whose layers are not known.
    """
    if config.network is not None:
        raise InputError(
            "format 'numpy' and 'onnx' write the layers of a built-in network, and this run has a "
            "network of its own: use --format stablehlo."
        )
    environment, space = parts.environment, parts.environment.action_space
    arrays: dict[str, np.ndarray] = {}
    stats = policy.moments
    if stats is not None:
        arrays["observation_mean"] = _float32(stats.mean)
        std = np.sqrt(_float32(moments.variance(stats)) + np.float32(moments.EPSILON))
        arrays["observation_std"] = std
    body = policy.params["body"]
    torso, head = body["actor_torso"], body["policy_head"]
    layers = []
    named = [("convolution", torso["Conv_0"])] if "Conv_0" in torso else []
    named += [("dense", torso[f"Dense_{i}"]) for i in range(len(config.hidden_sizes))]
    for i, (kind, layer) in enumerate([*named, ("dense", head)]):
        is_head = i == len(named)
        # A head of twice the size holds the log std in its second half, which no action needs.
        size = _head_size(space) if is_head else None
        arrays[f"layer{i}_kernel"] = _float32(layer["kernel"])[..., :size]
        arrays[f"layer{i}_bias"] = _float32(layer["bias"])[:size]
        layers.append({"kind": kind, "activation": "none" if is_head else config.activation})
    rule, bounds = _action_rule(space, policy)
    arrays.update(bounds)
    description = {
        "format": FORMAT,
        "env": env_name,
        "text": _text(env_name, shown_shape(environment), rule),
        "observation_shape": list(shown_shape(environment)),
        "numbers": _numbers(environment),
        "observation_clip": OBSERVATION_CLIP if config.normalize_observations else None,
        "layers": layers,
        "action": rule,
    }
    return PlainPolicy(description, arrays)


def _numbers(environment: Environment) -> dict[str, int] | None:
    """The whole numbers that become one-hot rows, None for other observations."""
    space = None if environment.raw is None else environment.raw.observation_space
    if space is None or not space.is_number:
        return None
    return {"first": int(space.low), "count": int(space.high) - int(space.low) + 1}


def _action_rule(space: Any, policy: Policy) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The rule from the head's output to the deterministic action, and the arrays of its bounds."""
    if isinstance(space, Box):
        kind = "squash" if policy.family.name == "tanh-gaussian" else "clip"
        ends = (space.low, space.high) if policy.bounds is None else policy.bounds
        low, high = (np.broadcast_to(_float32(x), space.shape).copy() for x in ends)
        bounds = {"action_low": low, "action_high": high}
        return {"kind": kind, "shape": list(space.shape)}, bounds
    sizes = [int(space.n)] if isinstance(space, Discrete) else [int(n) for n in space.ns]
    shape = [] if isinstance(space, Discrete) else [len(sizes)]
    return {"kind": "argmax", "sizes": sizes, "shape": shape}, {}


def _head_size(space: Any) -> int:
    if isinstance(space, Box):
        return math.prod(space.shape)
    return int(space.n) if isinstance(space, Discrete) else sum(int(n) for n in space.ns)


def _float32(value: Any) -> np.ndarray:
    return np.asarray(value, np.float32)


def _text(env_name: str, shape: tuple[int, ...], rule: dict[str, Any]) -> str:
    """Input and output of the policy in a sentence."""
    told = {
        "argmax": f"the most likely of {rule.get('sizes')} actions, counted from 0",
        "clip": "clipped to the environment's bounds",
        "squash": "squashed by tanh into the environment's bounds",
    }[rule["kind"]]
    return (
        f"The policy for {env_name}: a raw observation of shape {tuple(shape)}, or a batch of them "
        f"-> an action of shape {tuple(rule['shape'])}, {told}."
    )


def npz_bytes(policy: PlainPolicy) -> bytes:
    """The content of `policy.npz`: the arrays, and the description as text. Nothing is pickled."""
    text = np.array(json.dumps(policy.description))
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, description=text, **policy.arrays)
    return file.getvalue()
