"""The core of a recurrent policy as a description and named arrays, and its memory by names."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ppo_jax.config.config import Config
from ppo_jax.envs.leaves import named as by_name
from ppo_jax.models import attention
from ppo_jax.models.policy import Policy

ALONE = "memory"  # name of a memory that is one array


def named_memory(memory: Any) -> dict[str, Any]:
    """The leaves of a memory by name, such as `cell`, or `1.cell` in the second layer."""
    return by_name(memory, alone=ALONE)


def unnamed_memory(policy: Policy, named: dict[str, Any]) -> Any:
    """The way back from `named_memory`, to the actor's own tree."""
    start = jax.eval_shape(lambda: policy.network.start(policy.params, 1)["actor"])
    own = jax.tree.structure(start)
    return jax.tree.unflatten(own, [named[name] for name in named_memory(start)])


def start_memory(policy: Policy) -> dict[str, np.ndarray]:
    """The actor's memory at the start of an episode, by name, of one environment."""
    start = policy.network.start(policy.params, 1)["actor"]
    return {name: np.asarray(leaf)[0] for name, leaf in named_memory(start).items()}


def describe_core(config: Config, policy: Policy, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The actor's core; adds its arrays. See `numpy_cores.step_cores`."""
    for name, leaf in start_memory(policy).items():
        arrays[f"start_{name}"] = np.asarray(leaf, np.float32)
    params = policy.params["body"]["actor"]
    layers = [params] if config.memory_layers == 1 else list(params)
    start = policy.network.start(policy.params, 1)["actor"]
    starts = [start] if config.memory_layers == 1 else list(start)
    leaves = []
    for i, (layer, memory) in enumerate(zip(layers, starts, strict=True)):
        own = {name: np.asarray(leaf, np.float32) for name, leaf in layer.items()}
        own = _FORMS.get(config.memory, dict)(own)
        arrays |= {f"core{i}_{name}": leaf for name, leaf in own.items()}
        prefix = "" if config.memory_layers == 1 else f"{i}."
        parts = list(memory) if isinstance(memory, dict) else [""]
        leaves.append({part: (prefix + part).rstrip(".") or ALONE for part in parts})
    return {"kind": config.memory, "leaves": leaves}


def _lru(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The eigenvalues in place of their logarithms."""
    wide = {name: params[name].astype(np.float64) for name in ("log_rate", "log_angle")}
    rate, angle = np.exp(wide["log_rate"]), np.exp(wide["log_angle"])
    radius = np.exp(-rate)
    kept = {name: leaf for name, leaf in params.items() if name not in wide}
    found = {
        "decay_real": radius * np.cos(angle),
        "decay_imag": radius * np.sin(angle),
        "scale": np.sqrt(-np.expm1(-2.0 * rate)),
    }
    return kept | {name: leaf.astype(np.float32) for name, leaf in found.items()}


def _attention(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ages as [K, heads], the oldest first; heads as a matrix [H, heads] that sums their parts."""
    size = params["query"].shape[0]
    heads = attention.num_heads(size)
    own = np.repeat(np.eye(heads, dtype=np.float32), size // heads, axis=0)
    scale = np.float32((size // heads) ** -0.5)
    age = np.ascontiguousarray(params["age"][:, ::-1].T)
    return params | {"age": age, "heads": own, "query": params["query"] * scale}


_FORMS = {"lru": _lru, "attention": _attention}
