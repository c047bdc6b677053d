"""A core's step as nodes of an ONNX graph, by the verbs of `numpy_cores.Verbs`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppo_jax.apps.export.numpy_cores import step_cores
from ppo_jax.apps.export.numpy_policy import Memory

MEMORY_IN, MEMORY_OUT = "memory_in", "memory_out"  # `memory_in.cell` for the leaf `cell`


class Value:
    """A value of the graph, with the operators of an array."""

    __array_ufunc__ = None  # NumPy's arrays leave their operators to this class

    def __init__(self, graph: Any, name: str) -> None:
        self.graph, self.name = graph, name

    def node(self, kind: str, *inputs: Any, **attributes: Any) -> Value:
        """The value of a new node; numbers among the inputs become constants."""
        names = [each.name if isinstance(each, Value) else np.asarray(each) for each in inputs]
        return Value(self.graph, self.graph.node(kind, *names, **attributes))

    def __add__(self, other: Any) -> Value:
        return self.node("Add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self.node("Add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self.node("Sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.node("Sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return self.node("Mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.node("Mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.node("Div", self, other)

    def __matmul__(self, other: Any) -> Value:
        return self.node("MatMul", self, other)


def _axes(*axes: int) -> np.ndarray:
    return np.array(axes, np.int64)


class Verbs:
    """See `numpy_cores.Verbs`."""

    @staticmethod
    def sigmoid(x: Value) -> Value:
        return x.node("Sigmoid", x)

    @staticmethod
    def tanh(x: Value) -> Value:
        return x.node("Tanh", x)

    @staticmethod
    def gelu(x: Value) -> Value:
        return x.node("Gelu", x, approximate="tanh")

    @staticmethod
    def root(x: Value) -> Value:
        return x.node("Sqrt", x)

    @staticmethod
    def columns(x: Value, first: int, last: int) -> Value:
        return x.node("Slice", x, _axes(first), _axes(last), _axes(-1))

    @staticmethod
    def mean(x: Value) -> Value:
        return x.node("ReduceMean", x, _axes(-1), keepdims=1)

    @staticmethod
    def beside(x: Value, axis: int) -> Value:
        return x.node("Unsqueeze", x, _axes(axis))

    @staticmethod
    def later(rows: Value, newest: Value) -> Value:
        kept = rows.node("Slice", rows, _axes(1), _axes(2**31), _axes(1))
        return rows.node("Concat", kept, Verbs.beside(newest, 1), axis=1)

    @staticmethod
    def flat(x: Value) -> Value:
        return x.node("Squeeze", x, _axes(2))

    @staticmethod
    def softmax(x: Value) -> Value:
        return x.node("Softmax", x, axis=1)

    @staticmethod
    def total(x: Value) -> Value:
        return x.node("ReduceSum", x, _axes(1), keepdims=0)


def port(direction: str, name: str) -> str:
    """The name of a memory's leaf as input or output of the model."""
    return direction if name == "memory" else f"{direction}.{name}"


def add_core(graph: Any, core: dict[str, Any], arrays: dict[str, np.ndarray], x: str) -> str:
    """Add the step of a core from `memory_in` to `memory_out`: the name of its features."""
    names = [name for layer in core["leaves"] for name in layer.values()]
    memory = {name: Value(graph, port(MEMORY_IN, name)) for name in names}
    after, features = step_cores(core, arrays, memory, Value(graph, x), Verbs)
    for name in names:
        output = port(MEMORY_OUT, name)
        graph.nodes.append(graph.helper.make_node("Identity", [after[name].name], [output]))
    return features.name


def read_start(described: dict[str, Any]) -> Memory | None:
    """The memory of a new episode from a model's own words, None without one."""
    start = described["start"]
    return start and {name: np.asarray(leaf, np.float32) for name, leaf in start.items()}
