"""A run: from what was asked to a trained model in a folder.

`start` begins one, `resume` goes on with it; both keep the folder: checkpoints and a history. The job is stored in each
checkpoint, so `resume` needs nothing but the folder.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .backend import choose
from .checkpoint import Checkpoint
from .data.dataset import Dataset
from .data.scaling import KINDS, Scaling
from .data.several import Paths, files
from .data.targets import TargetSpec
from .errors import BackendError, CheckpointError, DataError, MismatchError, UsageError
from .inference import Model
from .job import Job
from .network import Network
from .optimizers import Ending, State
from .precision import finer
from .prepare import Prepared, prepare
from .recording import FILL, Recorder, conditions, history_rows, reached
from .run_folder import RunFolder, find_checkpoint
from .stopping import NAMES, Watch
from .training import Callback, StopRequest, fit

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
    **limits: float | None,
) -> Model:
    """Go on with the newest sound checkpoint of a run folder, to the same bits an undisturbed run has.

    Args:
        iterations: a new limit, counted from the beginning of the run.
        data: where the data file is now, or the files in their order, if they were moved.
        memory: another budget for rows kept in memory.
        threads: the most threads of the CPU; by default all cores it may, whatever the run had.
        climb: from now on, whether it goes on at the next finer precision where it stalls.
        inexact: go on although conditions differ on which the bits depend.
        limits: other values, from now on, of the optimizer's `tolerance` and of what else ends the run, see
            `gpubp.stopping.Stopping`; None lifts one.

    Raises:
        UsageError: a limit that does not exist, cannot be meant, or was left behind.
        MismatchError: other data; or other conditions and not `inexact`: the message names each.
    """
    with RunFolder(out, must_exist=True) as folder:
        path, checkpoint, rejected = folder.newest()
        for bad, reason in rejected:
            log.warning("%s is damaged and was passed over: %s", bad.name, reason)
        model = model_from(checkpoint)
        with _as_gpubp_writes(checkpoint):
            stored, settings = Job.from_dict(checkpoint.job), dict(checkpoint.optimizer)
            changes: dict[str, Any] = {"optimizer": settings.pop("name"), "options": settings}
        changes |= {} if iterations is None else {"iterations": iterations}
        changes |= {} if data is None else {"data": data}
        changes |= {} if memory is None else {"memory": memory}
        changes |= {} if climb is None else {"climb": climb}
        changes["threads"] = threads
        changes |= _limits(limits, settings)
        reached = str(checkpoint.conditions.get("precision"))
        job, precision = _with_an_engine(replace(stored, **changes), reached, inexact)
        if job.iterations < checkpoint.iteration:
            raise UsageError(
                f"{job.iterations} iterations where {checkpoint.iteration} are done", wanted="a limit beyond them"
            )
        _refuse_left_behind(limits, checkpoint)
        if dataset is None and not job.data:
            raise UsageError(
                f"{out} was trained on arrays, not on a file", do="resume it from Python with the same arrays"
            )
        gone = [] if dataset is not None or data is not None else [f for f in job.files if not os.path.exists(f)]
        if gone:
            do = "name the moved file with --data"
            raise DataError(f"{gone[0]}, which {out} was trained on, is not there", do=do)
        job = _placed(job)
        kept = {"scaling": model.scaling, "targets": model.targets, "fill": model.fill}
        with closing(prepare(job, dataset, **kept, precision=precision, scanned=scanned)) as ready:
            _refuse_other_data(ready, checkpoint, path)
            _compare_conditions(ready, checkpoint, inexact)
            log.info("going on from %s, iteration %d", path.name, checkpoint.iteration)
            if checkpoint.stopping and job.patience is None:
                left = "early stopping is lifted: the Θ of iteration %d, validation cost %.6g, is kept no longer"
                log.warning(left, checkpoint.stopping["iteration"], checkpoint.stopping["validation"])
            return _train(ready, folder, checkpoint, callbacks, stop, prepared)


def _limits(limits: Mapping[str, float | None], options: dict[str, Any]) -> dict[str, Any]:
    """The job's fields that these change; the tolerance changes the optimizer's options."""
    known = ["tolerance", *NAMES]
    if unknown := set(limits) - set(known):
        raise UsageError(f"limit {', '.join(sorted(unknown))}", wanted=f"one of {', '.join(known)}")
    changes = dict(limits)
    if "tolerance" in changes:
        tolerance = changes.pop("tolerance")
        options["tolerance"] = 0.0 if tolerance is None else tolerance
    if changes.get("min_delta", 0.0) is None or ("patience" in changes and changes["patience"] is None):
        changes["min_delta"] = 0.0
    return changes


def _refuse_left_behind(limits: Mapping[str, float | None], checkpoint: Checkpoint) -> None:
    """Refuse a new budget that is less than what was used."""
    done = history_rows(checkpoint)[-1:]
    for name, unit in (("evaluations", "evaluations"), ("passes", "passes"), ("seconds", "seconds")):
        limit = limits.get(name)
        if done and limit is not None and limit < done[0][name]:
            raise UsageError(f"{limit:g} {unit} where {done[0][name]:.6g} are done", wanted="a limit beyond them")


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
    """The model that a checkpoint holds.

    Raises:
        CheckpointError: its parts are none of ours, or do not go together.
    """
    with _as_gpubp_writes(checkpoint):
        return _model_from(checkpoint)


@contextmanager
def _as_gpubp_writes(checkpoint: Checkpoint) -> Iterator[None]:
    """Inside, what Python says of words and numbers that no gpubp has written into a checkpoint becomes one line."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        found = f"the checkpoint of iteration {checkpoint.iteration} is sound, but nothing that gpubp wrote: {why:.200}"
        raise CheckpointError(found, do="take another one") from error


def _model_from(checkpoint: Checkpoint) -> Model:
    Job.from_dict(checkpoint.job)  # commands read single words of it
    network = Network(tuple(checkpoint.network["sizes"]), checkpoint.network["activation"], checkpoint.network["cost"])
    scaling = dict(checkpoint.scaling)
    fill = scaling.pop(FILL, None)
    if scaling["kind"] not in KINDS[1:]:  # "auto" was one of the others by then
        raise ValueError(f"scaling '{scaling['kind']}'")
    for name, value in {**scaling, FILL: fill}.items():
        fits = isinstance(value, np.ndarray) and (value.shape, value.dtype) == (network.sizes[:1], np.float64)
        if name != "kind" and value is not None and not fits:
            raise ValueError(f"leaf 'scaling/{name}' has not one float64 for each feature")
    history = history_rows(checkpoint)
    return Model(
        network,
        network.pack(checkpoint.Theta),
        Scaling(**scaling),
        TargetSpec.from_dict(checkpoint.targets),
        checkpoint.lambda_,
        job=dict(checkpoint.job),
        history=history,
        ending=checkpoint.ending,
        fill=fill,
        reached=reached(history, checkpoint.stopping),
    )


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
    with closing(Recorder(ready, folder, resumed)) as recorder:
        ready.lowest_validation = recorder.lowest_validation
        if prepared:
            prepared(ready)
        begin: Any = fresh if resumed is None else _saved(resumed)

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
                callbacks=[recorder.note, *callbacks],
                stop=stop,
                seconds=recorder.seconds,
                ready=began,
                climb=recorder.climb if job.climb else None,
                watch=recorder.watch,
            )
        except (BackendError, DataError, MemoryError) as error:
            recorder.interrupted(error)
            raise
        history = recorder.history
        ending = replace(ending, reason=ending.reason + _climbs(job.precision, history, ready.objective.precision))
        if state is None:
            return ready.model(fresh, history=history, ending=asdict(ending))
        ending = replace(ending, reason=ending.reason + _kept(recorder.watch, state, ending))
        recorder.end(state, ending)
        Theta = np.array(recorder.watch.Theta_on_host(state))
        return ready.model(Theta, history=history, ending=asdict(ending), reached=recorder.reached(state))


def _saved(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the optimizer saved, as it saves it now. Before passes were counted there were evaluations only,
    gd kept no best Θ, and the very first rings of pairs were saved with their empty rows."""
    state = dict(checkpoint.state)
    if "passes" in checkpoint.history_columns:
        return state
    earlier: dict[str, Any] = {"extra": 0.0}
    if checkpoint.optimizer.get("name") == "gd":
        earlier |= {"earlier_J": math.inf, "earlier_Theta": np.zeros_like(state.get("Theta", 0.0))}
    for name in ("S", "Y"):
        if isinstance(ring := state.get(name), np.ndarray) and type(pairs := state.get("pairs")) is int:
            state[name] = ring[: max(0, pairs)]
    return {**earlier, **state}


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


def _refuse_other_data(ready: Prepared, checkpoint: Checkpoint, path: Path) -> None:
    if ready.fingerprint != checkpoint.conditions.get("data"):
        raise MismatchError(
            f"{ready.dataset.path or 'the arrays'}: not the data that {path} was trained on",
            wanted="the same rows, labels and weights",
            do="name the right file with --data, or begin a new run with gpubp train",
        )


def _compare_conditions(ready: Prepared, checkpoint: Checkpoint, inexact: bool) -> None:
    now = conditions(ready)
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
