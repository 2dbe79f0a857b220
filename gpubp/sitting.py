"""One sitting of a run: data prepared, steps made, what was reached kept. `run` says which data, and from where on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .communicator import Communicator
from .data.dataset import Dataset
from .errors import BackendError, CommunicatorError, DataError, UsageError
from .gathering import received
from .inference import Model
from .leading import Order, follow
from .loading import saved_state
from .network import Network
from .optimizers import Ending, State
from .prepare import Prepared, prepare
from .recording import Recorder
from .run_folder import RunFolder
from .stopping import Watch
from .training import Callback, StopRequest, fit


@dataclass
class Sitting:
    """Who watches a training, and who takes part.

    Attributes:
        dataset: arrays in place of files.
        callbacks, stop: see `gpubp.training.fit`.
        prepared: called once when all is ready for the first step.
        scanned: called with (rows done, rows in all) while the data are read for the first time.
        ranks: the processes that train together.
    """

    dataset: Dataset | None
    callbacks: Sequence[Callback]
    stop: StopRequest | None
    prepared: Callable[[Prepared], None] | None
    scanned: Callable[[int, int], None] | None
    ranks: Communicator

    def __post_init__(self) -> None:
        stop = self.stop  # while data are read nobody trains yet, but all are to know who asked
        self.ranks.listen(lambda: (stop.by or "") if stop is not None else "")

    def prepared_for(self, order: Order) -> AbstractContextManager[Prepared]:
        """What the order needs, closed at the end."""
        made = prepare(order.job, self.dataset, **order.kept, scanned=self.scanned, communicator=self.ranks)
        return closing(made)

    def follow(self, out: str | Path) -> Model:
        """Train as rank 0 says, which alone has the folder `out`."""

        def kept(*_: Any) -> None:
            self.ranks.kept = lambda: f"gpubp resume {out} goes on from the last checkpoint"

        def train(ready: Prepared, order: Order) -> Model:
            if order.resumed is not None:
                kept()
            return self.train(ready, None, order, noting=[kept])  # after an iteration there is one

        return follow(self.ranks, self.prepared_for, train)

    def train(
        self, ready: Prepared, folder: RunFolder | None, order: Order, *, noting: Sequence[Callback] = ()
    ) -> Model:
        """Train from a fresh Θ, from another or from a checkpoint, keeping the folder if there is one.

        Args:
            noting: called after each iteration, before the user's own.
        """
        resumed, initial, stop = order.resumed, order.initial, self.stop
        fresh = ready.network.initial_Theta(ready.job.seed) if initial is None else checked(ready.network, initial)
        job, optimizer = ready.job, ready.optimizer
        if stop is not None and folder is not None:
            stop.last_rites = partial(_remove_temporaries, folder.path)
        with Recorder(ready, folder, resumed) as recorder:
            ready.lowest_validation = recorder.lowest_validation
            if self.prepared:
                self.prepared(ready)
            begin: Any = fresh
            if resumed is not None:
                at_once = ready.objective.vectors is not None  # a device has them whole
                begin = received(self.ranks, saved_state(resumed), order.apart, at_once=at_once)

            def began(state: State) -> None:
                if resumed is not None:
                    for saved in (begin, resumed.state):
                        saved.clear()  # the optimizer has it now: it would be in memory twice
                recorder.begin(state)

            try:
                ending, state = fit(
                    ready.objective,
                    optimizer,
                    begin,
                    iterations=job.iterations,
                    callbacks=[recorder.note, *noting, *self.callbacks],
                    stop=stop,
                    seconds=recorder.seconds,
                    ready=began,
                    climb=recorder.climb if job.climb else None,
                    watch=recorder.watch,
                )
            except (BackendError, CommunicatorError, DataError, MemoryError) as error:
                recorder.interrupted(error)
                raise
            history = recorder.history
            ending = replace(ending, reason=ending.reason + _climbs(job.precision, history, ready.objective.precision))
            if state is None:
                return ready.model(fresh, history=history, ending=asdict(ending))
            ending = replace(ending, reason=ending.reason + _kept(recorder.watch, state, ending))
            with self.ranks.together():  # nobody leaves before the last checkpoint is safe
                recorder.end(state, ending)
            self.ranks.kept = lambda: ""  # nothing is left to be gone on with
            Theta = np.array(recorder.watch.Theta_on_host(state))
            return ready.model(Theta, history=history, ending=asdict(ending), reached=recorder.reached(state))


def _remove_temporaries(folder: Path) -> None:
    """Remove the files that this process has begun and will not bring to an end."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(f".tmp.{os.getpid()}"):
            (folder / name).unlink(missing_ok=True)


def checked(network: Network, Theta: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """A flat Θ to begin from, (P,) float64, out of one or of Ng's matrices.

    Raises:
        UsageError: it does not fit the network, or a number in it is not finite.
    """
    given = Theta if isinstance(Theta, np.ndarray) else network.pack(Theta)
    if given.shape != (network.P,) or given.dtype.kind not in "fiu":
        raise UsageError(
            f"an initial Theta of shape {given.shape}, {given.dtype}",
            wanted=f"({network.P},) numbers for the network {'-'.join(map(str, network.sizes))}",
            do="take the Theta of a model of the same network",
        )
    if not np.isfinite(given).all():
        raise UsageError("an initial Theta with numbers that are not finite", wanted="finite numbers")
    return network.pack(network.unpack(given.astype(np.float64)))  # the gaps between layers are zero


def _kept(watch: Watch, state: State, ending: Ending) -> str:
    """Which Θ early stopping has kept, where it is not the last one and the reason does not say so already."""
    if watch.Theta is None or ending.kind == "early" or watch.iteration == state.iteration:
        return ""
    return f"; Θ is that of iteration {watch.iteration}, validation cost {watch.validation:.6g}"


def _climbs(first: str, history: list[dict[str, Any]], last: str) -> str:
    """Where a run went on at another precision, to be added to the reason why it ended; "" if nowhere."""
    done = history[-1]["iteration"] if history else 0
    path = [(0, first), *((row["iteration"], row["precision"]) for row in history), (done, last)]
    steps = [f"from {a} to {b} at iteration {at}" for (at, a), (_, b) in pairwise(path) if a != b]
    return f"; climbed {', '.join(steps)}" if steps else ""
