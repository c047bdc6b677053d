"""A built-in network's policy as a description and named arrays, for programs without jax."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import numpy as np

from ppo_jax.apps.export.cores import describe_core
from ppo_jax.apps.export.numpy_policy import FORMAT
from ppo_jax.config.config import Config
from ppo_jax.config.errors import InputError
from ppo_jax.envs import leaves
from ppo_jax.envs.actions import action_form, box_of
from ppo_jax.envs.interface import Environment, ObservationSpace, without_action_mask
from ppo_jax.models.agent import Agent, leaf_codes
from ppo_jax.models.policy import Policy
from ppo_jax.models.torsos import Encoder, LeafCode
from ppo_jax.rl import moments

OBSERVATION_CLIP = 10.0  # as in `moments.standardise`


MEMORY_TEXT = (
    " It has a memory: action, memory = act(observation, memory), with memory = act.start() at the "
    "start of an episode, or act.start(n) of n episodes."
)


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
    arrays: dict[str, np.ndarray] = {}
    core = None if config.memory == "none" else describe_core(config, policy, arrays)
    net = policy.params["body"] if core is None else policy.params["body"]["net"]
    torso, head = net["actor_torso"], net["policy_head"]
    inputs = _inputs(config, parts, policy, arrays)
    named = [torso[f"Dense_{i}"] for i in range(len(config.hidden_sizes))]
    # The head's last outputs may be log stds, which no action needs.
    size = sum(policy.family.dials) + policy.family.num_reals
    for i, layer in enumerate([*named, head]):
        end = size if layer is head else None
        arrays[f"layer{i}_kernel"] = _float32(layer["kernel"])[..., :end]
        arrays[f"layer{i}_bias"] = _float32(layer["bias"])[:end]
    rule = _action_rule(parts.environment, policy, arrays)
    description = {
        "format": FORMAT,
        "env": env_name,
        "text": _text(env_name, inputs, rule, leaves.mask_size(parts.environment))
        + (MEMORY_TEXT if core else ""),
        "inputs": inputs,
        "mask_size": leaves.mask_size(parts.environment),
        "memory": core,
        "layers": [*(config.activation for _ in named), "none"],
        "action": rule,
    }
    return PlainPolicy(description, arrays)


def _inputs(
    config: Config, parts: Agent, policy: Policy, arrays: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """The inputs and their encoders; adds their arrays."""
    environment = parts.environment
    spaces = leaves.shown(environment)
    means = variances = {}
    if policy.moments is not None:
        variances = leaves.named(without_action_mask(moments.variance(policy.moments)))
        means = leaves.named(without_action_mask(policy.moments.mean))
    stored = leaves.named(without_action_mask(environment.observation))
    codes = leaf_codes(config, environment)
    grids = Encoder(config, environment.observation, codes).grids
    found, convolutions = [], 0
    for i, (name, space) in enumerate(spaces.items()):
        is_counted = bool(means) and moments.is_counted(stored[name], environment.observation)
        if is_counted:
            arrays[f"input{i}_mean"] = _float32(means[name])
            std = np.sqrt(_float32(variances[name]) + np.float32(moments.EPSILON))
            arrays[f"input{i}_std"] = std
        clip = OBSERVATION_CLIP if is_counted else None
        if (scale := codes[i].scale) is not None:  # in the same form, and never clipped
            arrays[f"input{i}_mean"] = np.zeros(space.shape, np.float32)
            arrays[f"input{i}_std"] = np.full(space.shape, scale, np.float32)
            clip = float(np.finfo(np.float32).max)
        if grids[i]:
            body = policy.params["body"]
            layer = body.get("net", body)["actor_torso"][f"Conv_{convolutions}"]
            convolutions += 1
            arrays[f"input{i}_kernel"] = _float32(layer["kernel"])
            arrays[f"input{i}_bias"] = _float32(layer["bias"])
        found.append(
            {
                "name": name,
                "shape": list(space.shape),
                "numbers": _numbers(space, codes[i]),
                "clip": clip,
                "activation": config.activation if grids[i] else None,
            }
        )
    return found


def _numbers(space: ObservationSpace, code: LeafCode) -> dict[str, int] | None:
    """The whole numbers that become one-hot rows, None for other observations."""
    if code.count:
        return {"first": code.low, "count": code.count}
    if not space.is_number:
        return None
    return {"first": int(space.low), "count": int(space.high) - int(space.low) + 1}


def _action_rule(
    environment: Environment, policy: Policy, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The rule from the head's output to the deterministic action; adds the bounds' arrays."""
    box, kind = box_of(environment.action_space), "none"
    if box is not None:
        kind = "squash" if policy.family.name == "tanh-gaussian" else "clip"
        ends = (box.low, box.high) if policy.bounds is None else policy.bounds
        low, high = (np.broadcast_to(_float32(x), box.shape).ravel() for x in ends)
        arrays |= {"action_low": low, "action_high": high}
    form = action_form(environment)
    return {"kind": kind, "dials": list(policy.family.dials), "form": form}


def _float32(value: Any) -> np.ndarray:
    return np.asarray(value, np.float32)


def _text(
    env_name: str, inputs: list[dict[str, Any]], rule: dict[str, Any], mask_size: int | None
) -> str:
    """Input and output of the policy in a few words."""
    told = [f"the most likely of {rule['dials']} actions"] if rule["dials"] else []
    told += {
        "none": [],
        "clip": ["real numbers clipped to the environment's bounds"],
        "squash": ["real numbers squashed by tanh into the environment's bounds"],
    }[rule["kind"]]
    shapes = ", ".join(f"{each['name']} {tuple(each['shape'])}" for each in inputs)
    is_whole = [each["name"] for each in inputs] == [leaves.WHOLE]
    what = f"of shape {tuple(inputs[0]['shape'])}" if is_whole else f"with the leaves {shapes}"
    mask = "" if mask_size is None else f" and its {mask_size} flags of legal actions"
    return (
        f"The policy for {env_name}: a raw observation {what}{mask}, or a batch of them -> an "
        f"action {_form_text(rule['form'])}: {', '.join(told)}."
    )


def _form_text(form: dict[str, Any]) -> str:
    if form["kind"] == "dict":
        return "{" + ", ".join(f"{k}: {_form_text(v)}" for k, v in form["parts"].items()) + "}"
    if form["kind"] == "tuple":
        return "(" + ", ".join(map(_form_text, form["parts"])) + ")"
    start = f" from {form['start']}" if any(form.get("start", ())) else ""
    return f"{form['dtype']} of shape {tuple(form['shape'])}{start}"


def npz_bytes(policy: PlainPolicy) -> bytes:
    """The content of `policy.npz`: the arrays, and the description as text. Nothing is pickled."""
    text = np.array(json.dumps(policy.description))
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, description=text, **policy.arrays)
    return file.getvalue()
