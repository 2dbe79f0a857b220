"""The limit: the matrix products of one cost and gradient and nothing else.

    z^(l+1) = a^(l) W^(l)ᵀ,   Δ^(l) = (δ^(l+1))ᵀ a^(l),   δ^(l) = δ^(l+1) W^(l) for l > 1

on all rows at once, in every way that this machine multiplies: by NumPy with its BLAS's own threads, and by threads of
ours, each with a share of the rows and a BLAS of one thread.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..backend import blas
from ..errors import BackendError
from ..network import Network

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112  # of cblas


def flops(sizes: Sequence[int]) -> int:
    """Floating point operations of these products, for one row."""
    products = [2 * a * b for a, b in pairwise(sizes)]
    return 3 * sum(products) - products[0]


def layer_bytes(network: Network, m: int, dtype: np.dtype) -> int:
    """The memory that `Products` takes for m rows of float32."""
    copied = network.sizes[0] if dtype.char == "d" else 0
    return m * (2 * sum(network.sizes[1:]) + copied) * dtype.itemsize


class Way(NamedTuple):
    """A way to multiply.

    Attributes:
        title: for a person.
        library: what `--blas` calls the BLAS; "" for NumPy's with threads of its own.
        call: all products once.
        context: what makes the context that calls need.
    """

    title: str
    library: str
    call: Callable[[], None]
    context: Callable[[], AbstractContextManager[Any]]


class _Product(NamedTuple):
    """out = op(left) · op(right); `transpose` is two letters, n or t."""

    transpose: str
    left: np.ndarray
    right: np.ndarray
    out: np.ndarray


class Products:
    """The products of one pass, on whole layers.

    Args:
        X: the rows, in the type of the pass.
        threads: how many the products may use.
    """

    def __init__(self, network: Network, X: np.ndarray, threads: int) -> None:
        sizes, m, self._dtype = network.sizes, len(X), X.dtype
        rng = np.random.default_rng(2)
        self._threads = threads
        # sizes that neither grow nor fade on the way: numbers near 0 take a processor longer
        self._W = [(rng.standard_normal((b, a)) / math.sqrt(a)).astype(X.dtype) for a, b in pairwise(sizes)]
        self._a = [X, *(np.empty((m, s), X.dtype) for s in sizes[1:])]
        self._delta = [np.empty((m, s), X.dtype) for s in sizes[1:]]
        self._delta[-1][...] = rng.standard_normal(self._delta[-1].shape, np.float32)
        self._whole = self._of(0, m)
        self._shares = [self._of(m * i // threads, m * (i + 1) // threads) for i in range(threads)]
        self._pool = ThreadPoolExecutor(max(1, threads - 1))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def ways(self, libraries: Sequence[str]) -> Iterator[Way]:
        """Every way there is; `libraries` are the BLAS to be called from threads of ours, by the names of `--blas`."""
        many = f"{self._threads} threads" if self._threads > 1 else "1 thread"
        title = f"NumPy's {blas.describe()} on {many}"
        yield Way(title, "", self._by_numpy, lambda: _numpy_threads(self._threads))
        for name in libraries:
            with suppress(BackendError):  # NumPy's may be one that nobody else can call
                library = blas.find(name)
                if found := library.gemm(self._dtype):
                    title = f"{library.describe()} on {many} of ours"
                    yield Way(title, name, self._by_address(*found), blas.one_thread)

    def _by_numpy(self) -> None:
        for transpose, left, right, out in self._whole:
            a = left.T if transpose[0] == "t" else left
            b = right.T if transpose[1] == "t" else right
            np.matmul(a, b, out=out)

    def _by_address(self, address: int, wide: bool) -> Callable[[], None]:
        """By cblas_sgemm or cblas_dgemm, whose integers have 64 bits if `wide`."""
        real = ctypes.c_float if self._dtype.char == "f" else ctypes.c_double
        integer, flag, at = ctypes.c_int64 if wide else ctypes.c_int32, ctypes.c_int, ctypes.c_void_p
        shape = (flag, flag, flag, integer, integer, integer)
        gemm = ctypes.CFUNCTYPE(None, *shape, real, at, integer, at, integer, real, at, integer)(address)
        first, *others = [[_arguments(product) for product in products] for products in self._shares]

        def work(calls: list[tuple[Any, ...]]) -> None:
            for call in calls:
                gemm(*call)

        def run() -> None:
            begun = [self._pool.submit(work, calls) for calls in others]
            work(first)
            for one in begun:
                one.result()

        return run

    def _of(self, start: int, stop: int) -> list[_Product]:
        """Those of some rows, with Δ of their own."""
        a = [x[start:stop] for x in self._a]
        delta = [d[start:stop] for d in self._delta]
        found = [_Product("nt", a[i], W, a[i + 1]) for i, W in enumerate(self._W)]
        for i in range(len(self._W) - 1, -1, -1):
            found.append(_Product("tn", delta[i], a[i], np.empty_like(self._W[i])))
            if i:
                found.append(_Product("nn", delta[i], self._W[i], delta[i - 1]))
        return found


def _arguments(product: _Product) -> tuple[Any, ...]:
    (ta, tb), left, right, out = product
    inner = left.shape[0] if ta == "t" else left.shape[1]
    flags = [_TRANSPOSED if t == "t" else _AS_IS for t in (ta, tb)]
    operands = [part for x in (left, right) for part in (x.ctypes.data, x.shape[1])]
    return (_ROW_MAJOR, *flags, *out.shape, inner, 1.0, *operands, 0.0, out.ctypes.data, out.shape[1])


@contextmanager
def _numpy_threads(count: int) -> Iterator[None]:
    """Inside, NumPy's BLAS works with that many threads."""
    own = blas.of_numpy()
    before = own.threads() if own else 0
    try:
        if own:
            own.set_threads(count)
        yield
    finally:
        if own:
            own.set_threads(before)
