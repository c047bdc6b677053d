"""Cores of recurrent policies in plain NumPy; an exported `policy.py` holds a copy of this file.

A core's step is written once, in verbs that NumPy's arrays and the values of an ONNX graph know.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ONE = np.float32(1.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(0.5) * (np.tanh(np.float32(0.5) * x) + np.float32(1.0))


def gelu(x: np.ndarray) -> np.ndarray:
    inner = np.float32(np.sqrt(2.0 / np.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (np.float32(1.0) + np.tanh(inner))


class Verbs:
    """The verbs of a core's step, on NumPy arrays; `onnx_cores` has them on the values of a graph.

    Both know + - * / and @ as well.
    """

    sigmoid = staticmethod(sigmoid)
    tanh = staticmethod(np.tanh)
    gelu = staticmethod(gelu)
    root = staticmethod(np.sqrt)

    @staticmethod
    def columns(x: np.ndarray, first: int, last: int) -> np.ndarray:
        return x[..., first:last]

    @staticmethod
    def mean(x: np.ndarray) -> np.ndarray:  # over the features
        return x.mean(axis=-1, keepdims=True)

    @staticmethod
    def beside(x: np.ndarray, axis: int) -> np.ndarray:
        return np.expand_dims(x, axis)

    @staticmethod
    def later(rows: np.ndarray, newest: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[:, 1:], newest[:, None]], axis=1)

    @staticmethod
    def flat(x: np.ndarray) -> np.ndarray:  # [n, K, 1] -> [n, K]
        return x[..., 0]

    @staticmethod
    def softmax(x: np.ndarray) -> np.ndarray:  # over the entries, axis 1
        x = np.exp(x - x.max(axis=1, keepdims=True))
        return x / x.sum(axis=1, keepdims=True)

    @staticmethod
    def total(x: np.ndarray) -> np.ndarray:
        return x.sum(axis=1)


def step_cores(
    core: dict[str, Any], arrays: dict[str, np.ndarray], memory: dict[str, Any], x: Any, verbs: Any
) -> tuple[dict[str, Any], Any]:
    """One step of all layers: the memory after it, and the features [n, H]."""
    after: dict[str, Any] = {}
    for i, names in enumerate(core["leaves"]):
        prefix = f"core{i}_"
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        before = {leaf: memory[name] for leaf, name in names.items()}
        found, x = STEPS[core["kind"]](own, before, x, verbs)
        after |= {names[leaf]: value for leaf, value in found.items()}
    return after, x


def _part(x: Any, i: int, size: int, verbs: Any) -> Any:
    return verbs.columns(x, i * size, (i + 1) * size)


def _gru(p: dict[str, np.ndarray], memory: dict[str, Any], x: Any, verbs: Any) -> Any:
    size, h = p["memory"].shape[0], memory[""]
    given, own = x @ p["input"] + p["bias"], h @ p["memory"]
    gates = [
        verbs.sigmoid(_part(given, i, size, verbs) + _part(own, i, size, verbs)) for i in (0, 1)
    ]
    inner = gates[0] * (_part(own, 2, size, verbs) + p["memory_bias"])
    candidate = verbs.tanh(_part(given, 2, size, verbs) + inner)
    h = (ONE - gates[1]) * candidate + gates[1] * h
    return {"": h}, h


def _lstm(p: dict[str, np.ndarray], memory: dict[str, Any], x: Any, verbs: Any) -> Any:
    size = p["memory"].shape[0]
    given = x @ p["input"] + memory["hidden"] @ p["memory"] + p["bias"]
    write, keep, candidate, show = (_part(given, i, size, verbs) for i in range(4))
    cell = verbs.sigmoid(keep) * memory["cell"] + verbs.sigmoid(write) * verbs.tanh(candidate)
    hidden = verbs.sigmoid(show) * verbs.tanh(cell)
    return {"cell": cell, "hidden": hidden}, hidden


def _mingru(p: dict[str, np.ndarray], memory: dict[str, Any], x: Any, verbs: Any) -> Any:
    size = p["input"].shape[1] // 2
    given = x @ p["input"] + p["bias"]
    update = verbs.sigmoid(_part(given, 0, size, verbs))
    h = (ONE - update) * memory[""] + update * _part(given, 1, size, verbs)
    return {"": h}, h


def _lru(p: dict[str, np.ndarray], memory: dict[str, Any], x: Any, verbs: Any) -> Any:
    size, given = p["scale"].shape[0], x @ p["input"]
    old, turn, shrink = memory, p["decay_imag"], p["decay_real"]
    real = old["real"] * shrink - old["imag"] * turn + _part(given, 0, size, verbs) * p["scale"]
    imag = old["real"] * turn + old["imag"] * shrink + _part(given, 1, size, verbs) * p["scale"]
    y = real @ p["output"][:, :size] - imag @ p["output"][:, size:] + x @ p["skip"]
    y = verbs.gelu(y)
    gate = verbs.sigmoid(y @ p["gate"] + p["gate_bias"])
    return {"imag": imag, "real": real}, y * gate * np.float32(2.0)


def _attention(p: dict[str, np.ndarray], memory: dict[str, Any], x: Any, verbs: Any) -> Any:
    """The flags of what was seen are numbers here, 0 or 1."""
    embedded = x @ p["input"] + p["bias"]
    seen = verbs.later(memory["seen"], embedded)
    flag = verbs.columns(embedded, 0, 1) * np.float32(0.0) + ONE
    valid = verbs.later(verbs.beside(memory["valid"], 2), flag)
    offered = _norm(seen, verbs)
    asked = verbs.beside(_norm(embedded, verbs) @ p["query"], 1)
    scores = (offered @ p["key"] * asked) @ p["heads"] + p["age"]
    weights = verbs.softmax(scores + (valid - ONE) * np.float32(1e30))
    mixed = verbs.total(offered @ p["value"] * (weights @ p["heads"].T))
    y = embedded + mixed @ p["output"]
    hidden = verbs.gelu(_norm(y, verbs) @ p["up"] + p["up_bias"])
    after = {"seen": seen, "valid": verbs.flat(valid)}
    return after, y + (hidden @ p["down"] + p["down_bias"])


def _norm(x: Any, verbs: Any) -> Any:
    x = x - verbs.mean(x)
    return x / verbs.root(verbs.mean(x * x) + np.float32(1e-6))


STEPS = {"gru": _gru, "lstm": _lstm, "mingru": _mingru, "lru": _lru, "attention": _attention}
