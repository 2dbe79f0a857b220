"""ONNX: one graph from x as it is stored in the data to the class as the user wrote it.

    x (rows, s_1) → scaled → missing values filled → Gemm, activation, Gemm, … → output function → label

The input is ``x``, float32 or float64, any number of rows. A classifier's outputs are ``probability`` (rows, classes)
and ``label`` (rows,): texts or numbers, by a Gather from the list of the classes; several labels a row have ``label``
(rows, K) of 0 and 1; a regression has ``prediction`` (rows, K). The description of the model is in the metadata.

A graph refuses nothing: where `Model.predict` has an error for a missing value, ``probability`` or ``prediction`` is
NaN here, and the ``label`` beside it means nothing.

Activations and output functions are traced from their formulas, so that a new one needs nothing here; where ONNX has an
operator of its own for one, that is taken, for runtimes know it better. Operators are those of opset 9 (2019).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.targets import decode
from ..errors import DataError, UsageError
from ..inference import Model
from ..theta_files.description import KEY, describe
from ._nodes import Nodes

TITLE = "ONNX: a graph with scaling and class names in it (gpubp[export])"
SUFFIX = ".onnx"
PRECISION = "fp32"
OPSET, IR = 9, 4
_MOST = (1 << 31) - (1 << 20)  # bytes: protobuf has signed lengths


def package(name: str = "onnx") -> Any:
    """The package, or a part of it.

    Raises:
        UsageError: it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError("an export to ONNX without its package", do="pip install 'gpubp[export]'") from None


def pack(model: Model, dtype: np.dtype[Any]) -> bytes:
    """The bytes of the file.

    Raises:
        UsageError: the package is missing.
        DataError: more than protobuf holds.
    """
    onnx = package()
    size = model.network.parameters * dtype.itemsize
    if size > _MOST:
        raise DataError(
            f"a model of {size:,} bytes", wanted="less than 2 GB in an ONNX file", do="take --to safetensors"
        )
    nodes = Nodes(onnx, dtype)
    h = nodes.output(model.network, _layers(nodes, model, _scaled(nodes, model, "x")))
    kind, columns = nodes.kind, model.network.sizes[0]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes.nodes, "gpubp", [value("x", kind, ["rows", columns])],
        [value(name, *what) for name, what in _answers(nodes, model, h).items()], nodes.constants,
    )  # fmt: skip
    made = onnx.helper.make_model(
        graph, producer_name="gpubp", ir_version=IR, opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        doc_string=_about(model),
    )  # fmt: skip
    onnx.helper.set_model_props(made, {KEY: describe(model, with_vectors=True)})
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


def _about(model: Model) -> str:
    columns = f"; x are the columns {', '.join(model.selection.columns)} of the data" if model.selection.columns else ""
    layers = "-".join(map(str, model.network.sizes))
    return f"{layers}, {model.network.activation} units, {model.network.cost} cost, trained by gpubp{columns}"


def _scaled(nodes: Nodes, model: Model, x: str) -> str:
    """x less the mean, by the scale, its gaps filled with what the fill is after that.

    The mean is taken off in two parts, what a float32 holds of it and the rest: a feature whose mean is a thousand
    times its deviation would else lose three digits.
    """
    scaling = model.scaling
    if scaling.mean is not None:
        mean = scaling.mean.astype(nodes.dtype).astype(np.float64)
        x = nodes.add("Sub", x, nodes.constant("mean", mean[None]))
        if (scaling.mean != mean).any():
            x = nodes.add("Sub", x, nodes.constant("mean_rest", (scaling.mean - mean)[None]))
    if scaling.scale is not None:
        x = nodes.add("Div", x, nodes.constant("scale", scaling.scale[None]))
    if model.fill is not None and not model.drops:
        fill = nodes.constant("fill_scaled", scaling.apply(model.fill[None]))
        x = nodes.add("Where", nodes.add("IsNaN", x), fill, x)
    return x


def _layers(nodes: Nodes, model: Model, a: str) -> str:
    """z^(L), by W^(l) and b^(l)."""
    network = model.network
    W, b = network.views(model.Theta)
    for l in range(1, network.L):
        weights, biases = nodes.constant(f"W{l}", W[l]), nodes.constant(f"b{l}", b[l][0])
        a = nodes.add("Gemm", a, weights, biases, transB=1)
        if l < network.L - 1:
            a = nodes.activation(network, a)
    return a


def _answers(nodes: Nodes, model: Model, h: str) -> dict[str, tuple[int, Sequence[Any]]]:
    """The outputs of the graph by name, with their types and shapes."""
    targets, TensorProto = model.targets, nodes.onnx.TensorProto
    if targets.kind == "real":
        nodes.add("Identity", h, name="prediction")
        return {"prediction": (nodes.kind, ["rows", targets.outputs])}
    if targets.kind == "multilabel":
        nodes.add("Identity", h, name="probability")
        nodes.add("Cast", nodes.add("Not", nodes.add("Less", h, nodes.number(0.5))), name="label", to=TensorProto.INT64)
        shape = ["rows", targets.outputs]
        return {"label": (TensorProto.INT64, shape), "probability": (nodes.kind, shape)}
    if targets.kind == "binary":
        nodes.add("Concat", nodes.add("Sub", nodes.number(1.0), h), h, name="probability", axis=1)
        second = nodes.add("Cast", nodes.add("Not", nodes.add("Less", h, nodes.number(0.5))), to=TensorProto.INT64)
        number = nodes.add("Squeeze", second, axes=[1])
    else:
        nodes.add("Identity", h, name="probability")
        number = nodes.add("ArgMax", h, axis=1, keepdims=0)
    assert targets.classes is not None
    kind = nodes.labels("classes", decode(np.arange(len(targets.classes)), targets))
    nodes.add("Gather", "classes", number, name="label", axis=0)
    return {"label": (kind, ["rows"]), "probability": (nodes.kind, ["rows", len(targets.classes)])}


def answers(path: Path, model: Model, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ONNX's own reference evaluator makes of the file."""
    reference = package("onnx.reference")
    with np.errstate(all="ignore"):
        found = dict(zip(names_of(model), reference.ReferenceEvaluator(str(path)).run(None, {"x": X}), strict=True))
    return outputs(model, found)


def names_of(model: Model) -> list[str]:
    """The outputs of the graph, in their order."""
    return ["prediction"] if model.targets.kind == "real" else ["label", "probability"]


def outputs(model: Model, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """h (rows, K) and the predictions, as `Model.predict` has them, out of what a runtime answers."""
    if model.targets.kind == "real":
        h = found["prediction"].astype(np.float64)
        return h, h[:, 0] if h.shape[1] == 1 else h
    h = found["probability"].astype(np.float64)
    label = found["label"]
    label = label.astype(np.str_) if label.dtype.kind == "O" else label
    return h[:, 1:] if model.targets.kind == "binary" else h, label
