"""What a run leaves while it works: its history and its checkpoints, which are written while it goes on.

A checkpoint holds two Θ's. `Theta` is what the run would return if it ended there: the optimizer's best, or under
early stopping the one of the lowest validation cost. The optimizer's own, with which it goes on, is in its state.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from statistics import median
from types import TracebackType
from typing import Any

import numpy as np

from . import __version__
from .checkpoint import Background, Checkpoint
from .errors import BackendError, CheckpointError, CommunicatorError, GpubpError, OutOfMemory
from .gathering import asking, give, is_parted, whole
from .job import interval
from .objective import Objective
from .optimizers import Ending, State
from .optimizers.vectors import HostVectors
from .precision import precision as precision_of
from .precision import with_bits
from .prepare import Prepared
from .run_folder import RunFolder
from .stopping import Watch
from .training import Progress

FILL = "fill"  # beside the scaling in a checkpoint: what missing values are replaced by, if they are
_WRITING = "writing a checkpoint"
_WORTH, _LATEST = 100, 10  # of seconds: as long as this many times the cost, and this many times what was asked for
_COLUMNS = tuple(f.name for f in fields(Progress))


class Recorder:
    """Keeps the history of a run, writes its checkpoints, and has the watch that ends it.

    Args:
        folder: where; None keeps the history alone.
        resumed: the checkpoint that the run goes on from.

    Attributes:
        history: one record for each iteration done.
        watch: for `gpubp.training.fit`.
        seconds: training time of the sessions before.
    """

    def __init__(self, ready: Prepared, folder: RunFolder | None, resumed: Checkpoint | None) -> None:
        self._ready, self._folder, self._fresh = ready, folder, resumed is None
        self.history = history_rows(resumed) if resumed else []
        self.seconds = float(self.history[-1]["seconds"]) if self.history else 0.0
        known: dict[str, Any] = dict(resumed.stopping) if resumed else {}
        self._first = known["J"] if known.get("iteration") == 0 else math.nan  # J of the initial Θ
        if resumed:
            known["Theta"] = ready.network.pack(resumed.Theta)
        self.watch = Watch(ready.job.stopping, self.history, known)
        self._table = array("d")  # the history as a checkpoint has it
        for row in self.history:
            self._table.extend(_numbers(row))
        self._every = interval(ready.job.checkpoint_every)
        self._saved_at = time.monotonic()
        self._latest: State | None = None
        self._background = Background()
        self._expense = Expense()
        self._shared = False  # whether what is being written is read from where the state has it
        self._ranks = ready.objective.communicator
        self._together = False  # whether all ranks write a checkpoint together, each having a part of the state
        self._asked = False  # whether all have said if an error has left a state to be saved
        if folder is not None:
            self._ranks.kept = self._kept
        self._climbed_at = -1  # evaluations: until the next one the state belongs to the precision before

    @property
    def lowest_validation(self) -> float:
        """The lowest validation cost so far; infinite if there is none."""
        return min((row["validation"] for row in self.history if row["validation"] is not None), default=math.inf)

    def climb(self, precision: str) -> Objective:
        """The objective at another precision."""
        self._climbed_at = self._latest.evaluations if self._latest else -1
        return self._ready.at(precision)

    def begin(self, state: State) -> None:
        """The first checkpoint is the first thing a run leaves: a kill at any time can be resumed, and where an earlier
        run is replaced, nothing of it goes before this one is safe."""
        self._latest = state
        state.settle = self._settled
        if is_parted(state):
            self._together = self._ranks.share(self._folder is not None)
        if self._fresh:
            self._first = state.J
            self._save(state, None)
            self._settle()
        if self._folder is not None:
            with self._ranks.alone("writing the history"):
                self._folder.rewrite_history(self.history)

    def note(self, progress: Progress, state: State) -> None:
        """An iteration is done: the first callback of every run."""
        self.history.append(progress.asdict())
        self._table.extend(_numbers(self.history[-1]))
        due, lost = False, None
        if self._folder is not None:
            try:
                self._expense.note(progress, writing=self._background.busy)
                with self._ranks.alone("writing the history"):
                    self._folder.append_history(self.history[-1])
                due = self._due(state)
            except Exception as error:  # the other ranks are to be asked all the same
                due, lost = True, error
        if not (self._ranks.share(due) if self._together else due):
            return
        if lost is not None:
            with suppress(CheckpointError):  # what was reached may be kept all the same
                self._save(state, None)
                self._settle()
            with self._naming_what_is_kept():
                raise lost
        self._save(state, None)
        self._saved_at = time.monotonic()
        self._expense.begin()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is being written is brought to its end, but for somebody who does not wait: a second Ctrl-C."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._background.give_up()
            return
        if self._together and getattr(error, "agreed", False):
            self._all_sound(False)  # the others may ask
        with suppress(GpubpError, MemoryError):  # the error that brought us here is the one to be heard
            self._settle()

    def interrupted(self, error: GpubpError | MemoryError) -> None:
        """A run ends by an error: rows that cannot be read, a device that fails, no memory. What was reached is kept
        where it still can be had: a step commits last, so the state is that of the step before. It is not had from a
        device that failed, nor in the midst of a commit; then the checkpoint before is what is left.

        Raises:
            GpubpError: the error, and which checkpoint is left; it is not raised where there is none.
        """
        state, failed = self._latest, isinstance(error, BackendError) and not isinstance(error, OutOfMemory)
        failed = failed or type(error) is CommunicatorError  # ranks that differ: who knows which of them is right?
        sound = state is not None and state.whole and not failed and state.evaluations != self._climbed_at
        if self._together:
            sound = getattr(error, "agreed", False) and self._all_sound(sound)  # else the others are not here
        if state is not None and sound:
            with suppress(GpubpError, MemoryError):  # the first error is the one to be heard
                self._save(state, None)
        with suppress(GpubpError, MemoryError):  # what is being written is the one that is left
            self._settle()
        kept = self._kept() if state or not self._fresh else ""
        if not kept:
            return
        if isinstance(error, MemoryError):
            do = "keep fewer rows in it with --memory, or take a smaller network"
            told: GpubpError = OutOfMemory("out of memory", do=f"{do}; {kept}")
        else:
            told = type(error)(error.found, wanted=error.wanted, do=f"{error.do}; {kept}" if error.do else kept)
        told.agreed = getattr(error, "agreed", False)
        raise told from error

    def _all_sound(self, sound: bool) -> bool:
        """Whether all ranks have a state that can be saved after an error that all have met; asked once."""
        if not self._asked:
            self._asked = True
            return all(self._ranks.gather(sound))
        return False

    def end(self, state: State, ending: Ending) -> None:
        """The run has ended."""
        self._save(state, ending)
        self._settle()

    def reached(self, state: State) -> dict[str, Any]:
        """What the Θ that is returned has reached, see `Model.reached`."""
        return reached(self.history, self._of_Theta(state))

    def _due(self, state: State) -> bool:
        """Whether it is time for a checkpoint: it comes later where the last one cost so much that they would take more
        than a hundredth of the time."""
        seconds, iterations = self._every
        if not seconds:
            return state.iteration % iterations == 0
        wanted = min(max(seconds, _WORTH * self._expense.seconds), _LATEST * seconds)
        return time.monotonic() - self._saved_at >= wanted

    def _save(self, state: State, ending: Ending | None) -> None:
        """Begin to write a checkpoint. Where each rank has a part of the state, all of them call this, and it is done
        when it returns: what the others have can only be asked for while they wait."""
        folder = self._folder
        if folder is None:
            if self._together:
                give(self._ranks, state)
            return
        keep = self._ready.job.keep
        if self._together:
            with self._naming_what_is_kept(), self._ranks.alone(_WRITING), asking(self._ranks):
                folder.save(self._record(state, ending), keep, versions=state.versions())
            return
        versions = state.versions()
        self._settle()  # before the record is made: copies from a device would be in memory twice
        record = self._record(state, ending)
        self._shared = isinstance(state.vectors, HostVectors)  # from a device it came as a copy
        with self._naming_what_is_kept():
            self._background.begin(lambda go_on: folder.save(record, keep, versions=versions, go_on=go_on))

    def _settle(self) -> None:
        """Wait until the checkpoint that was begun is on the disk."""
        with self._naming_what_is_kept(), self._ranks.alone(_WRITING):
            self._background.settle()

    def _settled(self) -> None:
        """The state is about to change."""
        if self._shared:
            self._settle()

    @contextmanager
    def _naming_what_is_kept(self) -> Iterator[None]:
        """Inside, an error of writing that does not say what to do says which checkpoint there is to go on from."""
        try:
            yield
        except CheckpointError as error:
            kept = self._kept()
            if error.do or not kept:
                raise
            raise CheckpointError(error.found, wanted=error.wanted, do=kept) from error.__cause__

    def _kept(self) -> str:
        """Which checkpoint is there to go on from; "" if there is none."""
        held = self._folder.checkpoints() if self._folder is not None else []
        return f"{held[-1]} is kept: gpubp resume {held[-1].parent} goes on from there" if held else ""

    def _record(self, state: State, ending: Ending | None) -> Checkpoint:
        ready, job, network = self._ready, self._ready.job, self._ready.network
        return Checkpoint(
            Theta=tuple(network.unpack(self.watch.Theta_on_host(state))),
            network={"sizes": list(network.sizes), "activation": network.activation, "cost": network.cost},
            optimizer={"name": job.optimizer, **asdict(ready.optimizer)},
            state=whole(self._ranks, state.saved()),
            lambda_=job.lambda_,
            scaling=asdict(ready.rows.scaling) | ({} if ready.fill is None else {FILL: ready.fill}),
            targets=asdict(ready.targets),
            history=np.array(self._table).reshape(-1, len(_COLUMNS)),
            history_columns=_COLUMNS,
            conditions=conditions(ready),
            job={**asdict(job), "hidden": list(job.hidden)},
            iteration=state.iteration,
            ending=None if ending is None else asdict(ending),
            stopping=self._of_Theta(state),
        )

    def _of_Theta(self, state: State) -> dict[str, float | int]:
        """The checkpoint's `stopping`."""
        if known := self.watch.saved():
            return known
        J = state.best[1]
        if state.J == J or math.isnan(J):
            return {}
        found = next((row for row in self.history if row["J"] == J), None)
        if found is None:
            return {"iteration": 0 if J == self._first else -1, "J": J, "validation": math.nan}
        return {"iteration": found["iteration"], "J": J, "validation": _number(found["validation"])}


class Expense:
    """What the last checkpoint cost a training: how much longer iterations took while it was written.

    Attributes:
        seconds: that; 0 as long as nothing is known to compare with.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._usual: deque[float] = deque(maxlen=15)  # seconds of a pass in iterations without a writer
        self._before: Progress | None = None
        self._writing = False

    def begin(self) -> None:
        """A checkpoint is begun."""
        self.seconds, self._writing = 0.0, True

    def note(self, progress: Progress, *, writing: bool) -> None:
        """An iteration is done.

        Args:
            writing: whether a checkpoint is still being written.
        """
        before, self._before = self._before, progress
        disturbed, self._writing = self._writing, writing
        if before is None or progress.passes <= before.passes:
            return
        seconds, passes = progress.seconds - before.seconds, progress.passes - before.passes
        if not disturbed:
            self._usual.append(seconds / passes)
        elif self._usual:
            self.seconds += seconds - passes * median(self._usual)


def reached(history: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> dict[str, Any]:
    """What a Θ has reached: of the iteration that a checkpoint's `stopping` names, or of the last one."""
    at = known["iteration"] if known else history[-1]["iteration"] if history else None
    row = next((row for row in reversed(history) if row["iteration"] == at), None)
    if row is not None:
        return {name: row[name] for name in ("iteration", "J", "gradient", "validation")}
    if not known:
        return {}
    validation = known["validation"] if math.isfinite(known["validation"]) else None
    return {"iteration": None if at == -1 else at, "J": known["J"], "gradient": None, "validation": validation}


def history_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The table of a checkpoint as records, with whole numbers whole and NaN as None."""
    rows = []
    for line in checkpoint.history.tolist():
        found = dict(zip(checkpoint.history_columns, line, strict=True))
        row: dict[str, Any] = {name: found.get(name, float("nan")) for name in _COLUMNS}
        row["iteration"], row["evaluations"] = int(row["iteration"]), int(row["evaluations"])
        for name in ("validation", "step"):
            row[name] = None if row[name] != row[name] else row[name]
        row["precision"] = with_bits(row["precision"]) or str(checkpoint.conditions.get("precision"))
        row["passes"] = float(row["evaluations"]) if row["passes"] != row["passes"] else row["passes"]
        rows.append(row)
    return rows


def conditions(ready: Prepared) -> dict[str, Any]:
    """What the bits of the run depend on."""
    return {"gpubp": __version__, **ready.objective.conditions(), "data": ready.fingerprint}


def _numbers(row: Mapping[str, Any]) -> list[float]:
    """A record of the history as a line of the checkpoint's table."""
    return [_number(row[name]) for name in _COLUMNS]


def _number(value: float | str | None) -> float:
    if isinstance(value, str):
        return precision_of(value).bits  # the one column of words, as a number that stays true
    return float("nan") if value is None else float(value)
