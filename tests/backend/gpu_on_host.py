"""What a GPU does in a whole evaluation, on the CPU: the very kernels, launches, products and copies of the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from column_major import ColumnMajor
from host_program import HostPrograms

from gpubp.backend import cublas
from gpubp.backend.cuda.engine import Engine, layered_plan
from gpubp.backend.kernels import Kernel
from gpubp.backend.numpy import NumpyBackend, aligned
from gpubp.errors import OutOfMemory
from gpubp.precision import LADDER


class _Sent:
    """A copy that is done when somebody waits for it, and no sooner."""

    def __init__(self, host: np.ndarray, out: np.ndarray) -> None:
        self._lock, self._host, self._out = threading.Lock(), host, out
        self.done = False

    def wait(self) -> None:
        with self._lock:
            if not self.done:
                self._out[...] = self._host
                self.done = True


class GpuOnHost(NumpyBackend):
    """A `backend.cuda.device.Device` on the CPU, and a backend for objectives.

    Attributes:
        launches: the names of the kernels launched so far.
        room: bytes for rows that stay; the rest is sent.
        fail_at: raise OutOfMemory at that many allocations from now.
    """

    kind: Any = "gpu"
    has_engine = True
    precisions = LADDER
    shared_memory, processors = 227 << 10, 3

    def __init__(self, folder: Path, kernel: str = "auto") -> None:
        super().__init__(threads=1)
        self._programs, self._kernel = HostPrograms(folder), kernel
        self._cublas = cublas.Cublas(ColumnMajor(), None, 0)
        self.launches: list[str] = []
        self.sent, self.captured, self.room, self.fail_at = 0, 0, 1 << 60, 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if self.fail_at:
            self.fail_at -= 1
            if not self.fail_at:
                raise OutOfMemory("the GPU of the test is full", do="nothing")
        array = aligned(shape, dtype)
        array.view(np.uint8)[...] = 0xFF  # a NaN: what nobody wrote is noticed
        return array

    def upload(self, host: np.ndarray) -> np.ndarray:
        array = aligned((host.size + 16,), host.dtype)[: host.size].reshape(host.shape)
        array[...] = host
        return array

    def resident(self, host: np.ndarray) -> np.ndarray:
        row = host.dtype.itemsize * int(np.prod(host.shape[1:]))
        return self.upload(host[: self.room // max(1, row)])

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array.copy()

    def launch(self, kernel: Kernel, blocks: int, arguments: Sequence[Any]) -> None:
        self.launches.append(kernel.name)
        if blocks:
            self._programs.launch(kernel, blocks, arguments)

    def multiply(self, a: Any, b: Any, out: Any, kind: str, *, transpose: str = "nn", beta: int = 0) -> None:
        for array in (a, b, out):
            assert array.flags.c_contiguous
        matrices = (cublas.Matrix(array.ctypes.data, *array.shape) for array in (a, b, out))
        self._cublas.gemm(*matrices, kind, transpose=transpose, beta=beta)

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def capture(self, queue: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        return queue

    def pinned(self, size: int) -> np.ndarray:
        return np.full(size, 0xFF, np.uint8)

    def send(self, host: np.ndarray, out: np.ndarray, after: Any) -> _Sent:
        self.sent += 1
        return _Sent(host, out)

    def mark(self) -> None:
        return None

    def wait_for(self, event: _Sent) -> None:
        event.wait()

    def host_waits_for(self, event: _Sent | None) -> None:
        if event is not None:
            event.wait()

    def engine(self, network: Any, feed: Any, lambda_: float, precision: Any, **plan: int | None) -> Engine:
        return Engine(self, network, feed, lambda_, precision.dtype, precision.products, kernel=self._kernel, **plan)

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        return layered_plan(m, sizes)

    def vectors(self) -> Any:
        return _Vectors(self)


class _Vectors:
    def __init__(self, backend: GpuOnHost) -> None:
        self._backend = backend

    def numbers(self, count: int) -> Any:
        return _Numbers(np.full(count, np.nan))


class _Numbers:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __getitem__(self, i: int) -> float:
        return self.array[i : i + 1][0]
