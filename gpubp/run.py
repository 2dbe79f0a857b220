"""A run: from what was asked to a trained model in a folder.

`start` begins one, `resume` goes on with it; both keep the folder: checkpoints and a history. The job is stored in each
checkpoint, so `resume` needs nothing but the folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .backend import choose
from .checkpoint import Checkpoint
from .data.dataset import Dataset
from .data.scaling import Scaling
from .data.several import Paths, files
from .data.targets import TargetSpec
from .errors import BackendError, DataError, MismatchError, UsageError
from .inference import Model
from .job import Job, interval
from .network import Network
from .objective import Objective
from .optimizers import Ending, State
from .precision import finer, with_bits
from .precision import precision as precision_of
from .prepare import Prepared, prepare
from .run_folder import RunFolder, find_checkpoint
from .training import Callback, Progress, StopRequest, fit

log = logging.getLogger("gpubp")


def start(
    job: Job,
    out: str | Path | None,
    *,
    dataset: Dataset | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    prepared: Callable[[Prepared], None] | None = None,
    scanned: Callable[[int, int], None] | None = None,
    initial: np.ndarray | None = None,
) -> Model:
    """Train from a fresh Θ, or from `initial`, the flat (P,) Θ of another model of the same network (a warm start);
    with `out`, into that run folder.

    Raises:
        GpubpError: before anything is written, for a bad job, bad data, an initial Θ that does not fit, or a folder
            that holds a run already.
    """
    job = _placed(job)
    if out is None:
        with closing(prepare(job, dataset, scanned=scanned)) as ready:
            return _train(ready, None, None, callbacks, stop, prepared, initial)
    RunFolder.check(out, overwrite=overwrite)
    with closing(prepare(job, dataset, scanned=scanned)) as ready, RunFolder(out) as folder:
        folder.refuse_if_used(overwrite)
        return _train(ready, folder, None, callbacks, stop, prepared, initial)


def resume(
    out: str | Path,
    *,
    iterations: int | None = None,
    data: Paths | None = None,
    memory: int | None = None,
    threads: int | None = None,
    climb: bool | None = None,
    dataset: Dataset | None = None,
    inexact: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    prepared: Callable[[Prepared], None] | None = None,
    scanned: Callable[[int, int], None] | None = None,
) -> Model:
    """Go on with the newest sound checkpoint of a run folder, to the same bits an undisturbed run has.

    Args:
        iterations: a new limit, counted from the beginning of the run.
        data: where the data file is now, or the files in their order, if they were moved.
        memory: another budget for rows kept in memory.
        threads: the most threads of the CPU; by default all cores it may, whatever the run had.
        climb: from now on, whether it goes on at the next finer precision where it stalls.
        inexact: go on although conditions differ on which the bits depend.

    Raises:
        MismatchError: other data; or other conditions and not `inexact`: the message names each.
    """
    with RunFolder(out, must_exist=True) as folder:
        path, checkpoint, rejected = folder.newest()
        for bad, reason in rejected:
            log.warning("%s is damaged and was passed over: %s", bad.name, reason)
        settings = dict(checkpoint.optimizer)
        changes: dict[str, Any] = {"optimizer": settings.pop("name"), "options": settings}
        changes |= {} if iterations is None else {"iterations": iterations}
        changes |= {} if data is None else {"data": data}
        changes |= {} if memory is None else {"memory": memory}
        changes |= {} if climb is None else {"climb": climb}
        changes["threads"] = threads
        reached = str(checkpoint.conditions.get("precision"))
        job, precision = _with_an_engine(replace(Job.from_dict(checkpoint.job), **changes), reached, inexact)
        if job.iterations < checkpoint.iteration:
            raise UsageError(
                f"{job.iterations} iterations where {checkpoint.iteration} are done", wanted="a limit beyond them"
            )
        if dataset is None and not job.data:
            raise UsageError(
                f"{out} was trained on arrays, not on a file", do="resume it from Python with the same arrays"
            )
        gone = [] if dataset is not None or data is not None else [f for f in job.files if not os.path.exists(f)]
        if gone:
            do = "name the moved file with --data"
            raise DataError(f"{gone[0]}, which {out} was trained on, is not there", do=do)
        job = _placed(job)
        model = model_from(checkpoint)
        kept = {"scaling": model.scaling, "targets": model.targets, "fill": model.fill}
        with closing(prepare(job, dataset, **kept, precision=precision, scanned=scanned)) as ready:
            _refuse_other_data(ready, checkpoint, path)
            _compare_conditions(ready, checkpoint, inexact)
            log.info("going on from %s, iteration %d", path.name, checkpoint.iteration)
            return _train(ready, folder, checkpoint, callbacks, stop, prepared)


def _placed(job: Job) -> Job:
    """The job with the files that are meant now, by whole paths: a resume may come later and from another folder."""
    if job.allow is not None:
        job = replace(job, allow=os.path.abspath(job.allow))
    return replace(job, data=tuple(map(os.path.abspath, files(job.data)))) if job.data else job


def _with_an_engine(job: Job, had: str, inexact: bool) -> tuple[Job, str]:
    """The job and the precision it had reached where this machine has its kernel, its BLAS and that precision; else,
    inexactly, with those that are here, and the next finer precision."""
    try:
        backend, _ = choose(job.backend, device=job.device, kernel=job.kernel, blas=job.blas)
    except BackendError as error:
        if job.kernel == "auto" and job.blas == "auto":
            raise
        if not inexact:
            found = f"the run's kernel is {job.kernel}, its BLAS {job.blas}, and here is {error.found}"
            do = "install what is missing, or add --inexact to go on with what is here"
            raise MismatchError(found, do=do) from None
        log.warning("going on with another kernel or BLAS than the run had: here is %s", error.found)
        return _with_an_engine(replace(job, kernel="auto", blas="auto"), had, inexact)
    if had in backend.precisions:
        return job, had
    here, other = f"the {backend.kind.upper()} here does not have", finer(had, backend.precisions)
    if not inexact or other is None:
        do = f"go on where the run was, or add --inexact to go on at {other}"
        raise MismatchError(f"the run is at {had}, which {here}", do=do)
    log.warning("going on at %s: %s %s", other, here, had)
    return job, other


def load(path: str | Path) -> Model:
    """The model of a run folder (its newest sound checkpoint) or of a checkpoint file.

    Raises:
        CheckpointError: nothing there that can be read; the message says why for each file tried.
    """
    _, checkpoint, rejected = find_checkpoint(path)
    for bad, reason in rejected:
        log.warning("%s is damaged and was passed over: %s", bad.name, reason)
    return model_from(checkpoint)


def model_from(checkpoint: Checkpoint) -> Model:
    """The model that a checkpoint holds."""
    network = Network(tuple(checkpoint.network["sizes"]), checkpoint.network["activation"], checkpoint.network["cost"])
    scaling = dict(checkpoint.scaling)
    fill = scaling.pop(FILL, None)
    return Model(
        network,
        network.pack(checkpoint.Theta),
        Scaling(**scaling),
        TargetSpec.from_dict(checkpoint.targets),
        checkpoint.lambda_,
        job=dict(checkpoint.job),
        history=_history_rows(checkpoint),
        ending=checkpoint.ending,
        fill=fill,
    )


FILL = "fill"  # beside the scaling in a checkpoint: what missing values are replaced by, if they are
_COLUMNS = tuple(f.name for f in fields(Progress))


def _train(
    ready: Prepared,
    folder: RunFolder | None,
    resumed: Checkpoint | None,
    callbacks: Sequence[Callback],
    stop: StopRequest | None,
    prepared: Callable[[Prepared], None] | None,
    initial: np.ndarray | None = None,
) -> Model:
    """Train from a fresh Θ, from another or from a checkpoint, keeping the folder if there is one."""
    fresh = ready.network.initial_Theta(ready.job.seed) if initial is None else checked(ready.network, initial)
    job, optimizer = ready.job, ready.optimizer
    if prepared:
        prepared(ready)
    history = _history_rows(resumed) if resumed else []
    every_seconds, every_iterations = interval(job.checkpoint_every)
    saved_at = time.monotonic()

    def record(state: State, ending: Ending | None) -> Checkpoint:
        return Checkpoint(
            Theta=tuple(ready.network.unpack(state.Theta_on_host)),
            network={
                "sizes": list(ready.network.sizes),
                "activation": ready.network.activation,
                "cost": ready.network.cost,
            },
            optimizer={"name": job.optimizer, **asdict(optimizer)},
            state=state.saved(),
            lambda_=job.lambda_,
            scaling=asdict(ready.rows.scaling) | ({} if ready.fill is None else {FILL: ready.fill}),
            targets=asdict(ready.targets),
            history=np.array([[_number(row[c]) for c in _COLUMNS] for row in history]).reshape(-1, len(_COLUMNS)),
            history_columns=_COLUMNS,
            conditions=_conditions(ready),
            job={**asdict(job), "hidden": list(job.hidden)},
            iteration=state.iteration,
            ending=None if ending is None else asdict(ending),
        )

    latest: State | None = None
    climbed_at = -1  # evaluations: until the next one the state belongs to the precision before

    def climb(precision: str) -> Objective:
        nonlocal climbed_at
        climbed_at = latest.evaluations if latest else -1
        return ready.at(precision)

    def begin(state: State) -> None:
        nonlocal latest
        latest = state
        # the first checkpoint is the first thing a run leaves: a kill at any time can be resumed, and where an earlier
        # run is replaced, nothing of it goes before this one is safe
        if folder is not None:
            if resumed is None:
                folder.save(record(state, None), keep=job.keep)
            folder.rewrite_history(history)

    def note(progress: Progress, state: State) -> None:
        nonlocal saved_at
        history.append(progress.asdict())
        if folder is None:
            return
        folder.append_history(history[-1])
        due = time.monotonic() - saved_at >= every_seconds if every_seconds else state.iteration % every_iterations == 0
        if due:
            folder.save(record(state, None), keep=job.keep)
            saved_at = time.monotonic()

    try:
        ending, state = fit(
            ready.objective,
            optimizer,
            resumed.state if resumed else fresh,
            iterations=job.iterations,
            callbacks=[note, *callbacks],
            stop=stop,
            seconds=float(history[-1]["seconds"]) if history else 0.0,
            ready=begin,
            climb=climb if job.climb else None,
        )
    except DataError:
        # rows that cannot be read any more, or a file that changed: what was reached on good rows is kept. A step
        # commits last, so the state is that of the step before.
        if latest is not None and folder is not None and latest.evaluations != climbed_at:
            folder.save(record(latest, None), keep=job.keep)
        raise
    ending = replace(ending, reason=ending.reason + _climbs(job.precision, history, ready.objective.precision))
    if state is not None and folder is not None:
        folder.save(record(state, ending), keep=job.keep)
    Theta = fresh if state is None else np.array(state.Theta_on_host)
    return ready.model(Theta, history=history, ending=asdict(ending))


def checked(network: Network, Theta: np.ndarray) -> np.ndarray:
    """A flat Θ to begin from, (P,) float64.

    Raises:
        UsageError: it does not fit the network, or a number in it is not finite.
    """
    given = np.asarray(Theta)
    if given.shape != (network.P,) or given.dtype.kind not in "fiu":
        raise UsageError(
            f"an initial Theta of shape {given.shape}, {given.dtype}",
            wanted=f"({network.P},) numbers for the network {'-'.join(map(str, network.sizes))}",
            do="take the Theta of a model of the same network",
        )
    if not np.isfinite(given).all():
        raise UsageError("an initial Theta with numbers that are not finite", wanted="finite numbers")
    return network.pack(network.unpack(given.astype(np.float64)))  # the gaps between layers are zero


def _climbs(first: str, history: list[dict[str, Any]], last: str) -> str:
    """Where a run went on at another precision, to be added to the reason why it ended; "" if nowhere."""
    done = history[-1]["iteration"] if history else 0
    path = [(0, first), *((row["iteration"], row["precision"]) for row in history), (done, last)]
    steps = [f"from {a} to {b} at iteration {at}" for (at, a), (_, b) in pairwise(path) if a != b]
    return f"; climbed {', '.join(steps)}" if steps else ""


def _number(value: float | str | None) -> float:
    if isinstance(value, str):
        return precision_of(value).bits  # the one column of words, as a number that stays true
    return float("nan") if value is None else float(value)


def _history_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The table of a checkpoint as records, with whole numbers whole and NaN as None."""
    rows = []
    for line in checkpoint.history.tolist():
        found = dict(zip(checkpoint.history_columns, line, strict=True))
        row: dict[str, Any] = {name: found.get(name, float("nan")) for name in _COLUMNS}
        row["iteration"], row["evaluations"] = int(row["iteration"]), int(row["evaluations"])
        row["validation"] = None if row["validation"] != row["validation"] else row["validation"]
        row["precision"] = with_bits(row["precision"]) or str(checkpoint.conditions.get("precision"))
        rows.append(row)
    return rows


def _conditions(ready: Prepared) -> dict[str, Any]:
    """What the bits of the run depend on."""
    return {"gpubp": __version__, **ready.objective.conditions(), "data": ready.fingerprint}


def _refuse_other_data(ready: Prepared, checkpoint: Checkpoint, path: Path) -> None:
    if ready.fingerprint != checkpoint.conditions.get("data"):
        raise MismatchError(
            f"{ready.dataset.path or 'the arrays'}: not the data that {path} was trained on",
            wanted="the same rows, labels and weights",
            do="name the right file with --data, or begin a new run with gpubp train",
        )


def _compare_conditions(ready: Prepared, checkpoint: Checkpoint, inexact: bool) -> None:
    now = _conditions(ready)
    before = checkpoint.conditions
    differ = [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted({*now, *before})
        if before.get(name) != now.get(name)
    ]
    if not differ:
        return
    if not inexact:
        raise MismatchError(
            "the bits would differ from an undisturbed run's: " + "; ".join(differ),
            do="add --inexact to go on all the same",
        )
    log.warning("going on although conditions differ: %s", "; ".join(differ))
