"""Rows that do not stay on the device: read, sent and used at the same time.

A thread reads pieces of rows into pinned buffers and queues their copies; the copies travel on a stream of their own
while the device computes with earlier pieces. The pieces are the same in every pass, so the thread goes on with the
next pass's first ones while the last of this one are computed. A piece comes to the same place in every pass.

A piece lies in its buffer as far from a multiple of 256 bytes as it would among rows that stay: a library may choose
its kernel by alignment, and must not choose another one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .device import ALIGN, Device

DEPTH = 3  # one is read, one travels, one is used
_MARGIN = 16  # bytes behind the rows: kernels read whole 16-byte words
Read = Callable[[int, int, np.ndarray], np.ndarray]


class Conveyor:
    """Pieces of rows, always the same ones in the same order.

    Args:
        read: ``read(start, stop, buffer)`` gives rows on the host, in the buffer or elsewhere.
        pieces: (start, stop) of each.
        features, dtype: of a row as it is stored.
    """

    def __init__(
        self, device: Device, read: Read, pieces: Sequence[tuple[int, int]], features: int, dtype: np.dtype
    ) -> None:
        self._device, self._read, self._pieces = device, read, list(pieces)
        self._features, self._dtype = features, dtype
        self._row = features * dtype.itemsize
        size = ALIGN + max(stop - start for start, stop in pieces) * self._row + _MARGIN
        self._pinned = [device.pinned(size) for _ in range(DEPTH)]
        self._buffers = [device.empty((size,), np.dtype(np.uint8)) for _ in range(DEPTH)]
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Before each pass. After a pass that was given up, pieces begin with the first one again."""
        if self._thread is not None and self._taken % len(self._pieces) == 0 and not self._failed:
            return
        self.close()
        self._taken, self._failed, self._stopping = 0, False, False
        self._room = [threading.Semaphore(1) for _ in range(DEPTH)]
        self._arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sent: list[Any] = [None] * DEPTH
        self._used: list[Any] = [None] * DEPTH
        self._thread = threading.Thread(target=self._travel, name="gpubp rows", daemon=True)
        self._thread.start()

    def rows(self, piece: int) -> Any:
        """Where that piece comes to on the device, (rows, features)."""
        return self._rows(self._buffers[piece % DEPTH], *self._pieces[piece])

    def take(self) -> None:
        """The next piece has arrived for work that is queued from now on, until `release`.

        Raises:
            Exception: whatever reading raised.
        """
        found = self._arrived.get()
        if isinstance(found, BaseException):
            self._failed = True
            raise found
        self._device.wait_for(found)

    def release(self) -> None:
        """All work that uses the piece taken last is queued."""
        slot = self._taken % len(self._pieces) % DEPTH
        self._used[slot] = self._device.mark()
        self._taken += 1
        self._room[slot].release()

    def close(self) -> None:
        """End the thread, once nothing travels any more."""
        if self._thread is None:
            return
        self._stopping = True
        for room in self._room:
            room.release()
        self._thread.join()
        self._thread = None
        for event in self._sent:  # what still travels must not find its buffers given to others
            self._device.host_waits_for(event)

    def _travel(self) -> None:
        piece = 0
        try:
            while True:
                slot = piece % DEPTH
                self._room[slot].acquire()
                if self._stopping:
                    return
                start, stop = self._pieces[piece]
                self._device.host_waits_for(self._sent[slot])
                host = self._rows(self._pinned[slot], start, stop)
                x = self._read(start, stop, host)
                if not np.shares_memory(x, host):
                    np.copyto(host, x)
                at = start * self._row % ALIGN
                size = (stop - start) * self._row
                pinned, buffer = self._pinned[slot][at : at + size], self._buffers[slot][at : at + size]
                self._sent[slot] = self._device.send(pinned, buffer, self._used[slot])
                self._arrived.put(self._sent[slot])
                piece = (piece + 1) % len(self._pieces)
        except BaseException as error:
            self._arrived.put(error)

    def _rows(self, memory: Any, start: int, stop: int) -> Any:
        at = start * self._row % ALIGN
        size = (stop - start) * self._row
        return memory[at : at + size].view(self._dtype).reshape(stop - start, self._features)
