"""NumPy on the CPU: formulas run as their references. This plain path is the definition of every other one."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np

from ..formula import Formula
from ..tree import leaf_count
from . import blas
from .cores import available_cores

BLOCK_ROWS = 2048  # element-wise work on a block stays in the cache; flat from 1,024 to 4,096
BLOCK_BYTES = 64 << 20  # of the widest layer's buffer in float64: very wide rows take smaller blocks
MOST_LEAVES = 256  # enough to balance many cores; each leaf costs one addition of a gradient
WIDE = 1 << 16  # parameters from which adding gradients is worth longer leaves


class NumpyBackend:
    """Host memory, NumPy's own BLAS at one thread, leaves shared among threads."""

    kind: Literal["cpu"] = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or available_cores()
        self._local = threading.local()

    @property
    def owners(self) -> int:
        return self._threads

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        # aligned, because a kernel may treat the first elements of an array otherwise than the rest
        size = prod(shape) * np.dtype(dtype).itemsize
        raw = np.empty(size + 64, np.uint8)
        start = -raw.ctypes.data % 64
        return raw[start : start + size].view(dtype).reshape(shape)

    def zero(self, array: np.ndarray) -> None:
        array[...] = 0

    def gemm(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, *, transpose: str = "nn", beta: int = 0) -> None:
        a = a.T if transpose[0] == "t" else a
        b = b.T if transpose[1] == "t" else b
        with np.errstate(all="ignore"):  # as in apply
            if beta:  # np.matmul cannot accumulate
                product = self._scratch(out)
                np.matmul(a, b, out=product)
                np.add(out, product, out=out)
            else:
                np.matmul(a, b, out=out)

    def apply(self, formula: Formula, *inputs: Any, out: np.ndarray) -> None:
        # e^88 overflows in float32 where the formula's limit is right; a NaN is found in the cost and the gradient
        with np.errstate(all="ignore"):
            np.copyto(out, formula(np, *inputs), casting="unsafe")

    def total(self, formula: Formula, *inputs: Any, out: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            out[0] += formula(np, *inputs).sum()

    def upload(self, host: np.ndarray) -> np.ndarray:
        return host

    resident = upload

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        parameters = sum(a * b for a, b in pairwise(sizes))
        rows = max(64, min(BLOCK_ROWS, BLOCK_BYTES // (8 * max(sizes))))
        return leaf_count(m, 512 if parameters < WIDE else 1536, MOST_LEAVES), rows

    def guard(self) -> AbstractContextManager[None]:
        return blas.one_thread()

    def conditions(self) -> dict[str, str]:
        return {"device": "CPU", "blas": blas.describe(), "numpy": np.__version__}

    def _scratch(self, like: np.ndarray) -> np.ndarray:
        """A thread's own buffer for a product, made once for each shape."""
        buffers: dict[Any, np.ndarray] = self._local.__dict__
        key = (like.shape, like.dtype.char)
        if key not in buffers:
            buffers[key] = self.empty(like.shape, like.dtype)
        return buffers[key]
