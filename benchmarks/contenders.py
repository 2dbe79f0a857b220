"""Who takes part: gpubp on each of its engines, the limit, and the peers.

To add one, write a function (problem, threads, rows) → `Built` and add a line to `CONTENDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import peers
import products
from problems import Absent, Answer, Array, Built, Problem, regularised, textbook

Build = Callable[[Problem, int, int], Built]


class Contender(NamedTuple):
    """One line of the table.

    Attributes:
        build: (problem, threads, rows of a chunk) → the contender, ready. It is called in a process of its own.
        kind: "gpubp"; "limit", matrix products alone; "peer"; "information", at another precision: no peer.
        chunked: whether it takes the rows in chunks; the best size is looked for.
        alone: the BLAS gets one thread, because the contender has threads of its own.
    """

    build: Build
    kind: Literal["gpubp", "limit", "peer", "information"] = "peer"
    chunked: bool = False
    alone: bool = False


def _gpubp(kernel: str, blas: str) -> Build:
    """gpubp with this kernel ("numpy" or "compiled") and BLAS ("numpy", NumPy's own, or "mkl")."""

    def build(problem: Problem, threads: int, rows: int) -> Built:
        from gpubp.backend import choose
        from gpubp.data.rows import Rows
        from gpubp.data.scaling import Scaling
        from gpubp.data.source import ArrayRows
        from gpubp.errors import BackendError
        from gpubp.network import Network
        from gpubp.objective import Objective

        shape = problem.shape
        try:
            backend, why = choose("cpu", threads=threads, kernel=kernel, blas=blas)
        except BackendError as error:
            raise Absent(str(error)) from None
        network = Network(shape.layers, shape.activation, shape.cost)
        source = ArrayRows(problem.X)
        data = Rows(source, source.array, Scaling("none", None, None), problem.codes)
        objective = Objective(network, data, shape.lambda_, backend=backend, precision="fp32")
        Theta, gradient = network.pack(problem.Theta), np.zeros(network.P)

        def answer(J: float) -> Answer:
            return J, network.unpack(gradient)

        notes = {"why": why, **objective.conditions()}
        return Built(lambda: objective.value_and_gradient(Theta, gradient), answer, notes)

    return build


def _naive(problem: Problem, threads: int, rows: int) -> Built:
    """The course's own lines on the whole batch, in float32."""
    shape = problem.shape

    def evaluate() -> tuple[float, list[Array]]:
        return regularised(shape, *textbook(shape, problem.X, problem.Y, problem.Theta), problem.Theta)

    return Built(evaluate, lambda value: value)


CONTENDERS = {
    "gpubp numpy": Contender(_gpubp("numpy", "numpy"), "gpubp"),
    "gpubp compiled": Contender(_gpubp("compiled", "numpy"), "gpubp"),
    "gpubp compiled + mkl": Contender(_gpubp("compiled", "mkl"), "gpubp"),
    "products whole, NumPy": Contender(products.whole_numpy, "limit"),
    "products whole, torch": Contender(products.whole_torch, "limit"),
    "products blocked, OpenBLAS": Contender(products.blocked_openblas, "limit", alone=True),
    "products blocked, MKL": Contender(products.blocked_mkl, "limit", alone=True),
    "naive NumPy": Contender(_naive),
    "scikit-learn": Contender(peers.sklearn),
    "torch eager": Contender(peers.torch_eager),
    "torch compile": Contender(peers.torch_compiled),
    "torch eager, chunks": Contender(peers.torch_eager, chunked=True),
    "torch compile, chunks": Contender(peers.torch_compiled, chunked=True),
    "jax jit": Contender(peers.jax_jit),
    "jax scan, chunks": Contender(peers.jax_scan, chunked=True),
    "jax loop, chunks": Contender(peers.jax_loop, chunked=True),
    "torch, medium": Contender(peers.torch_medium, "information"),
    "torch, bf16": Contender(peers.torch_bf16, "information"),
    "products whole, torch bf16": Contender(products.whole_torch_bf16, "information"),
}
WHOLE = [name for name in CONTENDERS if name.startswith("products whole") and CONTENDERS[name].kind == "limit"]
SHORT = ("gpubp", "NumPy", "OpenBLAS")  # what --short runs: nothing but the base packages is needed
