"""A run: from what was asked to a trained model in a folder.

`start` begins one, `resume` goes on with it; both keep the folder: checkpoints and a history. The job is stored in each
checkpoint, so `resume` needs nothing but the folder.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from os.path import exists
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .communicator import current
from .data.dataset import Dataset
from .data.several import Paths, files
from .errors import DataError, UsageError
from .gathering import apart
from .going_on import (
    changed_limits,
    compare_conditions,
    job_going_on,
    new_limits,
    over,
    refuse_left_behind,
    refuse_other_data,
    refuse_other_job,
    with_an_engine,
)
from .inference import Model
from .job import Job, digest
from .leading import Lead, Order
from .loading import as_gpubp_writes, model_from, warn_of_damaged
from .prepare import Prepared
from .recording import history_rows
from .run_folder import Found, RunFolder, checkpoints, find_checkpoint, temporaries
from .sitting import Sitting, checked
from .training import Callback, StopRequest

log = logging.getLogger("gpubp")


def start(
    job: Job,
    out: str | Path | None,
    *,
    dataset: Dataset | None = None,
    overwrite: bool = False,
    resume: str = "never",
    inexact: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    prepared: Callable[[Prepared], None] | None = None,
    scanned: Callable[[int, int], None] | None = None,
    initial: np.ndarray | Sequence[np.ndarray] | None = None,
) -> Model:
    """Train from a fresh Θ, or from `initial` (a warm start); with `out`, into that run folder.

    Args:
        initial: the flat (P,) Θ of another model of the same network, or its matrices Θ^(1) … Θ^(L−1). Of matrices the
            run keeps a digest, so that "auto" can tell one Θ from another.
        resume: "auto": where the folder holds a run, go on with it, if it is this very job's, and do nothing if it has
            ended and this job does not extend it; "never": refuse such a folder.
        inexact: with "auto", go on although conditions differ on which the bits depend.

    Raises:
        GpubpError: before anything is written, for a bad job, bad data, an initial Θ that does not fit, or a folder
            that holds a run already: any, or with "auto" one of another job, of other data, or not sound.
        Stopped: someone asked to stop before there was anything to keep.
    """
    _refuse_unmeant(out, overwrite, resume, inexact, initial)
    if initial is not None and not isinstance(initial, np.ndarray):
        job = replace(job, start=digest(initial))
    job = _placed(job.as_asked())
    scanned = _unless_stopped(scanned, stop)
    sitting = Sitting(dataset, callbacks, stop, prepared, scanned, current())
    if out is None:
        order = Order(job, initial=initial)
        with sitting.prepared_for(order) as ready:
            return sitting.train(ready, None, order)
    if sitting.ranks.rank > 0:
        return sitting.follow(out)

    def as_asked(checkpoint: Checkpoint) -> tuple[Job, bool]:
        refuse_other_job(job, checkpoint, out)
        again = job_going_on(job, checkpoint)
        if not (done := over(again, checkpoint)):
            refuse_left_behind(new_limits(again, checkpoint), checkpoint)
        return again, done

    with Lead(sitting.ranks) as lead:
        if not (resume == "auto" and _holds_run(out)):
            RunFolder.check(out, overwrite=overwrite)
            order = Order(job, initial=initial)
            lead.tell(order)
            with sitting.prepared_for(order) as ready:
                lead.prepared()
                if initial is not None:
                    checked(ready.network, initial)  # before there is a folder
                with RunFolder(out) as folder:
                    holds = not (resume == "auto" and folder.checkpoints())  # else another trainer was here meanwhile
                    if holds:
                        folder.refuse_if_used(overwrite)
                    lead.tell(holds)
                    if holds:
                        return lead.trained(sitting.train(ready, folder, order))
            lead.prepared()
        return _go_on(lead, sitting, out, as_asked, inexact)


def resume(
    out: str | Path,
    *,
    iterations: int | None = None,
    data: Paths | None = None,
    memory: int | None = None,
    threads: int | None = None,
    climb: bool | None = None,
    checkpoint_every: str | None = None,
    keep: int | None = None,
    dataset: Dataset | None = None,
    inexact: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    prepared: Callable[[Prepared], None] | None = None,
    scanned: Callable[[int, int], None] | None = None,
    **limits: float | None,
) -> Model:
    """Go on with the newest sound checkpoint of a run folder, to the same bits an undisturbed run has.

    A run that has ended, and that nothing here extends, is left as it is, to the last byte.

    Args:
        iterations: a new limit, counted from the beginning of the run.
        data: where the data file is now, or the files in their order, if they were moved.
        memory: another budget for rows kept in memory.
        threads: the most threads of the CPU; by default all cores it may, whatever the run had.
        climb: from now on, whether it goes on at the next finer precision where it stalls.
        checkpoint_every, keep: from now on, how often checkpoints are written and how many stay.
        inexact: go on although conditions differ on which the bits depend.
        limits: other values, from now on, of the optimizer's `tolerance` and of what else ends the run, see
            `gpubp.stopping.Stopping`; None lifts one.

    Raises:
        UsageError: a limit that does not exist, cannot be meant, or was left behind.
        MismatchError: other data; or other conditions and not `inexact`: the message names each.
        Stopped: someone asked to stop while the data were read for the first time.
    """

    def as_asked(checkpoint: Checkpoint) -> tuple[Job, bool]:
        stored, settings = Job.from_dict(checkpoint.job), dict(checkpoint.optimizer)
        changes: dict[str, Any] = {"optimizer": settings.pop("name"), "options": settings, "threads": threads}
        given = {"iterations": iterations, "data": data, "memory": memory, "climb": climb, "keep": keep}
        given["checkpoint_every"] = checkpoint_every
        changes |= {name: value for name, value in given.items() if value is not None}
        changes |= changed_limits(limits, settings)
        job = replace(stored, **changes)
        refuse_left_behind({"iterations": iterations, **limits}, checkpoint)
        failed = checkpoint.ending is not None and checkpoint.ending["kind"] == "failed"  # may be tried again
        done = not failed and over(job, checkpoint, alike=True)
        gone = [] if done or dataset is not None or data is not None else [f for f in job.files if not exists(f)]
        if gone:
            do = "name the moved file with --data"
            raise DataError(f"{gone[0]}, which {out} was trained on, is not there", do=do)
        return job, done

    sitting = Sitting(dataset, callbacks, stop, prepared, _unless_stopped(scanned, stop), current())
    if sitting.ranks.rank > 0:
        return sitting.follow(out)
    with Lead(sitting.ranks) as lead:
        return _go_on(lead, sitting, out, as_asked, inexact)


def _holds_run(out: str | Path) -> bool:
    """Whether there are checkpoints in a folder, sound or not."""
    return os.path.isdir(out) and bool(RunFolder(out).checkpoints())


def _go_on(
    lead: Lead,
    sitting: Sitting,
    out: str | Path,
    as_asked: Callable[[Checkpoint], tuple[Job, bool]],
    inexact: bool,
) -> Model:
    """Go on with the newest sound checkpoint of a folder; where nothing is left to be done, write nothing.

    Args:
        as_asked: given the checkpoint, the run's job with what is to be another from now on, and whether the run has
            ended and that job does not extend it.
    """
    found, seen, dataset = None, _files_of(out), sitting.dataset
    if seen:  # looked at without the lock, which a trainer writes its name into
        found = find_checkpoint(out)
        with as_gpubp_writes(found.checkpoint):
            job, done = as_asked(found.checkpoint)
        if done and _needs_no_data(job, dataset, found) and _tells_all(out, found) and not temporaries(Path(out)):
            return _nothing_to_do(lead, out, found)
    with RunFolder(out, must_exist=True) as folder:
        if found is None or _files_of(out) != seen:
            found = folder.newest()
        path, checkpoint, _ = found
        model = model_from(checkpoint)
        with as_gpubp_writes(checkpoint):
            job, done = as_asked(checkpoint)
        if done and not _tells_all(out, found):  # a power cut can take lines that no checkpoint waited for
            folder.rewrite_history(history_rows(checkpoint))
        if done and _needs_no_data(job, dataset, found):
            return _nothing_to_do(lead, out, found)
        if dataset is None and not job.data:
            do = "resume it from Python with the same arrays"
            raise UsageError(f"{out} was trained on arrays, not on a file", do=do)
        job, precision = with_an_engine(job, str(checkpoint.conditions.get("precision")), inexact)
        job = _placed(job)
        kept = {"scaling": model.scaling, "targets": model.targets, "fill": model.fill}
        order = Order(job, {**kept, "precision": precision}, checkpoint, apart=apart(checkpoint))
        lead.tell(order)
        with sitting.prepared_for(order) as ready:
            lead.prepared()
            refuse_other_data(ready, checkpoint, path)
            if done:
                lead.tell(False)
                lead.prepared()
                return _nothing_to_do(lead, out, found)
            warn_of_damaged(found)
            compare_conditions(ready, checkpoint, inexact)
            log.info("going on from %s, iteration %d", path.name, checkpoint.iteration)
            if "mark" in checkpoint.stopping and job.patience is None:
                left = "early stopping is lifted: the Θ of iteration %d, validation cost %.6g, is kept no longer"
                log.warning(left, checkpoint.stopping["iteration"], checkpoint.stopping["validation"])
            lead.tell(True)
            return lead.trained(sitting.train(ready, folder, order))


def _files_of(out: str | Path) -> list[tuple[str, int, int]]:
    """The checkpoints of a folder, and what tells each from another of its name; [] where there are none."""
    if not _holds_run(out):
        return []
    with suppress(FileNotFoundError):  # a trainer at work removed one
        return [(path.name, (at := path.lstat()).st_ino, at.st_mtime_ns) for path in checkpoints(Path(out))]
    return []


def _nothing_to_do(lead: Lead, out: str | Path, found: Found) -> Model:
    warn_of_damaged(found)
    log.info("nothing to do: the run in %s has ended and nothing here extends it; its files stay as they are", out)
    model = model_from(found.checkpoint)
    lead.tell(model)
    return model


def _needs_no_data(job: Job, dataset: Dataset | None, found: Found) -> bool:
    """Whether the data are the run's own files. Others are read, to see whether they hold the same."""
    return dataset is None and bool(job.data) and job.data == Job.from_dict(found.checkpoint.job).data


def _tells_all(out: str | Path, found: Found) -> bool:
    """Whether the history beside a checkpoint has a line for each iteration."""
    try:
        lines = (Path(out) / "history.jsonl").read_bytes().count(b"\n")
    except OSError:
        return False
    return lines == len(found.checkpoint.history)


def _refuse_unmeant(
    out: str | Path | None,
    overwrite: bool,
    resume: str,
    inexact: bool,
    initial: np.ndarray | Sequence[np.ndarray] | None,
) -> None:
    """Refuse what does not go together."""
    if resume not in ("never", "auto"):
        raise UsageError(f"resume '{resume}'", wanted="never or auto")
    if resume == "auto":
        if out is None:
            raise UsageError("resume 'auto' without a run folder", wanted="out")
        if overwrite:
            raise UsageError("--resume auto and --overwrite", wanted="one of them: go on with a run, or replace it")
        if isinstance(initial, np.ndarray):
            raise UsageError("resume 'auto' beside an initial Theta that is flat", wanted="its matrices, or neither")
    elif inexact:
        raise UsageError("--inexact where nothing is resumed", wanted="--resume auto beside it")


def _unless_stopped(
    scanned: Callable[[int, int], None] | None, stop: StopRequest | None
) -> Callable[[int, int], None] | None:
    """What is told of the first reading of the data; it ends that where someone has asked to stop."""
    if stop is None:
        return scanned

    def told(done: int, total: int) -> None:
        stop.refuse("while the data were read for the first time")
        if scanned is not None:
            scanned(done, total)

    return told


def _placed(job: Job) -> Job:
    """The job with the files that are meant now, by whole paths: a resume may come later and from another folder."""
    if job.allow is not None:
        job = replace(job, allow=os.path.abspath(job.allow))
    return replace(job, data=tuple(map(os.path.abspath, files(job.data)))) if job.data else job
