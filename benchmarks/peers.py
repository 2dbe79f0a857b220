"""The peers: the same cost and gradient by scikit-learn, PyTorch and JAX, each as an expert of it would write it.

Whole batch, as most users do, and with the rows in chunks whose gradients add up, which keeps what is between the
layers in the cache. λ's terms are part of the work. Packages are imported where they are asked for: none of them is a
dependency of gpubp.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from problems import Answer, Array, Built, Problem


def sklearn(problem: Problem, threads: int, rows: int) -> Built:
    """What MLPClassifier's L-BFGS calls, with the book-keeping of its `_fit_lbfgs`; in float32 throughout.

    Within `fit`, SciPy would hand it float64 parameters and so slow it down: here it is at its best.
    """
    shape, layers = problem.shape, problem.shape.layers
    network: Any = importlib.import_module("sklearn.neural_network")
    inside: Any = importlib.import_module("sklearn.neural_network._multilayer_perceptron")
    preprocessing: Any = importlib.import_module("sklearn.preprocessing")
    model = network.MLPClassifier(
        layers[1:-1], activation={"sigmoid": "logistic"}.get(shape.activation, shape.activation), alpha=shape.lambda_
    )
    model._random_state = np.random.RandomState(0)
    model._label_binarizer = preprocessing.LabelBinarizer()
    model._label_binarizer.y_type_ = "multiclass" if shape.cost == "softmax" else "multilabel-indicator"
    model._initialize(problem.Y, list(layers), np.dtype(np.float32))
    W = [np.ascontiguousarray(matrix[:, 1:].T) for matrix in problem.Theta]
    b = [matrix[:, 0].copy() for matrix in problem.Theta]
    ends = np.cumsum([0] + [array.size for array in W + b]).tolist()
    spans = list(pairwise(ends))
    model._coef_indptr = [(*span, w.shape) for span, w in zip(spans, W, strict=False)]
    model._intercept_indptr = spans[len(W) :]
    packed = inside._pack(W, b)
    activations: list[Any] = [problem.X] + [None] * len(W)
    deltas: list[Any] = [None] * len(W)
    sums = [np.empty_like(w) for w in W], [np.empty_like(array) for array in b]

    def evaluate() -> Any:
        return model._loss_grad_lbfgs(packed, problem.X, problem.Y, None, activations, deltas, *sums)

    def answer(value: Any) -> Answer:
        J, gradient = value
        parts = [gradient[start:stop] for start, stop in spans]
        weights = [part.reshape(w.shape).T for part, w in zip(parts, W, strict=False)]
        return float(J), _matrices(weights, parts[len(W) :])

    return Built(evaluate, answer)


def torch_eager(problem: Problem, threads: int, rows: int) -> Built:
    """PyTorch's autograd, step by step."""
    return _torch(problem, threads, rows)


def torch_compiled(problem: Problem, threads: int, rows: int) -> Built:
    """The same through torch.compile."""
    return _torch(problem, threads, rows, compiled=True)


def torch_medium(problem: Problem, threads: int, rows: int) -> Built:
    """For information: products may be done in bfloat16 where float32 was asked for."""
    return _torch(problem, threads, rows, precision="medium")


def torch_bf16(problem: Problem, threads: int, rows: int) -> Built:
    """For information: everything in bfloat16."""
    return _torch(problem, threads, rows, dtype="bfloat16")


def _torch(
    problem: Problem,
    threads: int,
    rows: int,
    *,
    compiled: bool = False,
    dtype: str = "float32",
    precision: str = "highest",
) -> Built:
    torch: Any = importlib.import_module("torch")
    F: Any = importlib.import_module("torch.nn.functional")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    kind, shape, m = getattr(torch, dtype), problem.shape, problem.m
    g = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[shape.activation]
    softmax = shape.cost == "softmax"
    X = torch.from_numpy(problem.X).to(kind)
    y = torch.from_numpy(problem.codes.astype(np.int64)) if softmax else torch.from_numpy(problem.Y).to(kind)
    W = [torch.from_numpy(matrix[:, 1:].copy()).to(kind).requires_grad_() for matrix in problem.Theta]
    b = [torch.from_numpy(matrix[:, 0].copy()).to(kind).requires_grad_() for matrix in problem.Theta]
    whole = rows >= m

    def cost(X: Any, y: Any, W: list[Any], b: list[Any]) -> Any:
        a = X
        for w, bias in zip(W[:-1], b[:-1], strict=True):
            a = g(F.linear(a, w, bias))
        z = F.linear(a, W[-1], b[-1])
        pair = F.cross_entropy if softmax else F.binary_cross_entropy_with_logits
        J = pair(z, y, reduction="sum") / m
        return J + shape.lambda_ / (2 * m) * sum((w * w).sum() for w in W) if whole else J

    # dynamic=False: the last, shorter chunk is compiled for itself instead of slowing down all others
    run = torch.compile(cost, dynamic=False) if compiled else cost

    def evaluate() -> float:
        for parameter in W + b:
            parameter.grad = None
        J = 0.0
        for start in range(0, m, rows):
            part = run(X[start : start + rows], y[start : start + rows], W, b)
            part.backward()  # adds to .grad
            J = J + part.detach()
        if not whole:
            with torch.no_grad():
                for w in W:
                    w.grad.add_(w, alpha=shape.lambda_ / m)
                    J = J + shape.lambda_ / (2 * m) * (w * w).sum()
        return float(J)

    def answer(J: float) -> Answer:
        return J, _matrices([w.grad.float().numpy() for w in W], [bias.grad.float().numpy() for bias in b])

    return Built(evaluate, answer)


def jax_jit(problem: Problem, threads: int, rows: int) -> Built:
    """JAX, the whole batch in one compiled function."""
    jax, cost, penalty, P = _jax(problem)
    X, Y = jax.numpy.asarray(problem.X), jax.numpy.asarray(problem.Y)
    f = jax.jit(jax.value_and_grad(lambda P, X, Y: cost(P, X, Y) + penalty(P)))
    return _jax_built(jax, lambda: f(P, X, Y))


def jax_scan(problem: Problem, threads: int, rows: int) -> Built:
    """JAX, `lax.scan` over equal chunks inside one compiled function, then what remains."""
    jax, cost, penalty, P = _jax(problem)
    X, Y, even = jax.numpy.asarray(problem.X), jax.numpy.asarray(problem.Y), problem.m // rows * rows
    part, add = jax.value_and_grad(cost), _jax_add(jax)

    def whole(P: Any, X: Any, Y: Any) -> Any:
        chunks = [array[:even].reshape(-1, rows, array.shape[1]) for array in (X, Y)]
        start = jax.value_and_grad(penalty)(P)
        sums, _ = jax.lax.scan(lambda sums, chunk: (add(sums, part(P, *chunk)), None), start, chunks)
        return add(sums, part(P, X[even:], Y[even:])) if even < problem.m else sums

    f = jax.jit(whole)
    return _jax_built(jax, lambda: f(P, X, Y))


def jax_loop(problem: Problem, threads: int, rows: int) -> Built:
    """JAX, a Python loop over chunks; the sums are donated, so they are added in place."""
    jax, cost, penalty, P = _jax(problem)
    starts = range(0, problem.m, rows)
    X, Y = ([jax.numpy.asarray(array[i : i + rows]) for i in starts] for array in (problem.X, problem.Y))
    part, add = jax.value_and_grad(cost), _jax_add(jax)
    begin = jax.jit(jax.value_and_grad(penalty))
    step = jax.jit(lambda sums, P, X, Y: add(sums, part(P, X, Y)), donate_argnums=0)

    def run() -> Any:
        sums = begin(P)
        for x, y in zip(X, Y, strict=True):
            sums = step(sums, P, x, y)
        return sums

    return _jax_built(jax, run)


def _jax(problem: Problem) -> tuple[Any, Callable[..., Any], Callable[..., Any], Any]:
    """JAX on the CPU; Σ cost / m of some rows; λ's term of J; the parameters as [(W, b), …]."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax: Any = importlib.import_module("jax")
    jnp, shape, m = jax.numpy, problem.shape, problem.m
    g = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu": jax.nn.relu}[shape.activation]

    def cost(P: Any, X: Any, Y: Any) -> Any:
        a = X
        for w, b in P[:-1]:
            a = g(a @ w.T + b)
        z = a @ P[-1][0].T + P[-1][1]
        each = -Y * jax.nn.log_softmax(z) if shape.cost == "softmax" else jax.nn.softplus(z) - Y * z
        return each.sum() / m

    def penalty(P: Any) -> Any:
        return shape.lambda_ / (2 * m) * sum((w * w).sum() for w, _ in P)

    P = [(jnp.asarray(matrix[:, 1:].copy()), jnp.asarray(matrix[:, 0].copy())) for matrix in problem.Theta]
    return jax, cost, penalty, P


def _jax_add(jax: Any) -> Callable[[Any, Any], Any]:
    return lambda a, b: jax.tree_util.tree_map(jax.numpy.add, a, b)


def _jax_built(jax: Any, run: Callable[[], Any]) -> Built:
    def answer(value: Any) -> Answer:
        J, gradient = value
        return float(J), _matrices([np.asarray(w) for w, _ in gradient], [np.asarray(b) for _, b in gradient])

    return Built(lambda: jax.block_until_ready(run()), answer)


def _matrices(weights: list[Array], biases: list[Array]) -> list[Array]:
    """Ng's matrices, the bias in column 0."""
    return [np.concatenate([b[:, None], w], axis=1) for w, b in zip(weights, biases, strict=True)]
