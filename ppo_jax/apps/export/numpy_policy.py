"""A trained policy in plain NumPy: `load(file)` gives a function observation -> action.

This file needs NumPy and nothing else. An exported policy is a folder with a copy of it,
`policy.py`, and the numbers, `policy.npz`:

    from policy import act
    action = act(observation)  # one observation, or a batch [n, ...] of them

The action is the deterministic one, as the environment takes it: clipped or squashed into the
bounds, or the number of the most likely action. A policy with an action mask takes `legal` too,
unless the observation has a leaf `action_mask`.

A policy with a memory takes it and gives the next one:

    memory = act.start()  # at the start of an episode; start(n) for a batch
    action, memory = act(observation, memory)
"""

from __future__ import annotations

import functools
import json
import math
import operator
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppo_jax.apps.export.numpy_cores import Verbs, gelu, sigmoid, step_cores

FORMAT = 2
WHOLE, MASK = "observation", "action_mask"  # names of an only input, and of the mask

Arrays = dict[str, np.ndarray]
Memory = dict[str, np.ndarray]


class Policy:
    """A function of observations, and the facts about it.

    Attributes:
        start: the memory of a new episode, `start(n)` that of n; None without a memory.
        description: the exported file's description; None for a policy that is no such file.
    """

    def __init__(
        self,
        act: Callable[..., Any],
        start: Callable[..., Any] | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, act)
        self._act, self.start, self.description = act, start, description

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._act(*given, **named)


def load(file: Path | str | BinaryIO) -> Policy:
    """The policy in `policy.npz` as a function; no code is loaded from the file.

    Args:
        file: a path, or a file that is open for reading bytes.

    Returns:
        `act(observation, legal=None) -> action` for one raw observation [*O] or a batch [n, *O] of
        them: an array, or a dict or tuple of arrays. Actions are float32, int32 if they are
        counted, or a dict or tuple of such. With a memory it is `act(observation, memory,
        legal=None) -> (action, memory)`. `act.__doc__` describes input and output, and
        `act.description` holds the policy's description as a dictionary.

    Raises:
        ValueError: the file is no exported policy, or `act` is given something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type for entry in archive.infolist()):
                raise ValueError("it is compressed, and may unpack to any size")
        if not isinstance(file, str | Path):
            file.seek(0)
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        description = json.loads(arrays.pop("description").item())
        version = description["format"]
    except Exception as error:  # a damaged archive raises whatever its reader meets
        raise ValueError(
            f"{str(file)!r} is no exported policy that can be read ({error}): export it again."
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"{str(file)!r} has format {version!r} and this program reads {FORMAT}: use the "
            "policy.py that came with it."
        )
    try:
        shapes, mask_size = shapes_of(description), description["mask_size"]
        text = str(description["text"])
        start = start_of(description, arrays)
        first = start and {name: leaf[None] for name, leaf in start.items()}
        with np.errstate(all="ignore"):
            actions(description, arrays, _example(description), first)
    except Exception as error:
        raise ValueError(
            f"{str(file)!r} is no exported policy that can be used ({type(error).__name__}: "
            f"{error}): export it again."
        ) from error

    def run(rows: dict[str, np.ndarray], memory: Memory | None = None) -> Any:
        return actions(description, arrays, rows, memory)

    policy = as_policy(run, shapes, mask_size, start)
    policy.__doc__, policy.description = text, description
    return policy


def as_policy(
    run: Callable[..., Any],
    shapes: Mapping[str, tuple[int, ...]],
    mask_size: int | None,
    start: Memory | None,
) -> Policy:
    """`run` of named rows as a policy of one observation or a batch.

    Args:
        run: (rows) -> actions; with a memory (rows, memory [n, ...]) -> (actions, memory).
        start: the memory of a new episode, [...] each; None without a memory.
    """

    def forward(observation: Any, legal: Any = None) -> Any:
        rows, is_one = read(shapes, mask_size, observation, legal)
        action = run(rows)
        return first_of(action) if is_one else action

    if start is None:
        return Policy(forward)
    own = start

    def act(observation: Any, memory: Any = None, legal: Any = None) -> Any:
        rows, is_one = read(shapes, mask_size, observation, legal)
        memory = read_memory(own, memory, None if is_one else len(next(iter(rows.values()))))
        action, memory = run(rows, memory)
        return (first_of(action), first_of(memory)) if is_one else (action, memory)

    def start_many(n: int | None = None) -> Memory:
        return {
            name: leaf.copy() if n is None else np.repeat(leaf[None], n, axis=0)
            for name, leaf in own.items()
        }

    return Policy(act, start_many)


def start_of(description: dict[str, Any], arrays: Arrays) -> Memory | None:
    """The memory of a new episode, None for a policy without one."""
    core = description["memory"]
    if core is None:
        return None
    names = [name for layer in core["leaves"] for name in layer.values()]
    return {name: arrays[f"start_{name}"] for name in names}


def read_memory(start: Memory, memory: Any, num_rows: int | None) -> Memory:
    """A memory as rows [n, ...], from that of one episode (`num_rows` None) or of n.

    Raises:
        ValueError: none is given, or it has other leaves or shapes.
    """
    lead = () if num_rows is None else (num_rows,)
    wanted = {name: lead + leaf.shape for name, leaf in start.items()}
    if not isinstance(memory, Mapping) or set(memory) != set(start):
        raise ValueError(
            "This policy has a memory: call it as action, memory = policy(observation, memory), "
            "with memory = policy.start() at the start of an episode, or policy.start(n) of n."
        )
    given = {name: np.asarray(memory[name], leaf.dtype) for name, leaf in start.items()}
    for name, x in given.items():
        if x.shape != wanted[name]:
            raise ValueError(
                f"The memory's leaf {name!r} of shape {x.shape} does not fit the observation: it "
                f"takes one of shape {wanted[name]}; give policy.start(n) for a batch of n."
            )
    return {name: x[None] if num_rows is None else x for name, x in given.items()}


def shapes_of(description: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each input by name."""
    return {
        each["name"]: tuple(map(operator.index, each["shape"])) for each in description["inputs"]
    }


def _example(description: dict[str, Any]) -> dict[str, np.ndarray]:
    """One row of each input, to see that the policy acts at all."""
    rows: dict[str, np.ndarray] = {}
    for each in description["inputs"]:
        if not isinstance(each["name"], str):
            raise TypeError(f"{each['name']!r} is no name of an input")
        first = (each["numbers"] or {}).get("first", 0)
        rows[each["name"]] = np.full((1, *each["shape"]), first, np.float32)
    if description["mask_size"] is not None:
        rows[MASK] = np.ones((1, description["mask_size"]), bool)
    return rows


def read(
    shapes: Mapping[str, tuple[int, ...]],
    mask_size: int | None,
    observation: Any,
    legal: Any = None,
    as_array: Callable[[Any], Any] = lambda x: np.asarray(x, np.float32),
) -> tuple[dict[str, Any], bool]:
    """The inputs of a policy by name as rows [n, ...], and True if they are one observation.

    Args:
        shapes: of the inputs [*O], by name; `a.b` is the leaf b within the leaf a.
        mask_size: the number of flags of the action mask, None without one.
        legal: the mask; None if the observation holds it as its leaf `action_mask`.

    Raises:
        ValueError: a leaf or the mask is missing, or has another shape.
    """
    fields = _fields_of(observation)
    is_bare = any(name.partition(".")[0] == WHOLE for name in shapes) and not (
        isinstance(fields, Mapping) and WHOLE in fields
    )
    tree = {WHOLE: observation} if is_bare else observation
    given = {}
    for name in shapes:
        given[name] = _numbers(_leaf(tree, name, shapes), name, shapes[name], as_array)
    if mask_size is not None:
        if legal is None and isinstance(fields, Mapping):
            legal = fields.get(MASK)
        if legal is None:
            raise ValueError(
                f"This policy needs the action mask: give legal=, {mask_size} flags that are True "
                "for the legal actions."
            )
        given[MASK] = _numbers(legal, MASK, (mask_size,), as_array) != 0
    elif legal is not None:
        raise ValueError("This policy was trained without an action mask: leave legal= out.")
    wanted = {**shapes, MASK: (mask_size,)}
    if all(x.shape == wanted[name] for name, x in given.items()):
        return {name: x[None] for name, x in given.items()}, True
    for name, x in given.items():
        if x.ndim != len(wanted[name]) + 1 or x.shape[1:] != wanted[name]:
            raise _unfit(name, f"shape {x.shape}", wanted[name])
    if len({len(x) for x in given.values()}) > 1:
        raise ValueError(
            f"The leaves have {', '.join(str(len(x)) for x in given.values())} rows: give as many "
            "of each."
        )
    return given, False


def _numbers(given: Any, name: str, shape: tuple[int, ...], as_array: Callable[[Any], Any]) -> Any:
    """`as_array(given)`, or one sentence about what is no array of numbers."""
    try:
        return as_array(given)
    except (TypeError, ValueError):
        kind = f"type {type(given).__name__}, which is no array of numbers,"
        raise _unfit(name, kind, shape) from None


def _unfit(name: str, of: str, shape: tuple[int, ...]) -> ValueError:
    """The error of an input that no policy of these shapes takes."""
    what = "An observation" if name == WHOLE else f"The leaf {name!r}"
    return ValueError(
        f"{what} of {of} does not fit: this policy takes one of shape {shape}, or a batch [n, ...] "
        "of them."
    )


def _fields_of(observation: Any) -> Any:
    """A named tuple as a dictionary; anything else as it is."""
    return observation._asdict() if hasattr(observation, "_asdict") else observation


def _leaf(tree: Any, name: str, names: Mapping[str, Any]) -> Any:
    for key in name.split("."):
        tree = _fields_of(tree)
        try:
            tree = tree[key] if isinstance(tree, Mapping) else tree[int(key)]
        except (KeyError, IndexError, ValueError, TypeError):
            raise ValueError(
                f"The observation has no leaf {name!r}: this policy takes {', '.join(names)}."
            ) from None
    return tree


def first_of(action: Any) -> Any:
    """The only action of a batch of one."""
    if isinstance(action, dict):
        return {name: first_of(part) for name, part in action.items()}
    if isinstance(action, tuple):
        return tuple(first_of(part) for part in action)
    return action[0]


def actions(
    description: dict[str, Any],
    arrays: Arrays,
    rows: Mapping[str, np.ndarray],
    memory: Memory | None = None,
) -> Any:
    """Deterministic actions [n, ...] of float32 inputs [n, *O] by name.

    Returns:
        the actions; with a memory the pair of them and the memory after them.
    """
    encoded = []
    for i, each in enumerate(description["inputs"]):
        x = rows[each["name"]]
        if each["numbers"]:
            x = one_hot(x, **each["numbers"])
        if each["clip"] is not None:
            clip = np.float32(each["clip"])
            x = np.clip((x - arrays[f"input{i}_mean"]) / arrays[f"input{i}_std"], -clip, clip)
        if each["activation"] is not None:
            x = _convolution(x, arrays[f"input{i}_kernel"]) + arrays[f"input{i}_bias"]
            x = ACTIVATIONS[each["activation"]](x)
        encoded.append(x.reshape(len(x), math.prod(x.shape[1:])))  # -1 fits no empty batch
    x = encoded[0] if len(encoded) == 1 else np.concatenate(encoded, axis=1)
    last = len(description["layers"]) - 1
    for i, activation in enumerate(description["layers"]):
        if i == last and memory is not None:  # the core is between the torso and the head
            memory, x = step_cores(description["memory"], arrays, memory, x, Verbs)
        x = ACTIVATIONS[activation](x @ arrays[f"layer{i}_kernel"] + arrays[f"layer{i}_bias"])
    action = _action(description["action"], arrays, x, rows.get(MASK))
    return action if memory is None else (action, memory)


def one_hot(x: np.ndarray, first: int, count: int) -> np.ndarray:
    """Whole numbers [n] from `first` on as rows [n, count] with a 1 at their place.

    An array of them [n, ..., m] becomes [n, ..., m x count]; there, a number outside has no 1.
    """
    rows = (x[..., None] - first == np.arange(count)).astype(np.float32)
    if x.ndim > 1:
        return rows.reshape(*x.shape[:-1], x.shape[-1] * count)
    if not rows.any(axis=1).all():
        raise ValueError(
            f"The observation {x.ravel()[~rows.any(axis=1)][0]:g} does not fit: this policy takes "
            f"one whole number from {first} to {first + count - 1}, or [n] of them."
        )
    return rows


def _convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """[n, H, W, C] with a kernel [h, w, C, F], no padding: [n, H - h + 1, W - w + 1, F]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nijchw,hwcf->nijf", windows, kernel)


def _action(rule: dict[str, Any], arrays: Arrays, x: np.ndarray, legal: np.ndarray | None) -> Any:
    """The environment's action, from the last layer's output [n, ...]: logits, then means."""
    dials, counts = rule["dials"], np.zeros((len(x), 0), np.int32)
    if dials:
        bounds = np.cumsum(dials)
        groups = np.split(x[:, : bounds[-1]], bounds[:-1], axis=1)
        if legal is not None:
            flags = np.split(legal, bounds[:-1], axis=1)
            groups = [_masked(*pair) for pair in zip(groups, flags)]
        counts = np.stack([group.argmax(axis=1) for group in groups], axis=1).astype(np.int32)
    reals = x[:, sum(dials) :]
    if rule["kind"] != "none":
        low, high = arrays["action_low"], arrays["action_high"]
        if rule["kind"] == "squash":
            reals = low + np.float32(0.5) * (np.tanh(reals) + np.float32(1.0)) * (high - low)
        reals = np.clip(reals, low, high)
    return own_action(rule["form"], counts, reals)


def _masked(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Logits of one dial with -inf for illegal actions; all are legal where none is."""
    return np.where(legal | ~legal.any(axis=1, keepdims=True), logits, np.float32(-np.inf))


def own_action(form: dict[str, Any], counts: np.ndarray, reals: np.ndarray) -> Any:
    """Actions in the environment's own form, from those of all dials [n, K] and all numbers [n, A].

    Args:
        form: a dict or a tuple of forms, or a leaf: its dials or places (`at`), its shape and
            dtype, and the numbers from which its dials count (`start`).
    """
    if form["kind"] == "dict":
        return {name: own_action(part, counts, reals) for name, part in form["parts"].items()}
    if form["kind"] == "tuple":
        return tuple(own_action(part, counts, reals) for part in form["parts"])
    first, last = form["at"]
    x = (counts if form["kind"] == "count" else reals)[:, first:last]
    if form["kind"] == "count":
        x = x + np.asarray(form["start"], np.int32)
    return x.reshape(len(x), *form["shape"]).astype(form["dtype"])


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0.0)),
    "swish": lambda x: x * sigmoid(x),
    "gelu": gelu,  # the approximation by tanh
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, np.float32(0.0)))),
}
