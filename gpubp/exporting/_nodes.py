"""Nodes and constants of an ONNX graph, and formulas as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UsageError
from ..network import Network
from ..trace import Recorder, Step, needed

# What ONNX has an operator for, by activation, and by the name of a cost's output formula.
_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}
_OUTPUTS = {"sigmoid_output": "Sigmoid", "softmax_h": "Softmax"}
_OPERATORS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "negative": "Neg",
    "absolute": "Abs", "exp": "Exp", "log": "Log", "tanh": "Tanh", "sqrt": "Sqrt", "maximum": "Max", "minimum": "Min",
    "less": "Less", "greater": "Greater", "where": "Where", "bitwise_and": "And", "bitwise_or": "Or", "invert": "Not",
}  # fmt: skip
_OPPOSITES = {"less_equal": "Greater", "greater_equal": "Less"}  # of what opset 9 has not


class Nodes:
    """The nodes of a graph as far as it is made.

    Args:
        onnx: the package.
        dtype: of all numbers, float32 or float64.

    Attributes:
        kind: the type of the numbers, as ONNX counts types.
        nodes, constants: for `onnx.helper.make_graph`.
    """

    def __init__(self, onnx: Any, dtype: np.dtype[Any]) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.kind = self._kind(dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._known: dict[str, str] = {}

    def _kind(self, dtype: np.dtype[Any]) -> int:
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node; the name of what it gives, by default its operator with a number."""
        name = name or f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """An array that the graph holds, in its type of numbers."""
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value, self.dtype), name))
        return name

    def number(self, value: float) -> str:
        """A single number; the same one is held once."""
        name = f"number_{value!r}"
        if name not in self._known:
            self._known[name] = self.constant(name, np.array(value))
        return name

    def labels(self, name: str, classes: np.ndarray) -> int:
        """The list of the classes, and its type."""
        array = classes.astype(object) if classes.dtype.kind == "U" else classes
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return self.constants[-1].data_type

    def activation(self, network: Network, z: str) -> str:
        """g(z)."""
        if operator := _ACTIVATIONS.get(network.activation):
            return self.add(operator, z)
        recorder = Recorder()
        return self._traced(recorder, network.g.g(recorder, recorder.input("z", self.dtype), 0.0).step, z)

    def output(self, network: Network, z: str) -> str:
        """h(z)."""
        operator = _OUTPUTS.get(network.J.h.name)
        if operator == "Softmax":
            return self.add(operator, z, axis=1)
        if operator:
            return self.add(operator, z)
        recorder = Recorder()
        score = network.J.score(recorder, recorder.input("z", self.dtype), 0.0)
        return self._traced(recorder, network.J.h(recorder, score).step, z)

    def _traced(self, recorder: Recorder, result: Step, z: str) -> str:
        """The steps of a formula as nodes."""
        made: dict[int, str] = {}

        def of(operand: Any) -> str:
            return made[id(operand)] if isinstance(operand, Step) else self.number(float(operand))

        for step in needed(recorder, [result]):
            operands = [one for one in step.operands if not (step.operation == "add" and one is not True and one == 0)]
            if step.operation == "input":
                made[id(step)] = z
            elif step.operation == "add" and len(operands) == 1:  # the bias is in the Gemm
                made[id(step)] = of(operands[0])
            elif step.operation == "astype":
                made[id(step)] = self.add("Cast", of(operands[0]), to=self._kind(step.dtype))
            elif step.operation in ("row_max", "row_sum"):
                reduce = {"row_max": "ReduceMax", "row_sum": "ReduceSum"}[step.operation]
                made[id(step)] = self.add(reduce, of(operands[0]), axes=[1], keepdims=1)
            elif step.operation == "log1p":
                made[id(step)] = self.add("Log", self.add("Add", of(operands[0]), self.number(1.0)))
            elif step.operation == "expm1":
                made[id(step)] = self.add("Sub", self.add("Exp", of(operands[0])), self.number(1.0))
            elif step.operation in _OPPOSITES:
                made[id(step)] = self.add("Not", self.add(_OPPOSITES[step.operation], *map(of, operands)))
            elif step.operation in _OPERATORS:
                made[id(step)] = self.add(_OPERATORS[step.operation], *map(of, operands))
            else:
                raise UsageError(f"{step.operation} in an ONNX graph", wanted=f"one of {', '.join(_OPERATORS)}")
        return made[id(result)]
