"""What the passes of this folder ask of a device. `backend.cupy` has it for a GPU; tests have it on the CPU.

Work is queued on one compute stream, in order. Arrays are the device's own, row-major.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import numpy as np

from ...formula import Formula, plus
from .. import kernels
from ..kernels import Kernel, Type

ALIGN = 256  # bytes: a library may choose its kernel by where an array begins, but it looks no further


class Device(Protocol):
    """Memory, launches, products, and copies that travel beside the work."""

    shared_memory: int  # bytes that a block may have
    processors: int  # how many blocks run at once at least: streaming multiprocessors

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A new array, its start aligned to 256 bytes, its content undefined."""
        ...

    def zero(self, array: Any) -> None:
        """array ← 0."""
        ...

    def upload(self, host: np.ndarray) -> Any:
        """The host's array in the device's memory."""
        ...

    def write(self, host: np.ndarray, out: Any) -> None:
        """out ← the host's array of that type and shape, which may be reused on return."""
        ...

    def to_host(self, array: Any) -> np.ndarray:
        """A copy in the host's memory, once all work queued before it is done."""
        ...

    def copy(self, source: Any, out: Any) -> None:
        """out ← source, both on the device and of one type and shape."""
        ...

    def launch(self, kernel: Kernel, blocks: int, arguments: Sequence[Any]) -> None:
        """Queue a kernel. Arguments are arrays, None for a null pointer, and numbers."""
        ...

    def multiply(self, a: Any, b: Any, out: Any, kind: str, *, transpose: str = "nn", beta: int = 0) -> None:
        """out ← op(a)·op(b) + beta·out in one of `cublas`' kinds; bfloat16 factors lie in arrays of uint16."""
        ...

    def address(self, array: Any) -> int:
        """Where an array begins in the device's memory."""
        ...

    def capture(self, queue: Callable[[], None]) -> Callable[[], None]:
        """What `queue` queues, to be queued again in one go. Nothing may be allocated or built in it."""
        ...

    def guard(self) -> AbstractContextManager[Any]:
        """Entered around all of this: the device and its stream are the current ones."""
        ...

    # Copies beside the work: an event is a point in the order of a stream.

    def pinned(self, size: int) -> np.ndarray:
        """Bytes of the host from which the device can copy by itself; (size,) uint8."""
        ...

    def send(self, host: np.ndarray, out: Any, after: Any) -> Any:
        """Queue a copy of pinned bytes beside the work, once the event `after` (or None) is past; returns its event.

        May be called from any thread.
        """
        ...

    def mark(self) -> Any:
        """An event after all work queued so far."""
        ...

    def wait_for(self, event: Any) -> None:
        """Work queued from now on begins after the event."""
        ...

    def past(self, event: Any) -> bool:
        """Whether the event is past, without a wait."""
        ...

    def host_waits_for(self, event: Any) -> None:
        """Return when the event (or None) is past. May be called from any thread."""
        ...


def elementwise(device: Device, formula: Formula, types: Sequence[Type], *arrays: Any) -> None:
    """Queue an elementwise formula on inputs and the output, stored in these types."""
    launch = kernels.plan(formula, arrays)
    if launch.blocks:
        device.launch(_kernel(formula, tuple(types), launch.wide), launch.blocks, (*arrays, *launch.numbers))


def add(device: Device, a: Any, b: Any) -> None:
    """Queue a ← a + b: the sums of two siblings of the tree become those of their parent."""
    elementwise(device, plus, [np.dtype(a.dtype)] * 3, a, b, a)


@cache
def _kernel(formula: Formula, types: tuple[Type, ...], wide: bool) -> Kernel:
    return kernels.source(formula, types, wide=wide)
