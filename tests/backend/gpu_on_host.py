"""What a GPU does in a whole evaluation, on the CPU: the very kernels, launches, products and copies of the engine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nccl_on_host
import numpy as np
from column_major import ColumnMajor
from host_program import HostPrograms

from gpubp.backend import cublas, kernels
from gpubp.backend.cuda.engine import Engine
from gpubp.backend.cuda.layered import layered_plan
from gpubp.backend.cuda.vectors import DeviceVectors
from gpubp.backend.kernels import Kernel
from gpubp.backend.numpy import NumpyBackend, aligned
from gpubp.errors import OutOfMemory
from gpubp.formula import Formula, plus
from gpubp.precision import LADDER


class Array(np.ndarray):
    """An array of the device: NumPy's own are the host's, and nobody may take one for the other."""


class _Event:
    """A point in the order of a stream."""

    def __init__(self, stream: _Stream) -> None:
        self.stream, self.past = stream, False


class _Stream:
    """Work in order. An `eager` stream does what it can at once, another one nothing before it is waited for.

    So whatever may happen too early or too late on a GPU does happen here: a copy overtakes the work that still needs
    what was there before, and a buffer is filled anew before its copy has left.
    """

    def __init__(self, lock: threading.RLock, eager: bool) -> None:
        self._lock, self._eager = lock, eager
        self._queue: deque[Callable[[], None] | _Event | tuple[_Event]] = deque()

    def add(self, work: Callable[[], None]) -> None:
        self._put(work)

    def wait(self, event: _Event) -> None:
        self._put((event,))

    def record(self) -> _Event:
        event = _Event(self)
        self._put(event)
        return event

    def run(self, until: _Event | None = None) -> None:
        """Up to an event, or all."""
        with self._lock:
            while self._queue and not (until and until.past):
                self._next(force=True)

    def _put(self, work: Any) -> None:
        with self._lock:
            self._queue.append(work)
            while self._eager and self._queue and self._next(force=False):
                pass

    def _next(self, force: bool) -> bool:
        work = self._queue[0]
        if isinstance(work, tuple):
            if not work[0].past:
                if not force:
                    return False
                work[0].stream.run(work[0])
        elif isinstance(work, _Event):
            work.past = True
        else:
            work()
        self._queue.popleft()
        return True


class GpuOnHost(NumpyBackend):
    """A `backend.cuda.device.Device` on the CPU, and a backend for objectives.

    Attributes:
        launches: the names of the kernels launched so far.
        room: bytes for rows that stay; the rest is sent.
        place: where it is, for ranks.
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
        self._vectors: DeviceVectors | None = None
        self.sent, self.captured, self.room, self.fail_at = 0, 0, 1 << 60, 0
        lock = threading.RLock()
        self.sharers, self.place = 1, f"the GPU of {id(self):x}"
        self._work, self._copies = _Stream(lock, eager=False), _Stream(lock, eager=True)

        self.stream = nccl_on_host.Stream(self._work)

    def nccl(self) -> Any:
        return nccl_on_host

    # The operations one by one, as `CupyBackend` queues them.

    def constant(self, value: float, rows: int, dtype: np.dtype) -> np.ndarray:
        return self.upload(np.full((rows, 1), value, dtype))

    def gemm(self, a: Any, b: Any, out: Any, *, transpose: str = "nn", beta: int = 0) -> None:
        self.multiply(a, b, out, out.dtype.name, transpose=transpose, beta=beta)

    def apply(self, formula: Formula, *inputs: Any, out: Any) -> None:
        launch = kernels.plan(formula, (*inputs, out))
        kernel = kernels.source(formula, launch.types, wide=launch.wide)
        self.launch(kernel, launch.blocks, (*inputs, out, *launch.numbers))

    def add(self, a: Any, b: Any) -> None:
        self.apply(plus, a, b, out=a)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if self.fail_at:
            self.fail_at -= 1
            if not self.fail_at:
                raise OutOfMemory("the GPU of the test is full", do="nothing")
        array = aligned(shape, dtype)
        array.view(np.uint8)[...] = 0xFF  # a NaN: what nobody wrote is noticed
        return array.view(Array)

    def upload(self, host: np.ndarray) -> np.ndarray:
        array = aligned((host.size + 16,), host.dtype)[: host.size].reshape(host.shape)
        array[...] = host
        return array.view(Array)

    def resident(self, host: np.ndarray, first: int = 0) -> np.ndarray:
        if isinstance(host, Array):
            return host
        row = host.dtype.itemsize * int(np.prod(host.shape[1:]))
        kept = host[: self.room // max(1, row)]
        at = first * row % 256
        memory = np.empty(at + kept.nbytes + 16 + 256, np.uint8)
        at += -memory.ctypes.data % 256
        rows = memory[at : at + kept.nbytes].view(kept.dtype).reshape(kept.shape)
        rows[...] = kept
        return rows.view(Array)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        assert isinstance(array, Array)
        self._work.run()
        return np.array(array)

    def zero(self, array: np.ndarray) -> None:
        self._work.add(lambda: array.fill(0))

    def write(self, host: np.ndarray, out: np.ndarray) -> None:
        sent = host.copy()
        self._work.add(lambda: np.copyto(out, sent))

    def copy(self, source: np.ndarray, out: np.ndarray) -> None:
        self._work.add(lambda: np.copyto(out, source))

    def launch(self, kernel: Kernel, blocks: int, arguments: Sequence[Any]) -> None:
        self.launches.append(kernel.name)
        if blocks:
            self._work.add(lambda: self._programs.launch(kernel, blocks, arguments))

    def multiply(self, a: Any, b: Any, out: Any, kind: str, *, transpose: str = "nn", beta: int = 0) -> None:
        for array in (a, b, out):
            assert array.flags.c_contiguous
        matrices = [cublas.Matrix(array.ctypes.data, *array.shape) for array in (a, b, out)]
        self._work.add(lambda: self._cublas.gemm(*matrices, kind, transpose=transpose, beta=beta))

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def capture(self, queue: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        return queue

    def pinned(self, size: int) -> np.ndarray:
        return np.full(size, 0xFF, np.uint8)

    def send(self, host: np.ndarray, out: np.ndarray, after: _Event | None) -> _Event:
        self.sent += 1
        if after is not None:
            self._copies.wait(after)
        self._copies.add(lambda: np.copyto(out, host))
        return self._copies.record()

    def mark(self) -> _Event:
        return self._work.record()

    def wait_for(self, event: _Event) -> None:
        self._work.wait(event)

    def past(self, event: _Event) -> bool:
        event.stream.run(event)  # nothing goes on by itself here
        return True

    def host_waits_for(self, event: _Event | None) -> None:
        if event is not None:
            event.stream.run(event)

    def engine(self, network: Any, feed: Any, lambda_: float, precision: Any, answer: Any, **plan: Any) -> Engine:
        return Engine(self, network, feed, lambda_, precision, answer, kernel=self._kernel, **plan)

    def leaves_and_block(self, m: int, sizes: tuple[int, ...]) -> tuple[int, int]:
        return layered_plan(m, sizes)

    def vectors(self) -> DeviceVectors:
        if self._vectors is None:
            self._vectors = DeviceVectors(self)
        return self._vectors
