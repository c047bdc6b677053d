"""A trained policy in plain NumPy: `load(file)` gives a function observation -> action.

This file needs NumPy and nothing else. An exported policy is a folder with a copy of it,
`policy.py`, and the numbers, `policy.npz`:

    from policy import act
    action = act(observation)  # one observation, or a batch [n, ...] of them

The action is the deterministic one, as the environment takes it: clipped or squashed into the
bounds, or the number of the most likely action.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT = 1

Arrays = dict[str, np.ndarray]


def load(file: Path | str | BinaryIO) -> Callable[[Any], np.ndarray]:
    """The policy in `policy.npz` as a plain function; no code is loaded from the file.

    Args:
        file: a path, or a file that is open for reading bytes.

    Returns:
        `act(observation) -> action` for one raw observation [*O] or a batch [n, *O] of them;
        float32 actions, or int32 if they are counted. `act.__doc__` describes input and output,
        and `act.description` holds the policy's description as a dictionary.

    Raises:
        ValueError: the file is no exported policy, or `act` is given another shape.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        description = json.loads(arrays.pop("description").item())
        version = description["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise ValueError(
            f"{str(file)!r} is no exported policy that can be read ({error}): export it again."
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{str(file)!r} has format {version!r} and this program reads {FORMAT}: use the "
            "policy.py that came with it."
        )
    shape = tuple(description["observation_shape"])

    def act(observation: Any) -> np.ndarray:
        x = np.asarray(observation, np.float32)
        if x.shape == shape:
            return actions(description, arrays, x[None])[0]
        if x.shape[1:] == shape and x.ndim == len(shape) + 1:
            return actions(description, arrays, x)
        raise ValueError(
            f"An observation of shape {x.shape} does not fit: this policy takes one of shape "
            f"{shape}, or a batch [n, ...] of them."
        )

    act.__doc__ = description["text"]
    act.description = description  # type: ignore[attr-defined]
    return act


def actions(description: dict[str, Any], arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """Deterministic actions [n, ...] of float32 observations [n, *O]."""
    if description.get("numbers"):
        x = one_hot(x, **description["numbers"])
    if description["observation_clip"] is not None:
        clip = np.float32(description["observation_clip"])
        x = np.clip((x - arrays["observation_mean"]) / arrays["observation_std"], -clip, clip)
    for i, layer in enumerate(description["layers"]):
        kernel, bias = arrays[f"layer{i}_kernel"], arrays[f"layer{i}_bias"]
        if layer["kind"] == "convolution":
            x = _convolution(x, kernel) + bias
        else:
            x = x.reshape(len(x), -1) @ kernel + bias
        x = ACTIVATIONS[layer["activation"]](x)
    return _action(description["action"], arrays, x)


def one_hot(x: np.ndarray, first: int, count: int) -> np.ndarray:
    """Whole numbers [n] from `first` on as rows [n, count] with a 1 at their place."""
    rows = (x[:, None] - first == np.arange(count)).astype(np.float32)
    if not rows.any(axis=1).all():
        raise ValueError(
            f"The observation {x[~rows.any(axis=1)][0]:g} does not fit: this policy takes one "
            f"whole number from {first} to {first + count - 1}, or [n] of them."
        )
    return rows


def _convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[n, H, W, C] with a kernel [h, w, C, F], no padding: [n, H - h + 1, W - w + 1, F]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nijchw,hwcf->nijf", windows, kernel)


def _action(rule: dict[str, Any], arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """The environment's action, from the last layer's output [n, ...]."""
    if rule["kind"] == "argmax":  # for each group of logits that stand side by side
        groups = np.split(x, np.cumsum(rule["sizes"])[:-1], axis=1)
        chosen = np.stack([group.argmax(axis=1) for group in groups], axis=1)
        return chosen.reshape(len(x), *rule["shape"]).astype(np.int32)
    low, high = arrays["action_low"], arrays["action_high"]
    x = x.reshape(len(x), *rule["shape"])
    if rule["kind"] == "squash":
        x = low + np.float32(0.5) * (np.tanh(x) + np.float32(1.0)) * (high - low)
    return np.clip(x, low, high)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1.0))


def _gelu(x: np.ndarray) -> np.ndarray:
    inner = np.float32(np.sqrt(2.0 / np.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (np.float32(1.0) + np.tanh(inner))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0.0)),
    "swish": lambda x: x * _sigmoid(x),
    "gelu": _gelu,  # the approximation by tanh
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0.0)))),
}
