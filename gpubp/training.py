"""The loop: step after step until a reason to stop.

An optimizer and an objective meet here. The loop asks the optimizer for steps, notes what each one reached, and calls
the callbacks: logging, checkpoints and live plots are callbacks, `callable(progress, state) -> bool | None`, and one
that returns True ends the run. A request to stop (a signal) is honoured before the next pass over the data: the step
in flight is given up, its state is as it was before, and nothing is lost but that step.

Where rounding is all that is left, an optimizer says that it has stalled. If the backend has a finer precision, the run
goes on from there at that one: it climbs. Whether it must is a matter of the state and the objective alone, so a run
that is resumed climbs where an undisturbed one does.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import numpy as np

from .backend.blas import one_thread
from .errors import OutOfMemory, Stopped
from .objective import Objective
from .optimizers import Ending, Optimizer, State
from .precision import finer, precision
from .stopping import Stopping, Watch, count

log = logging.getLogger("gpubp")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """What one finished iteration reached.

    Attributes:
        iteration, evaluations: so far in the whole run; an evaluation is one pass over the rows for J and ∇J.
        J: the cost with its λ term.
        gradient: max|∇J|.
        validation: the cost without the λ term on the validation rows, or None.
        seconds: training time of the whole run, earlier sessions counted.
        precision: of the passes it was reached with.
        passes: all that the run has cost so far in passes: the evaluations, and what else the optimizer asked for.
        step: ‖Θ_k − Θ_{k−1}‖₂, how far this iteration went from the Θ of the one before; None where that is not known.
    """

    iteration: int
    evaluations: int
    J: float
    gradient: float
    validation: float | None
    seconds: float
    precision: str = ""
    passes: float = 0.0
    step: float | None = None

    def asdict(self) -> dict[str, Any]:
        """As a line of the history."""
        return asdict(self)


Callback = Callable[[Progress, State], "bool | None"]


class StopRequest:
    """Whether someone asked the run to stop, and who.

    Attributes:
        by: the name of the first signal that asked. A later one changes nothing, but for a second Ctrl-C.
        last_rites: what is done before the process ends at once; it may be called from another thread than the run's.
    """

    GRACE = 0.25  # seconds that Python's own way out may take after a second Ctrl-C

    def __init__(self) -> None:
        self.by: str | None = None
        self.last_rites: Callable[[], None] | None = None
        self._interrupts = 0

    def refuse(self, when: str) -> None:
        """Give up, if someone asked to stop, what need not be brought to an end.

        Raises:
            Stopped: who asked, and `when`.
        """
        if self.by:
            raise Stopped(f"stopped by {self.by} {when}", do="nothing is lost: the same command begins it again")

    @contextmanager
    def listening(self, *, for_good: bool = False) -> Iterator[StopRequest]:
        """Inside, SIGTERM, SIGUSR1, SIGHUP and Ctrl-C ask to stop; a second Ctrl-C ends the process at once.

        SIGHUP stays ignored where it is: under nohup a run outlives its terminal.

        A handler of Python's waits until the main thread is back from the pass that it is in, which may take long. So a
        thread of our own is told of signals as they come: it says that a stop was asked for, and where a second Ctrl-C
        has not ended the process by `KeyboardInterrupt`, does so itself.

        Args:
            for_good: whether the process ends once a stop was asked for. Then later signals do not change how.
        """

        def handle(number: int, frame: FrameType | None) -> None:
            self.by = self.by or signal.Signals(number).name
            self._interrupts += number == signal.SIGINT
            if number != signal.SIGINT or self._interrupts < 2:
                return
            if over.is_set():
                self._end_at_once()
            elif self._interrupts == 2:  # a third one must not disturb the tidying up
                raise KeyboardInterrupt

        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        over, (told, tells) = threading.Event(), os.pipe()
        os.set_blocking(tells, False)
        thread = threading.Thread(target=self._listen, args=(told, set(numbers), over), name="gpubp signals")
        thread.daemon = True
        thread.start()
        woken = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
        before = [signal.signal(number, handle) for number in numbers]
        try:
            yield self
        finally:
            over.set()
            if not (for_good and self.by):
                for number, handler in zip(numbers, before, strict=True):
                    signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
            os.close(tells)
            thread.join()
            os.close(told)

    def _listen(self, told: int, numbers: set[int], over: threading.Event) -> None:
        """What the thread does: read the numbers of signals until there can be no more."""
        seen: list[int] = []
        while came := os.read(told, 64):
            for number in came:
                if number not in numbers:
                    continue
                if not seen:
                    name = signal.Signals(number).name
                    self.by = self.by or name  # handlers run later, in the order of the numbers and not as signals came
                    log.info(f"{name}: stopping; a second Ctrl-C ends at once")
                seen.append(number)
                if number == signal.SIGINT and seen.count(number) >= 2 and not over.wait(self.GRACE):
                    self._end_at_once()

    def _end_at_once(self) -> None:
        with suppress(Exception):
            if self.last_rites is not None:
                self.last_rites()
        with suppress(OSError):
            shown = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""  # a bar hides the cursor
            os.write(2, shown + b"gpubp: interrupted\n")
        os._exit(130)


class _Stopped(Exception):
    """Raised out of an evaluation that is not to begin."""


class _Watched:
    """The objective as the optimizer sees it: refuses to begin a pass after a request to stop, and remembers the
    validation cost that came with each J of the step, since the accepted point need not be the last one tried."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.precision = objective, objective.precision
        self.threads, self.vectors, self.communicator = objective.threads, objective.vectors, objective.communicator
        self.noise = precision(objective.precision).noise
        curvature = getattr(objective, "curvature", None)
        self.curvature = curvature and _WatchedCurvature(curvature, self._unless_stopped)
        self.seen: list[tuple[Any, Any]] = []

    def value_and_gradient(self, Theta: Any, out: Any) -> Any:
        self._unless_stopped()
        J = self.objective.value_and_gradient(Theta, out)
        self.seen.append((J, self.objective.validation_number))
        return J

    def _unless_stopped(self) -> None:
        if self.communicator.asked:
            raise _Stopped

    def validation(self, J: float) -> float | None:
        """The validation cost of the evaluation of the step that gave this J."""
        found = next((validation for seen, validation in reversed(self.seen) if float(seen) == J), None)
        return None if found is None else float(found)


class _Stride:
    """How far a step goes. It keeps one vector: the Θ before the step, and after it the difference.

    An optimizer may write into Θ or put another array in its place, so it is not asked.
    """

    def __init__(self, state: State) -> None:
        self._vectors, self._kept = state.vectors, state.vectors.zeros(*state.Theta.shape)

    def begin(self, state: State) -> None:
        """A step begins here."""
        self._vectors.copy(state.Theta, self._kept)

    def end(self, state: State) -> None:
        """It has ended. By itself, for on a full device each of these is done again until there is room."""
        self._vectors.subtract(state.Theta, self._kept, out=self._kept)

    def length(self) -> float:
        """‖Θ − the Θ it began at‖₂."""
        return math.sqrt(self._vectors.read(self._vectors.dot(self._kept, self._kept))[0])


class _WatchedCurvature:
    """The objective's curvature: likewise, no walk over the rows begins after a request to stop."""

    def __init__(self, curvature: Any, check: Callable[[], None]) -> None:
        self._curvature, self._check = curvature, check

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._curvature, name)
        if not callable(found):
            return found

        def watched(*arguments: Any) -> Any:
            self._check()
            return found(*arguments)

        return watched


def fit(
    objective: Objective,
    optimizer: Optimizer,
    start: np.ndarray | dict[str, Any],
    *,
    iterations: int,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    seconds: float = 0.0,
    ready: Callable[[State], None] | None = None,
    climb: Callable[[str], Objective] | None = None,
    watch: Watch | None = None,
) -> tuple[Ending, State | None]:
    """Train until the optimizer ends, the limit or what `watch` looks for is reached, or someone asks to stop.

    Args:
        start: the flat initial Θ, or the saved state of an interrupted run.
        iterations: the limit, counted from the beginning of the run.
        callbacks: called after each iteration, in order.
        stop: a request that may come at any time; where there are several ranks, to any of them.
        seconds: training time of earlier sessions.
        ready: called once with the state before the first step.
        climb: closes the objective and gives the same one at another precision; without it a stall is the end.
        watch: what else ends the run, and what it remembers for that; a new one for each call.

    Returns:
        Why it ended, and the state; the state is None when the stop came before the first evaluation was done. The Θ
        to return is `watch.Theta_on_host(state)`.
    """
    stop, watch, ranks = stop or StopRequest(), watch or Watch(Stopping()), objective.communicator
    ranks.wish = lambda: stop.by or ""
    f = _Watched(objective)
    began = time.perf_counter() - seconds
    with one_thread(), objective.guard():
        try:
            state = _with_room(objective, partial(_begun, optimizer, f, start))
        except _Stopped:
            return _stopped(stop, ranks.asked, "before the first evaluation was done"), None
        _with_room(objective, partial(watch.begin, state, f.precision, f.validation(state.J)))
        with ranks.together():
            if ready:
                ready(state)
        stride = _with_room(objective, partial(_Stride, state))
        while True:
            ending = watch.ending(state, optimizer, iterations, seconds)
            if ending is not None:
                return ending, state
            before, evaluations, extra = state.iteration, state.evaluations, state.extra
            wishes = False
            f.seen.clear()
            _with_room(objective, partial(stride.begin, state))
            try:
                ending = _with_room(objective, partial(optimizer.step, f, state), state)
            except _Stopped:
                return _stopped(stop, ranks.asked, f"after {count(state.iteration)}"), state
            if state.iteration > before:
                seconds = time.perf_counter() - began
                ranks.compare(partial(state.vectors.to_host, state.Theta))
                far, failed = _length(objective, stride, state)
                progress = Progress(
                    state.iteration,
                    state.evaluations,
                    state.J,
                    state.steepest,
                    f.validation(state.J),
                    seconds,
                    f.precision,
                    state.passes,
                    far,
                )
                watch.note(state, progress.validation)
                with ranks.together():
                    wishes = any([callback(progress, state) for callback in callbacks])  # all of them are called
                    if failed:
                        raise failed
                wishes, seconds = ranks.agree(wishes, seconds)
            stalled = ending is not None and ending.kind == "stalled"
            # at a limit nothing climbs: a larger one goes on as if there had been none. What a step without iteration
            # has cost is no reason: budgets end a run between iterations
            iterated = state.iteration > before
            other = watch.ending(state, optimizer, iterations, seconds) if stalled and iterated else None
            if other is not None:
                stalled = False
                ending = ending if other.kind == "limit" else other
            higher = finer(f.precision, objective.backend.precisions) if climb and stalled else None
            if wishes and (ending is None or higher):
                ending = Ending("stopped", f"stopped by a callback after {count(state.iteration)}")
            elif higher and ranks.asked:
                if not iterated:  # the step is given up: a resumed run takes it again, and stalls
                    state.evaluations, state.extra = evaluations, extra
                ending = _stopped(stop, ranks.asked, f"after {count(state.iteration)}")
            elif climb and higher:
                log.info(
                    f"stalled at {f.precision} (J = {state.J:.9g}, max|∇J| = {state.steepest:.3g}, "
                    f"wanted {optimizer.tolerance:g} or less): going on at {higher} from iteration {state.iteration}"
                )
                objective = climb(higher)
                f = _Watched(objective)
                with state.commit():  # not to be stopped: precision and state are one
                    _with_room(objective, partial(optimizer.renew, objective, state))
                watch.climbed()
                stride = _with_room(objective, partial(_Stride, state))
                ending = None
            if ending is not None:
                return ending, state


def _stopped(stop: StopRequest, by: str, when: str) -> Ending:
    if stop.by != by:  # another rank was asked too, or alone: what all have heard counts
        stop.by = by
    return Ending("stopped", f"stopped by {by} {when}")


def _begun(optimizer: Optimizer, f: _Watched, start: np.ndarray | dict[str, Any]) -> State:
    return optimizer.restore(f, start) if isinstance(start, dict) else optimizer.init(f, start)


def _length(objective: Objective, stride: _Stride, state: State) -> tuple[float | None, OutOfMemory | None]:
    """How far the step went; on a device that stays full over that, the error: the iteration is done all the same, and
    its line of the history is not to be lost. (One that is lost for good is not to be read any more.)"""
    try:
        _with_room(objective, partial(stride.end, state))
        return _with_room(objective, stride.length), None
    except OutOfMemory as error:
        return None, error


def _with_room(objective: Objective, work: Callable[[], Result], state: State | None = None) -> Result:
    """``work()``, rows making room on a device as often as an optimizer's vectors find it full.

    What an optimizer was doing when that happened it can do again, for it commits last; not so from a `state` that was
    being committed.
    """
    while True:
        try:
            with objective.guard():  # it says what is full in our words
                return work()
        except OutOfMemory as error:
            if not objective.can_make_room or (state is not None and not state.whole):
                raise
            why = str(error)
        objective.make_room(why)  # only now, when the error holds no half-made vectors any more
