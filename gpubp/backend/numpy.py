"""NumPy on the CPU: formulas run as their references. This plain path is the definition of every other one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np

from ..formula import Formula
from ..precision import EXACT
from ..tree import leaf_count
from . import blas, ufuncs
from .cores import available_cores
from .protocol import LeafLoop, WholeSum

BLOCK_BYTES = 64 << 20  # of the widest layer's buffer in float64: very wide rows take smaller blocks
MOST_LEAVES = 256  # enough to balance the cores of a machine
MANY_LEAVES = 1 << 14  # and those of many
LONGER = 4  # times as long is each leaf where they are more than MOST_LEAVES: no machine alone is to pay for them
WIDE = 1 << 16  # parameters from which a gradient no longer stays in the cache


class NumpyBackend:
    """Host memory, NumPy's own BLAS at one thread, leaves shared among threads."""

    kind: Literal["cpu"] = "cpu"
    has_engine = False
    choice: dict[str, str] = {"kernel": "numpy"}  # noqa: RUF012
    precisions = EXACT
    # Between two operations a thread needs Python's lock, and may wait for it as long as a short operation takes: so
    # blocks are long, though a cache would like them shorter, and so are leaves.
    most_rows, block_bytes = 16384, 4 << 20  # of the widest layer's buffer in float32
    long_leaf, short_leaf = 10_000_000, 1_000_000  # ns by `row_time`; the short ones only where they are few

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or available_cores()
        self._local = threading.local()
        self._memory = ufuncs.Memory()

    @property
    def owners(self) -> int:
        return self._threads

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return aligned(shape, dtype)

    def constant(self, value: float, rows: int, dtype: np.dtype) -> np.ndarray:
        return np.broadcast_to(np.dtype(dtype).type(value), (rows, 1))  # `ufuncs` takes it for the number that it is

    def zero(self, array: np.ndarray) -> None:
        array[...] = 0

    def gemm(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, *, transpose: str = "nn", beta: int = 0) -> None:
        a = a.T if transpose[0] == "t" else a
        b = b.T if transpose[1] == "t" else b
        product = self._scratch(out) if beta else out  # np.matmul cannot accumulate
        if a.shape[1] == 1:  # a column times a row: a BLAS takes four times as long for it
            np.multiply(a, b, out=product)
        else:
            np.matmul(a, b, out=product)
        if beta:
            np.add(out, product, out=out)

    def apply(self, formula: Formula, *inputs: Any, out: np.ndarray) -> None:
        ufuncs.compute(formula, inputs, out, self._memory)

    def total(self, formula: Formula, *inputs: Any, out: np.ndarray) -> None:
        out[0] += ufuncs.compute(formula, inputs, None, self._memory).sum()

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        with np.errstate(all="ignore"):  # a NaN is found in the cost and the gradient
            np.add(a, b, out=a)

    def upload(self, host: np.ndarray) -> np.ndarray:
        return host

    def resident(self, host: np.ndarray, first: int = 0) -> np.ndarray:
        return host

    def free_memory(self) -> None:
        return None

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        # A leaf costs its turn and the addition of its gradient, so it must be worth a hundred times that; but the
        # first leaves, which few cores need to share small problems evenly, may be short: 16, or 4 of a wide network.
        parameters = sum(a * b for a, b in pairwise(sizes))
        adding = parameters if parameters >= WIDE else parameters // 4  # ns
        row = row_time(sizes)
        few, part = (4, 40) if parameters >= WIDE else (16, 100)
        long = -(-max(self.long_leaf, 100 * adding) // row)
        short = max(512, -(-max(self.short_leaf, part * adding) // row))
        lengths = {MANY_LEAVES: LONGER * long, MOST_LEAVES: long, few: short}
        leaves = max(leaf_count(m, least, most) for most, least in lengths.items())
        rows = max(1024, min(self.most_rows, self.block_bytes // (4 * max(sizes[1:]))))
        return leaves, max(64, min(rows, BLOCK_BYTES // (8 * max(sizes))))

    def owners_for(self, m: int, sizes: tuple[int, ...]) -> int:
        # a thread that is woken for less than this would have been waited for longer than it helps
        return max(1, min(self._threads, m * row_time(sizes) // 150_000))

    @contextmanager
    def guard(self) -> Iterator[None]:
        # e^88 overflows in float32 where the formula's limit is right; a NaN is found in the cost and the gradient
        with blas.one_thread(), np.errstate(all="ignore"):
            yield

    def conditions(self) -> dict[str, str]:
        return {"device": "CPU", "kernel": "numpy", "blas": blas.describe(), **blas.conditions()}

    def leaf_loop(self, network: Any, feed: Any, dtype: np.dtype, rows: int, block_rows: int) -> LeafLoop | None:
        return None

    def whole_sum(
        self, network: Any, feed: Any, Theta: np.ndarray, leaves: int, owners: int, block_rows: int,
        own: tuple[int, int] | None = None,
    ) -> WholeSum | None:  # fmt: skip
        return None

    def engine(self, network: Any, feed: Any, lambda_: float, precision: Any, answer: Any, **plan: Any) -> None:
        return None

    def trim(self) -> None:
        pass

    def vectors(self) -> None:
        return None

    def copy(self, source: np.ndarray, out: np.ndarray) -> None:
        np.copyto(out, source)

    def _scratch(self, like: np.ndarray) -> np.ndarray:
        """A thread's own buffer for a product, made once for each shape."""
        buffers: dict[Any, np.ndarray] = self._local.__dict__
        key = (like.shape, like.dtype.char)
        if key not in buffers:
            buffers[key] = self.empty(like.shape, like.dtype)
        return buffers[key]


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array whose start is a multiple of 64 bytes: a kernel may treat an array's first elements otherwise."""
    size = prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def row_time(sizes: tuple[int, ...]) -> int:
    """Nanoseconds that one row takes one core, roughly: 6 operations for each weight at 100 a nanosecond, 1 ns a unit.

    It decides how work is shared and not what comes out; it depends on nothing but the network, so that leaves do not.
    """
    return max(1, sum(6 * a * b for a, b in pairwise(sizes)) // 100 + sum(sizes[1:]))
