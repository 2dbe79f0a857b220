"""Whether a run may go on as it is asked to, and whether anything is left of it to do.

Whoever goes on with a run promises the bits of an undisturbed one. So the job, the data and the conditions are compared
with those that the run began with, and what differs is refused by its name, all of it in one line.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from . import optimizers
from .backend import choose
from .checkpoint import Checkpoint
from .errors import BackendError, MismatchError, UsageError
from .job import CHANGES, Job, fixed
from .network import Network
from .optimizers import State
from .precision import LADDER, finer
from .prepare import Prepared
from .recording import conditions, history_rows
from .stopping import NAMES, Watch

log = logging.getLogger("gpubp")

_LIMITS = ("iterations", *NAMES)


def refuse_other_job(job: Job, checkpoint: Checkpoint, out: str | Path) -> None:
    """Refuse a job that is not the run's own, but for what may change.

    What was asked for is compared with what was asked for: "auto" is "auto", whatever it has become.

    Raises:
        MismatchError: the message names each difference.
    """
    stored = checkpoint.job
    noted = stored.get("asked") or {}  # a gpubp that made no note left what "auto" had become
    was = Job.from_dict({**stored, **noted})
    differ: list[str] = []
    for name in fixed():
        before, now = getattr(was, name), getattr(job, name)
        if name == "options":
            if was.optimizer == job.optimizer:
                made = [_settings(one) for one in (was, job)]
                differ += [_was(key, made[0][key], made[1][key]) for key in made[0] if made[0][key] != made[1][key]]
        elif before != now and (name in noted or now != "auto"):
            differ.append(_was(name, before, now))
    if differ:
        raise MismatchError(
            f"{out} holds another run: {'; '.join(differ)}",
            wanted="the run's own options",
            do="take those, name a new folder with --out, or begin anew with --overwrite",
        )


def job_going_on(job: Job, checkpoint: Checkpoint) -> Job:
    """The run's job with what may change as `job` has it, and with the optimizer's hyperparameters as they came out."""
    settings = dict(checkpoint.optimizer)
    del settings["name"]
    settings["tolerance"] = optimizers.make(job.optimizer, **job.options).tolerance
    return replace(
        Job.from_dict(checkpoint.job), options=settings, **{name: getattr(job, name) for name in CHANGES}
    )  # fmt: skip


def over(job: Job, checkpoint: Checkpoint, *, alike: bool = False) -> bool:
    """Whether a run that has ended has nothing left to do under the limits of this job, which is the run's but for what
    may change.

    A run that failed has nothing left under the same limits; it may be tried again under others.

    Args:
        alike: whether it must have ended as it would end now: a limit that is given to give the run another end counts.
    """
    kind = checkpoint.ending["kind"] if checkpoint.ending else "stopped"
    if kind == "stopped":
        return False
    was = Job.from_dict(checkpoint.job)
    tolerance = job.options["tolerance"]
    same = all(getattr(job, name) == getattr(was, name) for name in (*_LIMITS, "climb"))
    if same and tolerance == checkpoint.optimizer["tolerance"]:
        return True
    known: dict[str, Any] = dict(checkpoint.stopping)
    if ("mark" in known and job.patience is None) or (alike and was.patience is None and job.patience is not None):
        return False  # the Θ to keep is another from now on
    network, history = Network(**_layers(checkpoint)), history_rows(checkpoint)
    saved: dict[str, Any] = {"extra": 0.0, **checkpoint.state}
    known["Theta"] = network.pack(checkpoint.Theta)
    names = ("Theta", "gradient", "J", "iteration", "evaluations", "extra")
    state = State(**{name: saved[name] for name in names})
    watch = Watch(job.stopping, history, known)
    precision = str(checkpoint.conditions.get("precision"))
    watch.begin(state, precision, None)
    seconds = float(history[-1]["seconds"]) if history else 0.0
    optimizer = optimizers.make(job.optimizer, **job.options)
    ending = watch.ending(state, optimizer, job.iterations, seconds)
    if kind == "stalled" and not (job.climb and precision != LADDER[-1]):
        return ending is None or not alike
    return ending is not None and (ending.kind == kind or not alike)


def new_limits(job: Job, checkpoint: Checkpoint) -> dict[str, Any]:
    """The limits of the job that are not those of the run."""
    was = Job.from_dict(checkpoint.job)
    return {name: getattr(job, name) for name in _LIMITS if getattr(job, name) != getattr(was, name)}


def refuse_left_behind(limits: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Refuse a new limit that is less than what was used.

    Raises:
        UsageError: the limit, and what is done.
    """
    iterations = limits.get("iterations")
    if iterations is not None and iterations < checkpoint.iteration:
        raise UsageError(f"{iterations} iterations where {checkpoint.iteration} are done", wanted="a limit beyond them")
    done = history_rows(checkpoint)[-1:]
    for name in ("evaluations", "passes", "seconds"):
        limit = limits.get(name)
        if done and limit is not None and limit < done[0][name]:
            raise UsageError(f"{limit:g} {name} where {done[0][name]:.6g} are done", wanted="a limit beyond them")


def refuse_other_data(ready: Prepared, checkpoint: Checkpoint, path: Path) -> None:
    """Refuse rows, labels or weights that are not those of the run.

    Raises:
        MismatchError: they differ.
    """
    if ready.fingerprint == checkpoint.conditions.get("data"):
        return
    sizes, had = ready.network.sizes, tuple(checkpoint.network["sizes"])
    layers = f", whose network is {'-'.join(map(str, had))} and not {'-'.join(map(str, sizes))}" if sizes != had else ""
    raise MismatchError(
        f"{ready.dataset.path or 'the arrays'}: not the data that {path} was trained on{layers}",
        wanted="the same rows, labels and weights",
        do="name the right file with --data, or begin a new run with gpubp train",
    )


def compare_conditions(ready: Prepared, checkpoint: Checkpoint, inexact: bool) -> None:
    """Refuse what would give other bits, or with `inexact` warn of it. What an earlier gpubp did not note is not known
    to differ.

    Raises:
        MismatchError: the message names each condition that differs.
    """
    now = conditions(ready)
    before = checkpoint.conditions
    differ = [_was(name, before[name], now.get(name)) for name in sorted(before) if before[name] != now.get(name)]
    if not differ:
        return
    if not inexact:
        raise MismatchError(
            "the bits would differ from an undisturbed run's: " + "; ".join(differ),
            do="add --inexact to go on all the same",
        )
    log.warning("going on although conditions differ: %s", "; ".join(differ))


def changed_limits(limits: Mapping[str, float | None], options: dict[str, Any]) -> dict[str, Any]:
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


def with_an_engine(job: Job, had: str, inexact: bool) -> tuple[Job, str]:
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
        return with_an_engine(replace(job, kernel="auto", blas="auto"), had, inexact)
    if had in backend.precisions:
        return job, had
    here, other = f"the {backend.kind.upper()} here does not have", finer(had, backend.precisions)
    if not inexact or other is None:
        do = f"go on where the run was, or add --inexact to go on at {other}"
        raise MismatchError(f"the run is at {had}, which {here}", do=do)
    log.warning("going on at %s: %s %s", other, here, had)
    return job, other


def _layers(checkpoint: Checkpoint) -> dict[str, Any]:
    return {**checkpoint.network, "sizes": tuple(checkpoint.network["sizes"])}


def _settings(job: Job) -> dict[str, Any]:
    """The optimizer's hyperparameters, but for the one that may change."""
    return {name: value for name, value in asdict(optimizers.make(job.optimizer, **job.options)).items()
            if name != "tolerance"}  # fmt: skip


def _was(name: str, before: Any, now: Any) -> str:
    return f"{name.rstrip('_')} was {_shown(before)}, is {_shown(now)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ",".join(f"{key}={number}" for key, number in value.items())
    return "none" if value is None else str(value)
