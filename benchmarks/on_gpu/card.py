"""The device, and how time is taken on it; in a smoke test the CPU stands in, through NumPy and wall clocks."""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

_SPIN = r"""
extern "C" __global__ void spin(unsigned long long ns) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now - start < ns);
}
"""


class Clock(Protocol):
    """Takes the time of what one framework queues."""

    def mark(self, value: Any = None) -> Any:
        """A point in time: when everything queued so far is done. `value` is what the last evaluation returned."""
        ...

    def seconds(self, start: Any, stop: Any) -> float:
        """Between two marks; waits until the second is reached."""
        ...

    def hold(self, seconds: float) -> bool:
        """Keep the device busy, so that what is queued next runs back to back. False: it cannot be done here."""
        ...


class EventClock:
    """CUDA events on a stream."""

    def __init__(self, cupy: Any, stream: Any) -> None:
        self._cuda, self._stream = cupy.cuda, stream
        self._spin = cupy.RawKernel(_SPIN, "spin")

    def mark(self, value: Any = None) -> Any:
        event = self._cuda.Event()
        event.record(self._stream)
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        stop.synchronize()
        return self._cuda.get_elapsed_time(start, stop) / 1e3

    def hold(self, seconds: float) -> bool:
        with self._stream:
            self._spin((1,), (1,), (np.uint64(seconds * 1e9),))
        return True


class WallClock:
    """The host's clock, for frameworks that do not show their stream, and for the CPU."""

    def __init__(self, finish: Callable[[Any], Any]) -> None:
        self._finish = finish

    def mark(self, value: Any = None) -> float:
        if value is not None:
            self._finish(value)
        return time.perf_counter()

    def seconds(self, start: float, stop: float) -> float:
        return stop - start

    def hold(self, seconds: float) -> bool:
        return False


class Card:
    """Where arrays are made: CuPy on GPU 0, or NumPy in a smoke test.

    Attributes:
        xp: the array library.
        smoke: whether the CPU stands in.
    """

    def __init__(self, smoke: bool) -> None:
        self.smoke = smoke
        self.xp: Any = np if smoke else importlib.import_module("cupy")

    def clock(self, stream: Any = None, finish: Callable[[Any], Any] = float) -> Clock:
        """A clock for what runs on this CuPy stream (by default the null stream)."""
        if self.smoke:
            return WallClock(finish)
        return EventClock(self.xp, self.xp.cuda.Stream.null if stream is None else stream)

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if not self.smoke:
            self.xp.cuda.Device().synchronize()

    def forget(self) -> None:
        """Give memory that nobody uses back to the device."""
        gc.collect()
        if not self.smoke:
            self.xp.get_default_memory_pool().free_all_blocks()
            self.xp.get_default_pinned_memory_pool().free_all_blocks()

    def used_mb(self) -> float:
        """Of the device's memory, by everyone on it."""
        if self.smoke:
            return 0.0
        free, total = self.xp.cuda.Device().mem_info
        return (total - free) / 1e6
