"""Taking times: turn by turn, and with an eye on what else the machine does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ROUNDS = 3  # turns of each call
PAUSE = 0.15  # seconds before a turn, in which the spinning threads of the last one's BLAS fall asleep
PATIENCE = 5.0  # seconds that all turns together may be put off while the cores have other work
NOISE = 0.15  # cores busy with other work, beyond which a figure is no good


@dataclass
class Timing:
    """The seconds of each call, over all turns."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """The distance between the quartiles over the median."""
        low, high = np.percentile(self.seconds, (25, 75))
        return float(high - low) / self.median


@dataclass
class Meter:
    """Calls take turns, so that a machine that grows slower meanwhile does so for all of them.

    A turn is calls back to back, as passes are in training; its first one is not recorded.

    Attributes:
        seconds: how long the turns of one call take together.
        timings: what was found, by name.
        others: how many of the cores this process may use were busy with other work meanwhile.
    """

    seconds: float
    timings: dict[str, Timing] = field(default_factory=dict)
    others: float = 0.0

    def run(self, calls: dict[str, tuple[Callable[[], None], Callable[[], AbstractContextManager[Any]]]]) -> None:
        """Take all turns. A call comes with what makes the context of a turn."""
        elsewhere, spent, patience = 0.0, 0.0, min(PATIENCE, 2 * self.seconds)
        for _ in range(ROUNDS):
            for name, (call, context) in calls.items():
                patience -= _rest(min(PAUSE, self.seconds), patience)
                timing = self.timings.setdefault(name, Timing())
                with context():
                    call()
                    busy, cpu, began = busy_seconds(), time.process_time(), time.perf_counter()
                    timing.seconds.append(_seconds(call))
                    while (end := time.perf_counter()) - began < self.seconds / ROUNDS:
                        timing.seconds.append(_seconds(call))
                    elsewhere += busy_seconds() - busy - (time.process_time() - cpu)
                    spent += end - began
        if spent > 0.5:  # the system counts in hundredths of a second
            self.others = max(0.0, elsewhere / spent)


def _rest(pause: float, patience: float) -> float:
    """Sleep for so long, and again while others work and patience lasts; the seconds of patience that it took."""
    began = time.perf_counter()
    while True:
        busy, since = busy_seconds(), time.perf_counter()
        time.sleep(pause)
        now = time.perf_counter()
        beyond = now - began - pause
        if beyond >= patience or busy_seconds() - busy <= NOISE * (now - since):
            return max(0.0, beyond)


def quick(call: Callable[[], None]) -> float:
    """The seconds of the faster of two calls, for an estimate."""
    return max(1e-7, min(_seconds(call) for _ in range(2)))


def busy_seconds() -> float:
    """Seconds that the cores this process may use were busy, or taken by the machine's host, since it started."""
    ticks = 0
    with suppress(OSError, AttributeError), open("/proc/stat") as file:
        names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        for name, *counts in map(str.split, file):
            if name in names:
                user, nice, system, _idle, _waiting, interrupts, soft, steal = map(int, counts[:8])
                ticks += user + nice + system + interrupts + soft + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
