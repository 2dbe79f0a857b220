"""Ends a rank that waits in vain: another one hangs, was killed where nobody noticed, or cannot be reached.

A thread looks after the time, since the main thread may hang in a call that never comes back. Time in which this
process itself was stopped does not count, and who worked longer may wait longer: a rank may have the same work on a
slower machine. What rank 0 does alone may take as long as it takes, see `pulse`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .pulse import Pulse

log = logging.getLogger("gpubp")

TICK = 0.1  # seconds
PATIENCE = 2.0  # a rank that was busy for a time waits this many times that longer
STAGGER, MOST = 0.4, 4  # seconds after which the next rank speaks up, and so many do: one message is enough
MOMENT = 1.0  # seconds in which rank 0 may say what is wrong, before another rank does
BEAT = 4  # signs of life within the time that a rank may wait, or one a second


class Watchdog:
    """Calls `act` where a wait takes too long.

    Args:
        rank: the first ones speak first.
        act: is told how long was waited, in seconds; it does not return.
        pulse: how signs of life go to the other ranks; None where they cannot.

    Attributes:
        seconds: how long a rank may wait for the others that was not busy before.
    """

    def __init__(self, rank: int, seconds: float, act: Callable[[float], None], pulse: Pulse | None = None) -> None:
        self.seconds, self._act, self._delay = seconds, act, STAGGER * min(rank, MOST)
        self._pulse = pulse
        self._alone: str | None = None
        self._since_alone = self._beat_at = self._told_at = 0.0
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

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Around what the others wait for, on rank 0."""
        before = self._alone, self._since_alone, self._told_at
        now = time.monotonic()
        self._since_alone, self._told_at = now, now + self.seconds
        self._alone = what
        try:
            yield
        finally:
            self._alone, self._since_alone, self._told_at = before

    def look(self) -> None:
        """What is done at each tick."""
        now = time.monotonic()
        if limit := self._limit:
            self._waited += min(now - self._looked, 5 * TICK)
            if self._pulse is not None and self._pulse.heard():
                self._waited = 0.0
            if self._waited > limit:
                self._act(self._waited)
        elif self._pulse is not None and (what := self._alone) is not None:
            self._lives(what, now)
        self._looked = now

    def _lives(self, what: str, now: float) -> None:
        if now >= self._beat_at:
            self._beat_at = now + min(1.0, self.seconds / BEAT)
            assert self._pulse is not None
            self._pulse.beat()
        if now >= self._told_at:
            self._told_at = now + self.seconds
            log.warning("%s takes %.0f s so far; the other ranks wait for it", what, now - self._since_alone)

    def _always(self) -> None:
        while True:
            time.sleep(TICK)
            self.look()
