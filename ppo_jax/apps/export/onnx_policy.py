"""A policy as an ONNX model: `build` makes it of layers, `load` runs it by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ppo_jax.apps.export.layers import PlainPolicy
from ppo_jax.apps.export.numpy_policy import (
    FORMAT,
    MASK,
    Memory,
    one_hot,
    shapes_of,
    start_of,
)
from ppo_jax.apps.export.onnx_cores import MEMORY_IN, MEMORY_OUT, add_core, port, read_start
from ppo_jax.config.errors import InputError, install

OPSET = 20  # the first with Gelu
IR_VERSION = 9  # for that opset; later runtimes read it
ACTION = "action"  # name of an action that is one array; its leaves are `action.NAME`

Shapes = dict[str, tuple[int, ...]]
# A NumPy dtype of actions -> ONNX's word for it
_KINDS = {
    **{
        f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32)
    },
    **{"int64": "INT64", "uint64": "UINT64", "bool": "BOOL"},
    **{"float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16"},
}


def require() -> tuple[Any, Any]:
    """The packages `onnx` and `onnxruntime`; refuses if one is missing."""
    try:
        import onnx  # pyright: ignore[reportMissingImports]
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"format 'onnx' needs the package {error.name}, which is not installed: install it "
            f"with {install('onnx')}, or use --format numpy, which needs nothing."
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
    """The model's bytes: named inputs, float32 [batch, *O] -> named actions [batch, ...].

    One array is `observation`, one action is `action`; leaves have their own names. A policy with
    an action mask has the input `action_mask`, bool [batch, n]. One with a memory has it as input
    `memory_in` and output `memory_out`, or a pair for each leaf, such as `memory_in.cell`.
    """
    onnx, _ = require()
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = _Graph(helper, onnx.numpy_helper)
    description, arrays = policy.description, policy.arrays
    given = [
        helper.make_tensor_value_info(each["name"], kinds.FLOAT, ["batch", *each["shape"]])
        for each in description["inputs"]
    ]
    mask_size = description["mask_size"]
    if mask_size is not None:
        given.append(helper.make_tensor_value_info(MASK, kinds.BOOL, ["batch", mask_size]))
    encoded = [
        _encode(graph, i, each, arrays, kinds) for i, each in enumerate(description["inputs"])
    ]
    x = encoded[0] if len(encoded) == 1 else graph.node("Concat", *encoded, axis=1)
    start, last = start_of(description, arrays), len(description["layers"]) - 1
    for i, activation in enumerate(description["layers"]):
        if i == last and start is not None:
            x = add_core(graph, description["memory"], arrays, x)
        x = graph.node("Gemm", x, arrays[f"layer{i}_kernel"], arrays[f"layer{i}_bias"])
        x = _activate(graph, activation, x)
    rule = description["action"]
    parts = _act(graph, rule, arrays, x, None if mask_size is None else MASK, kinds)
    taken = []
    for name, form in leaf_forms(rule["form"]).items():
        own = _own(graph, form, parts, kinds)
        graph.nodes.append(helper.make_node("Identity", [own], [name]))
        kind = getattr(kinds, _KINDS[form["dtype"]])
        taken.append(helper.make_tensor_value_info(name, kind, ["batch", *form["shape"]]))
    for name, leaf in (start or {}).items():
        shape = ["batch", *leaf.shape]
        given.append(helper.make_tensor_value_info(port(MEMORY_IN, name), kinds.FLOAT, shape))
        taken.append(helper.make_tensor_value_info(port(MEMORY_OUT, name), kinds.FLOAT, shape))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "policy", given, taken, graph.constants, doc_string=description["text"]
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ppo_jax",
        doc_string=description["text"],
    )
    words = {
        **description,
        "start": start and {name: leaf.tolist() for name, leaf in start.items()},
    }
    helper.set_model_props(model, {"ppo_jax": json.dumps(words)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def leaf_forms(form: dict[str, Any], name: str = "") -> dict[str, dict[str, Any]]:
    """The leaves of an action's form by name; the only one is `action`."""
    if form["kind"] not in ("dict", "tuple"):
        return {name or ACTION: form}
    found: dict[str, dict[str, Any]] = {}
    for key, part in _parts(form):
        found |= leaf_forms(part, f"{ACTION}.{key}" if not name else f"{name}.{key}")
    return found


def _parts(form: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    parts = form["parts"]
    return (
        list(parts.items())
        if form["kind"] == "dict"
        else [(str(i), p) for i, p in enumerate(parts)]
    )


def _assembled(form: dict[str, Any], taken: dict[str, np.ndarray], name: str = ACTION) -> Any:
    """The named outputs as the environment's own tree."""
    if form["kind"] not in ("dict", "tuple"):
        return taken[name]
    inner = {key: _assembled(part, taken, f"{name}.{key}") for key, part in _parts(form)}
    return inner if form["kind"] == "dict" else tuple(inner.values())


def _encode(
    graph: _Graph, i: int, each: dict[str, Any], arrays: dict[str, np.ndarray], kinds: Any
) -> str:
    """One input, encoded as rows [batch, numbers]."""
    x = each["name"]
    if each["numbers"] is not None and each["shape"]:
        x = _flags(graph, x, kinds, tuple(each["shape"]), **each["numbers"])
    elif each["numbers"] is not None:
        x = graph.node("Reshape", x, np.array([-1], np.int64))
        x = _one_hot(graph, x, kinds, **each["numbers"])
    if each["clip"] is not None:
        clip = np.asarray(each["clip"], np.float32)
        x = graph.node("Sub", x, arrays[f"input{i}_mean"].reshape(_stored(each)))
        x = graph.node("Div", x, arrays[f"input{i}_std"].reshape(_stored(each)))
        x = graph.node("Clip", x, -clip, clip)
    if each["activation"] is not None:  # ours are [n, H, W, C], theirs [n, C, H, W]
        kernel, bias = arrays[f"input{i}_kernel"], arrays[f"input{i}_bias"]
        x = graph.node("Transpose", x, perm=(0, 3, 1, 2))
        x = graph.node("Conv", x, kernel.transpose(3, 2, 0, 1), bias)
        x = graph.node("Transpose", x, perm=(0, 2, 3, 1))
        x = _activate(graph, each["activation"], x)
    return graph.node("Flatten", x, axis=1)


def _stored(each: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a normaliser's numbers beside rows of the input."""
    return (each["numbers"]["count"],) if each["numbers"] is not None else tuple(each["shape"])


def _one_hot(graph: _Graph, x: str, kinds: Any, first: int, count: int) -> str:
    """Whole numbers [batch] as rows [batch, count] with a 1 at their place."""
    place = graph.node("Sub", graph.node("Cast", x, to=kinds.INT64), np.array(first, np.int64))
    return graph.node("OneHot", place, np.array(count, np.int64), np.array([0, 1], np.float32))


def _flags(
    graph: _Graph, x: str, kinds: Any, shape: tuple[int, ...], first: int, count: int
) -> str:
    """Whole numbers [batch, *shape] as flags [batch, ..., n x count]."""
    values = (first + np.arange(count)).astype(np.float32)
    x = graph.node("Unsqueeze", graph.node("Cast", x, to=kinds.FLOAT), np.array([-1], np.int64))
    x = graph.node("Cast", graph.node("Equal", x, values), to=kinds.FLOAT)
    return graph.node("Reshape", x, np.array([-1, *shape[:-1], shape[-1] * count], np.int64))


def _activate(graph: _Graph, name: str, x: str) -> str:
    if name == "none":
        return x
    if name == "swish":
        return graph.node("Mul", x, graph.node("Sigmoid", x))
    if name == "gelu":
        return graph.node("Gelu", x, approximate="tanh")
    return graph.node({"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}[name], x)


def _act(
    graph: _Graph,
    rule: dict[str, Any],
    arrays: dict[str, np.ndarray],
    x: str,
    legal: str | None,
    kinds: Any,
) -> dict[str, str]:
    """The choice of each dial [batch, 1], and all real numbers, by their names in the graph."""
    bounds = np.cumsum([0, *rule["dials"]])
    found = {}
    for i in range(len(rule["dials"])):
        logits = _columns(graph, x, bounds[i], bounds[i + 1])
        if legal is not None:
            logits = _masked(graph, logits, _columns(graph, legal, bounds[i], bounds[i + 1]), kinds)
        chosen = graph.node("ArgMax", logits, axis=1, keepdims=1)
        found[f"dial {i}"] = graph.node("Cast", chosen, to=kinds.INT32)
    if rule["kind"] != "none":
        low, high = arrays["action_low"], arrays["action_high"]
        x = _columns(graph, x, bounds[-1], bounds[-1] + len(low))
        if rule["kind"] == "squash":
            half = graph.node("Mul", graph.node("Tanh", x), np.float32(0.5) * (high - low))
            x = graph.node("Add", half, low + np.float32(0.5) * (high - low))
        found["reals"] = graph.node("Min", graph.node("Max", x, low), high)
    return found


def _columns(graph: _Graph, x: str, first: int, last: int) -> str:
    ends = (np.array([end], np.int64) for end in (first, last, 1))
    return graph.node("Slice", x, *ends)


def _masked(graph: _Graph, logits: str, legal: str, kinds: Any) -> str:
    """Logits of one dial with the lowest float for illegal actions; all are legal where none is."""
    flags = graph.node("Cast", legal, to=kinds.FLOAT)
    some = graph.node("ReduceMax", flags, np.array([1], np.int64), keepdims=1)
    none = graph.node("Not", graph.node("Cast", some, to=kinds.BOOL))
    lowest = np.asarray(np.finfo(np.float32).min, np.float32)
    return graph.node("Where", graph.node("Or", legal, none), logits, lowest)


def _own(graph: _Graph, form: dict[str, Any], parts: dict[str, str], kinds: Any) -> str:
    """One leaf of the environment's own action."""
    first, last = form["at"]
    if form["kind"] == "count":
        each = [parts[f"dial {i}"] for i in range(first, last)]
        x = each[0] if len(each) == 1 else graph.node("Concat", *each, axis=1)
        x = graph.node("Add", x, np.asarray(form["start"], np.int32))
    else:
        x = _columns(graph, parts["reals"], first, last)
    x = graph.node("Reshape", x, np.array([-1, *form["shape"]], np.int64))
    return graph.node("Cast", x, to=getattr(kinds, _KINDS[form["dtype"]]))


def load(model: bytes) -> tuple[Callable[..., Any], Shapes, int | None, Memory | None]:
    """A model as `numpy_policy.as_policy` takes it.

    Returns:
        the function of its inputs by name [n, ...], their shapes, the mask's size, and the memory
        of a new episode.

    Raises:
        InputError: ONNX Runtime is missing, or cannot read the model as an exported policy.
    """
    _, runtime = require()
    try:
        session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
        described = session.get_modelmeta().custom_metadata_map.get("ppo_jax", "{}")
        description = json.loads(described)
        if description.get("format") != FORMAT:
            raise ValueError("it is another model, or one of another version")
        form = description["action"]["form"]
        numbers = {each["name"]: each["numbers"] for each in description["inputs"]}
        start = read_start(description)
    except Exception as error:  # the runtime's errors share no class of their own
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"This is no exported ONNX policy ({reason}): export it again.") from error
    names = [each.name for each in session.get_outputs()]

    def run(rows: dict[str, np.ndarray], memory: Memory | None = None) -> Any:
        for name, space in numbers.items():
            if space is not None:
                _require_numbers(rows[name], space)
        given = {**rows, **{port(MEMORY_IN, name): leaf for name, leaf in (memory or {}).items()}}
        found = dict(zip(names, session.run(names, given), strict=True))
        action = _assembled(form, found)
        if memory is None:
            return action
        return action, {name: found[port(MEMORY_OUT, name)] for name in memory}

    return run, shapes_of(description), description["mask_size"], start


def _require_numbers(observation: np.ndarray, numbers: dict[str, int]) -> None:
    try:
        one_hot(observation, **numbers)
    except ValueError as error:
        raise InputError(str(error)) from error
