"""JAX: value and gradient in one compiled function, whole ("jit") or `lax.scan` over chunks ("scan").

Precisions: products at `default_matmul_precision` "float32" or "tensorfloat32"; "bf16" keeps X in bfloat16, casts
weights and activations, as mixed precision is done in JAX. JAX shows no stream: its time is the host's, of evaluations
queued one after the other until the last one is done.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .card import Card, WallClock
from .inputs import Data
from .measure import Absent, Ready
from .plan import Task

PRECISIONS = {"fp32": "float32", "tf32": "tensorfloat32", "bf16": "bfloat16"}


def build(task: Task, data: Data, card: Card) -> Ready:
    """The contender of that name.

    Raises:
        Absent: no JAX here, or none that sees the GPU.
    """
    try:
        jax: Any = importlib.import_module("jax")
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed") from None
    if not card.smoke and jax.default_backend() != "gpu":
        raise Absent(f"JAX runs on the {jax.default_backend()} here")
    jnp, shape, m, rows = jax.numpy, data.shape, data.shape.m, task.rows or data.shape.m
    g = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}[shape.activation]
    K, bf16 = shape.layers[-1], task.precision == "bf16"
    fast = jnp.bfloat16 if bf16 else jnp.float32

    def cost(P: Any, X: Any, codes: Any) -> Any:
        a = X.astype(fast)
        for l, (w, b) in enumerate(P):
            z = (a @ w.astype(fast).T).astype(jnp.float32) + b
            a = g(z).astype(fast) if l < len(P) - 1 else z
        codes = codes[:, None]
        Y = (codes if K == 1 else codes == jnp.arange(K, dtype=codes.dtype)).astype(jnp.float32)
        each = -Y * jax.nn.log_softmax(a) if shape.cost == "softmax" else jax.nn.softplus(a) - Y * a
        return each.sum() / m

    def penalty(P: Any) -> Any:
        return shape.lambda_ / (2 * m) * sum((w * w).sum() for w, _ in P)

    def add(a: Any, b: Any) -> Any:
        return jax.tree_util.tree_map(jnp.add, a, b)

    part, even = jax.value_and_grad(cost), m // rows * rows

    def whole(P: Any, X: Any, codes: Any) -> Any:
        sums = jax.value_and_grad(penalty)(P)
        if rows >= m:
            return add(sums, part(P, X, codes))
        chunks = X[:even].reshape(-1, rows, X.shape[1]), codes[:even].reshape(-1, rows)
        sums, _ = jax.lax.scan(lambda sums, chunk: (add(sums, part(P, *chunk)), None), sums, chunks)
        return add(sums, part(P, X[even:], codes[even:])) if even < m else sums

    take = jnp.asarray if card.smoke else jax.dlpack.from_dlpack
    X, codes = take(data.X), take(data.codes)
    if bf16 and data.stored != "uint8":
        X = jax.block_until_ready(X.astype(jnp.bfloat16))
    P = [(jnp.asarray(matrix[:, 1:].copy()), jnp.asarray(matrix[:, 0].copy())) for matrix in data.Theta]
    jax.config.update("jax_default_matmul_precision", PRECISIONS[task.precision])
    f = jax.jit(whole)
    last: dict[str, Any] = {}

    def evaluate() -> Any:
        last["value"] = f(P, X, codes)
        return last["value"]

    def gradient() -> Any:
        parts = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in last["value"][1]]
        return np.concatenate([np.column_stack([b, w]).ravel() for w, b in parts])

    notes = {"jax": jax.__version__, "products": PRECISIONS[task.precision]}
    return Ready(evaluate, lambda value: float(value[0]), gradient, WallClock(jax.block_until_ready), notes=notes)
