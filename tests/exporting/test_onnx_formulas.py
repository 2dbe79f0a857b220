"""What a formula may be made of, as nodes of an ONNX graph: a new activation needs nothing in the export."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpubp.errors import UsageError

onnx = pytest.importorskip("onnx", reason="the export to ONNX needs gpubp[export]")

FORMULAS: dict[str, Any] = {
    "elu": lambda xp, v: xp.where(v > 0, v, xp.expm1(xp.minimum(v, 0))),
    "at least": lambda xp, v: xp.where(v >= 0.5, v, 0),
    "at most": lambda xp, v: xp.where(v <= 0.5, v, 0),
    "between": lambda xp, v: xp.where((v > -1) & (v < 1) | (v > 2), v**2, -1),
    "squash": lambda xp, v: v / (1 + abs(v)) + xp.log1p(xp.maximum(v, 0)) - xp.sqrt(v * v),
}


def graph_of(formula: Any) -> bytes:
    from gpubp.exporting._nodes import Nodes

    nodes = Nodes(onnx, np.dtype("f4"))
    network: Any = SimpleNamespace(activation="new", g=SimpleNamespace(g=lambda xp, z, b: formula(xp, z + b)))
    out = nodes.activation(network, "x")
    value = [onnx.helper.make_tensor_value_info(name, nodes.kind, ["rows", 1]) for name in ("x", out)]
    graph = onnx.helper.make_graph(nodes.nodes, "g", value[:1], value[1:], nodes.constants)
    made = onnx.helper.make_model(graph, ir_version=4, opset_imports=[onnx.helper.make_opsetid("", 9)])
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_what_it_is_in_numpy(name):
    runtime = pytest.importorskip("onnxruntime")
    x = np.append(np.linspace(-3, 3, 601), [0.5, 1e-6, -1e-6]).astype("f4")[:, None]
    session = runtime.InferenceSession(graph_of(FORMULAS[name]), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    np.testing.assert_allclose(found, FORMULAS[name](np, x), rtol=1e-6, atol=1e-6)


def test_what_there_is_no_operator_for_is_one_line():
    with pytest.raises(UsageError, match="sinh in an ONNX graph; wanted one of add"):
        graph_of(lambda xp, v: xp.sinh(v))
