"""First the answer, then the times.

A figure is the median of several turns; a turn is a batch of evaluations queued one after the other between two marks
of the clock (CUDA events), long enough that the clock's grain does not matter. Beside it: one call with its wait for J
as a person times it, and for short evaluations the time on the device alone: the batch is queued behind a kernel that
keeps the device busy until all of it is there, so the host's own speed does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from problems import Array

from .card import Clock

# Relative errors of a gradient beyond which it is no answer at this precision; C's kinks alone give 6e-5 in float32.
WRONG = {"fp64": 1e-9, "fp32": 1e-3, "tf32x3": 1e-3, "tf32": 5e-2, "bf16": 2.5e-1}
SHORT = 3e-4  # seconds; an evaluation up to here is also timed on the device alone
QUEUED = 20  # evaluations that fit behind the kernel that holds the device


class Wrong(Exception):
    """An answer that is another one: no time is taken."""


class Absent(Exception):
    """Somebody who cannot take part here, and why."""


class Ready(NamedTuple):
    """A contender that can be measured.

    Attributes:
        evaluate: queues one cost and gradient over all rows; returns something for `J`.
        J: waits, and gives the cost.
        gradient: waits, and gives the last gradient as one float64 vector on the host (D^(1), D^(2), … row by row).
        clock: of the stream it works on.
        spoil: overwrites where the gradient goes, so that nothing unwritten passes for an answer.
        waits: how often it has waited for the device so far.
        close: ends its threads, lets go of its memory.
        notes: what else belongs into the record.
    """

    evaluate: Callable[[], Any]
    J: Callable[[Any], float]
    gradient: Callable[[], Array]
    clock: Clock
    spoil: Callable[[], None] = lambda: None
    waits: Callable[[], int] | None = None
    close: Callable[[], None] = lambda: None
    notes: dict[str, Any] = {}  # noqa: RUF012  never changed


@dataclass(frozen=True)
class Pace:
    """How long and how often.

    Attributes:
        batch: seconds of a turn at least, with no more than `most` evaluations.
        warm: seconds of evaluations that are not recorded.
        turns: at most, and at least 3; no new one after `spent` seconds.
    """

    batch: float = 0.02
    most: int = 1000
    warm: float = 0.2
    turns: int = 9
    spent: float = 1.2


SMOKE = Pace(batch=0.002, most=20, warm=0.0, turns=3, spent=0.1)


def measured(ready: Ready, truth: tuple[float, Array], precision: str, pace: Pace) -> dict[str, Any]:
    """Everything about one contender.

    Raises:
        Wrong: its gradient is another one.
    """
    began = time.perf_counter()
    ready.J(ready.evaluate())
    first = time.perf_counter() - began
    found: dict[str, Any] = {"first_s": first, **_right(ready, truth, precision)}
    n = found["evaluations"] = _batch_size(ready, pace)
    found |= summary(turns(ready, n, pace))
    found["call_s"] = _calls(ready, found["median_s"], pace)
    if found["median_s"] < SHORT and (alone := _alone(ready, found["median_s"])):
        found["device_s"] = alone
    if ready.waits:
        before = ready.waits()
        ready.J(ready.evaluate())
        found["waits"] = ready.waits() - before
    return found | {"notes": ready.notes}


def turns(ready: Ready, n: int, pace: Pace) -> list[float]:
    """Seconds of one evaluation in each turn, after warm-up."""
    began = time.perf_counter()
    while time.perf_counter() - began < pace.warm:
        _batch(ready, n)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 3 or (len(taken) < pace.turns and time.perf_counter() - began < pace.spent):
        taken.append(_batch(ready, n))
    return taken


def summary(taken: list[float]) -> dict[str, Any]:
    """The figures of some turns."""
    low, middle, high = np.percentile(taken, (25, 50, 75)).tolist()
    return {"median_s": middle, "min_s": min(taken), "spread": (high - low) / middle, "turns": taken}


def _right(ready: Ready, truth: tuple[float, Array], precision: str) -> dict[str, Any]:
    J_true, true = truth
    answers = []
    for _ in range(2):
        ready.spoil()
        J = ready.J(ready.evaluate())
        answers.append((J, np.array(ready.gradient())))
    (J, gradient), (again, other) = answers
    error = float(np.linalg.norm(gradient - true) / np.linalg.norm(true))
    J_error = abs(J - J_true) / abs(J_true)
    if not (error < WRONG[precision] and J_error < WRONG[precision]):
        raise Wrong(f"the gradient's relative error is {error:.1e}, that of J {J_error:.1e}")
    same = J == again and gradient.tobytes() == other.tobytes()
    return {"J_error": J_error, "gradient_error": error, "same_bits": same}


def _batch_size(ready: Ready, pace: Pace) -> int:
    began = time.perf_counter()
    ready.J(ready.evaluate())
    once = time.perf_counter() - began
    n = max(1, min(10, int(pace.batch / once)))  # a wait may be much of it: once more, without
    once = _batch(ready, n)
    return max(1, min(pace.most, int(np.ceil(pace.batch / max(once, 1e-9)))))


def _batch(ready: Ready, n: int) -> float:
    start, value = ready.clock.mark(), None
    for _ in range(n):
        value = ready.evaluate()
    return ready.clock.seconds(start, ready.clock.mark(value)) / n


def _calls(ready: Ready, about: float, pace: Pace) -> float:
    taken = []
    for _ in range(max(2, min(50, int(pace.spent / 4 / about)))):
        began = time.perf_counter()
        ready.J(ready.evaluate())
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def _alone(ready: Ready, about: float) -> float | None:
    taken = []
    for _ in range(5):
        if not ready.clock.hold(QUEUED * about * 2 + 1e-3):
            return None
        taken.append(_batch(ready, QUEUED))
    return float(np.median(taken))
