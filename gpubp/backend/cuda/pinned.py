"""Memory of the host from which a GPU copies by itself, and the way through it to the device. Its calls are CuPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import BackendError
from . import failures

PIECE = 16 << 20  # bytes of one of the two pinned buffers on the way to the device


class Staging:
    """Two pinned buffers through which arrays go to the device: one is filled while the other travels."""

    def __init__(self, cupy: Any) -> None:
        self._buffers = [pinned(cupy, PIECE) for _ in range(2)]
        self._arrived = [cupy.cuda.Event(disable_timing=True) for _ in self._buffers]
        self._next = 0

    def send(self, host: np.ndarray, to: Any) -> None:
        """Queue the copy of a host array to device memory; the host array may be reused on return."""
        data = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
        for start in range(0, data.size, PIECE):
            piece = data[start : start + PIECE]
            buffer, arrived = self._buffers[self._next], self._arrived[self._next]
            self._next ^= 1
            arrived.synchronize()
            buffer[: piece.size] = piece
            (to + start).copy_from_host_async(buffer.ctypes.data, piece.size)
            arrived.record()


def pinned(cupy: Any, size: int) -> np.ndarray:
    """Bytes of the host that stay where they are, (size,) uint8.

    Raises:
        BackendError: the host has no such memory left. Fewer rows on the device would be no help.
    """
    try:
        return np.frombuffer(cupy.cuda.alloc_pinned_memory(size), np.uint8, size)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if failures.status(error) != failures.FULL:
            raise
        raise BackendError(
            f"the host has no {size:,} bytes of pinned memory for the GPU: {failures.words(error)}",
            do="have the container or job allow more locked memory (ulimit -l), or take --backend cpu",
        ) from error
