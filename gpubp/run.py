"""A run: from what was asked to a trained model in a folder.

`start` begins one, `resume` goes on with it; both keep the folder: checkpoints and a history. The job is stored in each
checkpoint, so `resume` needs nothing but the folder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .data.dataset import Dataset
from .data.scaling import Scaling
from .data.targets import TargetSpec
from .errors import MismatchError, UsageError
from .inference import Model
from .job import Job, interval
from .network import Network
from .optimizers import Ending, State
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
) -> Model:
    """Train from a fresh Θ; with `out`, into that run folder.

    Raises:
        GpubpError: before anything is written, for a bad job, bad data, or a folder that holds a run already.
    """
    if out is None:
        ready = prepare(job, dataset, scanned=scanned)
        return _train(ready, None, ready.network.initial_Theta(job.seed), callbacks, stop, prepared)
    RunFolder.check(out, overwrite=overwrite)
    ready = prepare(job, dataset, scanned=scanned)
    with RunFolder(out) as folder:
        folder.refuse_if_used(overwrite)
        folder.rewrite_history([])
        return _train(ready, folder, ready.network.initial_Theta(job.seed), callbacks, stop, prepared)


def resume(
    out: str | Path,
    *,
    iterations: int | None = None,
    data: str | None = None,
    memory: int | None = None,
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
        data: where the data file is now, if it was moved.
        memory: another budget for rows kept in memory.
        inexact: go on although conditions differ on which the bits depend.

    Raises:
        MismatchError: other data; or other conditions and not `inexact`: the message names each.
    """
    with RunFolder(out, must_exist=True) as folder:
        path, checkpoint, rejected = folder.newest()
        for bad, reason in rejected:
            log.warning("%s is damaged and was passed over: %s", bad.name, reason)
        job = Job.from_dict(checkpoint.job)
        changes: dict[str, Any] = {}
        if iterations is not None:
            changes["iterations"] = iterations
        if data is not None:
            changes["data"] = data
        if memory is not None:
            changes["memory"] = memory
        job = replace(job, **changes)
        if not job.data and dataset is None:
            raise UsageError(
                f"{out} was trained on arrays, not on a file", do="resume it from Python with the same arrays"
            )
        model = model_from(checkpoint)
        ready = prepare(job, dataset, scaling=model.scaling, targets=model.targets, scanned=scanned)
        _refuse_other_data(ready, checkpoint, path)
        _compare_conditions(ready, checkpoint, inexact)
        log.info("going on from %s, iteration %d", path.name, checkpoint.iteration)
        return _train(ready, folder, checkpoint, callbacks, stop, prepared)


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
    return Model(
        network,
        network.pack(checkpoint.Theta),
        Scaling(**checkpoint.scaling),
        TargetSpec.from_dict(checkpoint.targets),
        checkpoint.lambda_,
        job=dict(checkpoint.job),
        history=_history_rows(checkpoint.history),
        ending=checkpoint.ending,
    )


_COLUMNS = tuple(f.name for f in fields(Progress))


def _train(
    ready: Prepared,
    folder: RunFolder | None,
    begin: np.ndarray | Checkpoint,
    callbacks: Sequence[Callback],
    stop: StopRequest | None,
    prepared: Callable[[Prepared], None] | None,
) -> Model:
    job, optimizer = ready.job, ready.optimizer
    if prepared:
        prepared(ready)
    resumed = begin if isinstance(begin, Checkpoint) else None
    history = _history_rows(resumed.history) if resumed else []
    if folder and resumed:
        folder.rewrite_history(history)
    every_seconds, every_iterations = interval(job.checkpoint_every)
    saved_at = time.monotonic()
    saved_iteration = resumed.iteration if resumed else -1

    def record(state: State, ending: Ending | None) -> Checkpoint:
        return Checkpoint(
            Theta=tuple(ready.network.unpack(state.Theta)),
            network={
                "sizes": list(ready.network.sizes),
                "activation": ready.network.activation,
                "cost": ready.network.cost,
            },
            optimizer={"name": job.optimizer, **asdict(optimizer)},
            state=state.saved(),
            lambda_=job.lambda_,
            scaling=asdict(ready.rows.scaling),
            targets=asdict(ready.targets),
            history=np.array([[_number(row[c]) for c in _COLUMNS] for row in history]).reshape(-1, len(_COLUMNS)),
            history_columns=_COLUMNS,
            conditions={**ready.objective.conditions(), "data": ready.fingerprint},
            job={**asdict(job), "hidden": list(job.hidden)},
            iteration=state.iteration,
            ending=None if ending is None else asdict(ending),
        )

    def note(progress: Progress, state: State) -> None:
        nonlocal saved_at, saved_iteration
        history.append(progress.asdict())
        if folder is None:
            return
        folder.append_history(history[-1])
        due = time.monotonic() - saved_at >= every_seconds if every_seconds else state.iteration % every_iterations == 0
        if due:
            folder.save(record(state, None), keep=job.keep)
            saved_at, saved_iteration = time.monotonic(), state.iteration

    try:
        ending, state = fit(
            ready.objective,
            optimizer,
            resumed.state if resumed else begin,  # pyright: ignore[reportArgumentType]
            iterations=job.iterations,
            callbacks=[note, *callbacks],
            stop=stop,
            seconds=float(history[-1]["seconds"]) if history else 0.0,
        )
        if state is not None and folder is not None:
            folder.save(record(state, ending), keep=job.keep)
    finally:
        ready.close()
    Theta = state.Theta if state is not None else ready.network.initial_Theta(job.seed)
    return ready.model(np.array(Theta), history=history, ending=asdict(ending))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _history_rows(history: np.ndarray) -> list[dict[str, Any]]:
    """The table of a checkpoint as records, with whole numbers whole and NaN as None."""
    rows = []
    for line in history.tolist():
        row = dict(zip(_COLUMNS, line, strict=True))
        row["iteration"], row["evaluations"] = int(row["iteration"]), int(row["evaluations"])
        row["validation"] = None if row["validation"] != row["validation"] else row["validation"]
        rows.append(row)
    return rows


def _refuse_other_data(ready: Prepared, checkpoint: Checkpoint, path: Path) -> None:
    if ready.fingerprint != checkpoint.conditions.get("data"):
        raise MismatchError(
            f"{ready.dataset.path or 'the arrays'}: not the data that {path} was trained on",
            wanted="the same rows, labels and weights",
            do="name the right file with --data, or begin a new run with gpubp train",
        )


def _compare_conditions(ready: Prepared, checkpoint: Checkpoint, inexact: bool) -> None:
    now = {**ready.objective.conditions(), "data": ready.fingerprint}
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
