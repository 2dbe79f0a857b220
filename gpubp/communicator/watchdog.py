"""Ends a rank that waits in vain: another one hangs, was killed where nobody noticed, or cannot be reached.

A thread looks after the time, since the main thread may hang in a call that never comes back. Time in which this
process itself was stopped does not count, and who worked longer may wait longer: a rank may have the same work on a
slower machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK = 0.1  # seconds
PATIENCE = 2.0  # a rank that was busy for a time waits this many times that longer
STAGGER, MOST = 0.4, 4  # seconds after which the next rank speaks up, and so many do: one message is enough
MOMENT = 1.0  # seconds in which rank 0 may say what is wrong, before another rank does


class Watchdog:
    """Calls `act` where a wait takes too long.

    Args:
        rank: the first ones speak first.
        act: is told how long was waited, in seconds; it does not return.

    Attributes:
        seconds: how long a rank may wait for the others that was not busy before.
    """

    def __init__(self, rank: int, seconds: float, act: Callable[[float], None]) -> None:
        self.seconds, self._act, self._delay = seconds, act, STAGGER * min(rank, MOST)
        self._waited, self._limit = 0.0, 0.0
        self._since = self._looked = time.monotonic()
        threading.Thread(target=self._always, name="gpubp watchdog", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait for the others."""
        busy = time.monotonic() - self._since
        self._waited = 0.0
        self._limit = self.seconds + PATIENCE * busy + self._delay
        try:
            yield
        finally:
            self._limit = 0.0
            self._since = time.monotonic()

    def look(self) -> None:
        """What is done at each tick."""
        now = time.monotonic()
        if limit := self._limit:
            self._waited += min(now - self._looked, 5 * TICK)
            if self._waited > limit:
                self._act(self._waited)
        self._looked = now

    def _always(self) -> None:
        while True:
            time.sleep(TICK)
            self.look()
