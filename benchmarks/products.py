"""The limit: the matrix products of one cost and gradient, and nothing else.

Whole batch: NumPy's products and PyTorch's, each into outputs that are there already. The limit is, for each product,
the faster of the two. In blocks: what remains for an engine that takes 1,024 rows at a time, on threads of its own
with a BLAS of one thread each, and lets the BLAS accumulate (β = 1).
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from problems import Absent, Array, Built, Problem

BLOCK_ROWS = 1024
_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112


class Product(NamedTuple):
    """out = left · right, with views where the product takes a transpose."""

    name: str
    left: Any
    right: Any
    out: Any


def _products(problem: Problem) -> list[Product]:
    """Those of one cost and gradient, in order: forward, then Δ^(l) and δ^(l) from right to left."""
    rng, layers = np.random.default_rng(1), problem.shape.layers
    last = len(layers) - 1
    a = [problem.X] + [np.empty((problem.m, s), np.float32) for s in layers[1:]]
    delta = [np.empty((problem.m, s), np.float32) for s in layers]
    delta[last][...] = rng.standard_normal(delta[last].shape, np.float32)
    W = [matrix[:, 1:].copy() for matrix in problem.Theta]
    Delta = [np.empty_like(w) for w in W]
    found = [Product(f"z{l + 2}", a[l], W[l].T, a[l + 1]) for l in range(last)]
    for l in range(last - 1, -1, -1):
        found.append(Product(f"Delta{l + 1}", delta[l + 1].T, a[l], Delta[l]))
        if l:
            found.append(Product(f"delta{l + 1}", delta[l + 1], W[l], delta[l]))
    return found


def _timed(products: list[Product], multiply: Callable[[Any, Any, Any], Any]) -> Built:
    def evaluate() -> dict[str, float]:
        seconds = {}
        for name, left, right, out in products:
            began = time.perf_counter()
            multiply(left, right, out)
            seconds[name] = time.perf_counter() - began
        return seconds

    return Built(evaluate)


def whole_numpy(problem: Problem, threads: int, rows: int) -> Built:
    """np.matmul over all rows, with NumPy's own threads."""
    return _timed(_products(problem), lambda left, right, out: np.matmul(left, right, out=out))


def whole_torch(problem: Problem, threads: int, rows: int) -> Built:
    """torch.mm over all rows (MKL, where the wheel has it)."""
    return _whole_torch(problem, threads, "float32")


def whole_torch_bf16(problem: Problem, threads: int, rows: int) -> Built:
    """For information: torch.mm in bfloat16 (oneDNN, with the matrix units of a CPU that has them)."""
    return _whole_torch(problem, threads, "bfloat16")


def _whole_torch(problem: Problem, threads: int, dtype: str) -> Built:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    made: dict[tuple[int, tuple[int, ...]], Any] = {}

    def wrap(array: Array) -> Any:
        """One tensor for one array and layout: a product's output is a later product's operand."""
        transposed = not array.flags.c_contiguous
        base = array.T if transposed else array
        key = (base.ctypes.data, base.shape)
        if key not in made:
            made[key] = torch.from_numpy(base).to(getattr(torch, dtype))
        return made[key].t() if transposed else made[key]

    products = [Product(p.name, wrap(p.left), wrap(p.right), wrap(p.out)) for p in _products(problem)]
    return _timed(products, lambda left, right, out: torch.mm(left, right, out=out))


def blocked_openblas(problem: Problem, threads: int, rows: int) -> Built:
    """In blocks, by the OpenBLAS that NumPy has loaded."""
    with open("/proc/self/maps") as maps:
        paths = sorted({line.split(None, 5)[5].strip() for line in maps if "openblas" in line.rsplit("/", 1)[-1]})
    names = (
        ("scipy_cblas_sgemm64_", ctypes.c_int64),
        ("cblas_sgemm64_", ctypes.c_int64),
        ("cblas_sgemm", ctypes.c_int32),
    )
    for path in paths:
        library = ctypes.CDLL(path)
        for name, integer in names:
            if hasattr(library, name):
                return _blocked(problem, threads, getattr(library, name), integer)
    raise Absent("NumPy has no OpenBLAS here")


def blocked_mkl(problem: Problem, threads: int, rows: int) -> Built:
    """In blocks, by the MKL of the package `mkl`."""
    try:
        files = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        raise Absent("mkl is not installed") from None
    found = [file for file in files if file.name.startswith("libmkl_rt.so")]
    if not found:
        raise Absent("the package mkl holds no libmkl_rt.so")
    library = ctypes.CDLL(str(found[0].locate()))
    return _blocked(problem, threads, library.cblas_sgemm, ctypes.c_int32)


def _blocked(problem: Problem, threads: int, sgemm: Any, integer: Any) -> Built:
    """Threads own contiguous rows and take them in blocks; each accumulates its own Δ."""
    m, n = problem.m, ctypes.c_void_p
    flag, real = ctypes.c_int, ctypes.c_float
    sgemm.restype = None
    sgemm.argtypes = [flag, flag, flag, *[integer] * 3, real, n, integer, n, integer, real, n, integer]
    owners = [_calls(problem, m * i // threads, m * (i + 1) // threads) for i in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def work(calls: list[tuple[Any, ...]]) -> None:
        for call in calls:
            sgemm(*call)

    def evaluate() -> None:
        list(pool.map(work, [calls for calls, _ in owners]))

    return Built(evaluate)


def _calls(problem: Problem, start: int, stop: int) -> tuple[list[tuple[Any, ...]], list[Array]]:
    """The arguments of every cblas_sgemm for these rows, in order, and the arrays whose addresses they hold."""
    first = Problem(problem.shape.with_rows(BLOCK_ROWS), problem.X[:0], problem.codes, problem.Y, problem.Theta)
    products = _products(first._replace(X=np.empty((BLOCK_ROWS, problem.shape.layers[0]), np.float32)))
    stand_in, kept = products[0].left, [array for p in products for array in p[1:]]
    calls = []
    for at in range(start, stop, BLOCK_ROWS):
        block = min(BLOCK_ROWS, stop - at)
        for name, left, right, out in products:
            sums = name.startswith("Delta")  # over rows: the inner dimension is the block
            rows, columns = (len(out), out.shape[1]) if sums else (block, out.shape[1])
            inner = block if sums else left.shape[1]
            operands = []
            for array in (left, right):
                transposed = not array.flags.c_contiguous
                base = array.T if transposed else array
                address = problem.X[at:].ctypes.data if array is stand_in else base.ctypes.data
                operands.append((_TRANSPOSED if transposed else _AS_IS, address, base.shape[1]))
            (ta, a, lda), (tb, b, ldb) = operands
            beta = 1.0 if sums and at > start else 0.0
            calls.append(
                (_ROW_MAJOR, ta, tb, rows, columns, inner, 1.0, a, lda, b, ldb, beta, out.ctypes.data, out.shape[1])
            )
    return calls, kept
