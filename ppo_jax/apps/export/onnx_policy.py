"""A policy as an ONNX model: `build` makes it of layers, `load` runs it by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ppo_jax.apps.export.layers import PlainPolicy
from ppo_jax.apps.export.numpy_policy import one_hot
from ppo_jax.config.errors import InputError

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # for that opset; later runtimes read it


def require() -> tuple[Any, Any]:
    """The packages `onnx` and `onnxruntime`; refuses if one is missing."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"format 'onnx' needs the package {error.name}, which is not installed: install it "
            "with pip install 'ppo-jax[onnx]', or use --format numpy, which needs nothing."
        ) from None
    return onnx, onnxruntime


class _Graph:
    """Nodes and constants in the order in which they are added; each node has one output."""

    def __init__(self, helper: Any, numpy_helper: Any) -> None:
        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, names, [output], **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name


def build(policy: PlainPolicy) -> bytes:
    """The model's bytes: `observation` float32 [batch, *O] -> `action` [batch, ...]."""
    onnx, _ = require()
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = _Graph(helper, onnx.numpy_helper)
    description, arrays = policy.description, policy.arrays
    shape, rule = description["observation_shape"], description["action"]
    x = "observation"
    if description["numbers"] is not None:
        x = _one_hot(graph, x, kinds, **description["numbers"])
    if description["observation_clip"] is not None:
        clip = np.asarray(description["observation_clip"], np.float32)
        x = graph.node("Sub", x, arrays["observation_mean"])
        x = graph.node("Div", x, arrays["observation_std"])
        x = graph.node("Clip", x, -clip, clip)
    for i, layer in enumerate(description["layers"]):
        kernel, bias = arrays[f"layer{i}_kernel"], arrays[f"layer{i}_bias"]
        if layer["kind"] == "convolution":  # ours are [n, H, W, C], theirs [n, C, H, W]
            x = graph.node("Transpose", x, perm=(0, 3, 1, 2))
            x = graph.node("Conv", x, kernel.transpose(3, 2, 0, 1), bias)
            x = graph.node("Transpose", x, perm=(0, 2, 3, 1))
        else:
            if i == 0 or description["layers"][i - 1]["kind"] == "convolution":
                x = graph.node("Reshape", x, np.array([-1, kernel.shape[0]], np.int64))
            x = graph.node("Gemm", x, kernel, bias)
        x = _activate(graph, layer["activation"], x)
    x = _act(graph, rule, arrays, x, kinds)
    graph.nodes[-1].output[0] = "action"
    kind = kinds.INT32 if rule["kind"] == "argmax" else kinds.FLOAT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [helper.make_tensor_value_info("observation", kinds.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("action", kind, ["batch", *rule["shape"]])],
            graph.constants,
            doc_string=description["text"],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ppo_jax",
        doc_string=description["text"],
    )
    helper.set_model_props(model, {"ppo_jax": json.dumps(description)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _one_hot(graph: _Graph, x: str, kinds: Any, first: int, count: int) -> str:
    """Whole numbers [batch] as rows [batch, count] with a 1 at their place."""
    place = graph.node("Sub", graph.node("Cast", x, to=kinds.INT64), np.array(first, np.int64))
    return graph.node("OneHot", place, np.array(count, np.int64), np.array([0, 1], np.float32))


def _activate(graph: _Graph, name: str, x: str) -> str:
    if name == "none":
        return x
    if name == "swish":
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    if name == "gelu":
        return graph.node("Gelu", x, approximate="tanh")
    return graph.node({"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}[name], x)


def _act(
    graph: _Graph, rule: dict[str, Any], arrays: dict[str, np.ndarray], x: str, kinds: Any
) -> str:
    shape = np.array([-1, *rule["shape"]], np.int64)
    if rule["kind"] == "argmax":
        bounds = np.cumsum([0, *rule["sizes"]])
        columns = np.array([1], np.int64)
        chosen = [
            graph.node(
                "ArgMax",
                graph.node("Slice", x, bounds[i : i + 1], bounds[i + 1 : i + 2], columns),
                axis=1,
                keepdims=1,
            )
            for i in range(len(rule["sizes"]))
        ]
        joined = graph.node("Concat", *chosen, axis=1) if len(chosen) > 1 else chosen[0]
        return graph.node("Cast", graph.node("Reshape", joined, shape), to=kinds.INT32)
    low, high = arrays["action_low"], arrays["action_high"]
    x = graph.node("Reshape", x, shape)
    if rule["kind"] == "squash":
        half = graph.node("Mul", graph.node("Tanh", x), np.float32(0.5) * (high - low))
        x = graph.node("Add", half, low + np.float32(0.5) * (high - low))
    return graph.node("Min", graph.node("Max", x, low), high)


def _require_numbers(observation: np.ndarray, numbers: dict[str, int]) -> None:
    try:
        one_hot(observation, **numbers)
    except ValueError as error:
        raise InputError(str(error)) from error


def load(model: bytes) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...]]:
    """A model's function of float32 observations [n, *O], and the shape [*O].

    Raises:
        InputError: ONNX Runtime is missing, or cannot read the model as an exported policy.
    """
    _, runtime = require()
    try:
        session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
        (given,), (taken,) = session.get_inputs(), session.get_outputs()
        if (given.name, taken.name) != ("observation", "action"):
            raise ValueError("it is another model")
        shape = tuple(int(size) for size in given.shape[1:])
        described = session.get_modelmeta().custom_metadata_map.get("ppo_jax", "{}")
        numbers = json.loads(described).get("numbers")
    except Exception as error:  # the runtime's errors share no class of their own
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"This is no exported ONNX policy ({reason}): export it again.") from error

    def run(observation: np.ndarray) -> np.ndarray:
        if numbers:
            _require_numbers(observation, numbers)
        return session.run(["action"], {"observation": observation})[0]

    return run, shape
