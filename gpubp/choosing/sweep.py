"""A validation curve: the same rows trained with each λ, the cost on rows held out compared.

Large λ come first, and each training begins with the Θ of the λ before: what a large λ allows is simple and found
soon, and a smaller one adds to it. On digits this takes a fifth to two fifths of the passes of cold starts; from small
to large it takes three fifths (a small λ begun cold is the dearest of all).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..communicator import current
from ..data.dataset import Dataset
from ..data.several import splits_of
from ..errors import DataError, UsageError
from ..job import Job
from ..network import Network
from ..prepare import Prepared, prepare
from ..training import Callback, StopRequest
from . import roles, verdict
from .next_step import train_line
from .point import Asked, Interrupted, Point, trained
from .record import Record

LAMBDAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HELD_OUT = 0.2  # of the rows, where the file keeps none for validation

Told = Callable[[Point, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """What one λ with one network reached; means over the folds where there are several.

    Attributes:
        lambda_, hidden: what was trained.
        cost, validation: without the λ term, on the training rows and on those held out.
        validation_se: the standard error of `validation`: over folds, or over the rows held out.
        score: the share of right answers on the rows held out, or R²; None where that is not defined.
        constant: what the best constant answer costs.
        passes, seconds: in all.
        sound: whether every training gave finite numbers.
        points: one for each fold.
    """

    lambda_: float
    hidden: tuple[int, ...]
    cost: float
    validation: float
    validation_se: float
    score: float | None
    constant: float
    passes: float
    seconds: float
    sound: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        candidates: by network, and by λ from small to large.
        chosen: the number of the one with the lowest validation cost.
        simplest: the number of the one of the same network with the largest λ whose validation cost is within one
            standard error of the chosen one's.
        verdict: what the numbers mean, in words.
        next: the `gpubp train` line to go on with.
        validation: how rows were held out.
        passes, seconds: of all trainings.
        measure: what a candidate's score is.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    simplest: int
    verdict: verdict.Verdict
    next: str
    validation: str
    passes: float
    seconds: float
    measure: str

    @property
    def best(self) -> Candidate:
        """The chosen one."""
        return self.candidates[self.chosen]

    def asdict(self) -> dict[str, Any]:
        """For JSON: numbers that it does not have become None."""
        return plain(asdict(self))


def sweep(
    job: Job,
    lambdas: Sequence[float] = LAMBDAS,
    *,
    networks: Sequence[Sequence[int]] = (),
    out: str | Path | None = None,
    dataset: Dataset | None = None,
    folds: int = 0,
    validation: float | None = None,
    decrease: float = 1e-3,
    warm: bool = True,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    told: Told | None = None,
    scanned: Callable[[int, int], None] | None = None,
    program: str = "gpubp",
) -> Sweep:
    """Train with each λ (and each network) and choose by the cost on rows held out.

    Args:
        job: all else; its λ and, where `networks` are given, its hidden layers are not used. Its `iterations` are the
            most for each training.
        lambdas: not negative; their order does not matter.
        networks: the hidden layers of each; every network begins with a fresh Θ.
        out: a folder for finished points: begun again, the sweep goes on there.
        folds: K of a K-fold cross-validation, instead of one part held out; 0 for none.
        validation: the fraction held out; None for the rows that the file keeps, or else `HELD_OUT`.
        decrease: the rule that ends each training, see `stopping.Stopping`.
        warm: whether a training begins with its neighbour's Θ.
        callbacks, stop: as in `gpubp.training.fit`, for every training.
        told: called with each finished point, their number so far and in all.
        program: what the `train` line to go on with begins with.

    Raises:
        Interrupted: someone asked to stop; with `out`, what is finished is kept.
        GpubpError: anything wrong with what was asked, the data or the folder.
    """
    lambdas = checked_lambdas(lambdas)
    hiddens = tuple(dict.fromkeys(tuple(int(s) for s in one) for one in networks)) or (job.hidden,)
    job, how = holding_out(job, folds, validation, dataset)
    asked = Asked(decrease, stop or StopRequest(), callbacks)
    plan = {
        "kind": "sweep", "lambdas": lambdas, "networks": hiddens, "folds": folds, "decrease": decrease, "warm": warm,
        "job": {name: value for name, value in asdict(job).items() if name not in ("hidden", "lambda_")},
    }  # fmt: skip
    points: list[Point] = []
    measure = ""
    total = max(1, folds) * len(hiddens) * len(lambdas)
    ranks = current()
    ranks.listen(lambda: asked.stop.by or "")
    with Record(out, plan, ranks) as record:
        for fold in range(max(1, folds)):
            ours = roles.fold(fold, folds, job.seed) if folds else None
            todo = replace(job, hidden=hiddens[0], lambda_=lambdas[-1])
            with closing(prepare(todo, dataset, roles=ours, scanned=scanned, communicator=ranks)) as ready:
                if fold == 0:
                    if ready.rows.validation is None:
                        raise UsageError("no rows held out", wanted="a --validation above 0, or --cv")
                    record.begin(ready.fingerprint, ready.dataset.path or "the arrays")
                    measure = "R²" if ready.targets.kind == "real" else "accuracy"
                for hidden in hiddens:
                    for point in _curve(ready, record, asked, hidden, lambdas, fold, warm):
                        points.append(point)
                        if told:
                            told(point, len(points), total)
        found = _chosen(points, hiddens, lambdas, how, measure, job, decrease, out, program)
        record.finish(found.asdict())
    return found


def _curve(
    ready: Prepared, record: Record, asked: Asked, hidden: tuple[int, ...], lambdas: Sequence[float], fold: int,
    warm: bool,
) -> Any:  # fmt: skip
    """The points of one network and fold, from large λ to small; those that are done are taken from the folder."""
    sizes = (ready.network.sizes[0], *hidden, ready.network.K)
    network = Network(sizes, ready.network.activation, ready.network.cost)

    def name(lambda_: float) -> str:
        return f"{'-'.join(map(str, hidden)) or 'none'}_fold{fold}_{lambda_!r}"

    done = {one: kept for one in lambdas if (kept := record.load(name(one), network.P))}
    for lambda_ in reversed(lambdas):
        if lambda_ not in done:
            ready.network, ready.job = network, replace(ready.job, hidden=hidden, lambda_=lambda_)
            ready.at(ready.job.precision)
            larger = [one for one in done if one > lambda_ and done[one][0].ending != "failed"]
            nearest = min(larger) if warm and larger else None
            start = None if nearest is None else (f"λ = {nearest:g}", done[nearest][1])
            point, Theta = trained(ready, asked, fold=fold, warm=start)
            record.save(name(lambda_), point, Theta)
            done[lambda_] = point, Theta
        yield done[lambda_][0]


def _chosen(
    points: list[Point], hiddens: Sequence[tuple[int, ...]], lambdas: Sequence[float], how: str, measure: str, job: Job,
    decrease: float, out: str | Path | None, program: str,
) -> Sweep:  # fmt: skip
    candidates = tuple(
        candidate([p for p in points if p.hidden == hidden and p.lambda_ == lambda_])
        for hidden in hiddens
        for lambda_ in lambdas
    )
    sound = [i for i, one in enumerate(candidates) if one.sound]
    if not sound:
        raise DataError(
            f"none of {len(candidates)} trainings gave finite costs: {points[0].reason}",
            do="scale the data, or take another optimizer or activation",
        )
    chosen = min(sound, key=lambda i: candidates[i].validation)
    best = candidates[chosen]
    bound = best.validation + (best.validation_se if math.isfinite(best.validation_se) else 0.0)
    within = [i for i in sound if candidates[i].hidden == best.hidden and candidates[i].validation <= bound]
    simplest = max(within, key=lambda i: candidates[i].lambda_)
    going_on = replace(to_train(job), hidden=best.hidden, lambda_=best.lambda_)
    return Sweep(
        candidates, chosen, simplest, verdict.of_sweep(candidates, chosen, simplest),
        train_line(going_on, decrease, out, program), how,
        sum(one.passes for one in candidates), sum(one.seconds for one in candidates), measure,
    )  # fmt: skip


def candidate(points: Sequence[Point]) -> Candidate:
    """The means over folds, or over repeats."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(p, name) for p in points]))

    first, several = points[0], len(points) > 1
    spread = float(np.std([p.validation for p in points], ddof=1)) if several else math.nan
    scores = [p.score for p in points if p.score is not None]
    return Candidate(
        lambda_=first.lambda_, hidden=first.hidden, cost=mean("cost"), validation=mean("validation"),
        validation_se=spread / math.sqrt(len(points)) if several else first.validation_se,
        score=float(np.mean(scores)) if len(scores) == len(points) else None, constant=mean("constant"),
        passes=sum(p.passes for p in points), seconds=sum(p.seconds for p in points),
        sound=all(math.isfinite(p.cost + p.validation) and p.ending != "failed" for p in points), points=tuple(points),
    )  # fmt: skip


def checked_lambdas(lambdas: Sequence[float]) -> tuple[float, ...]:
    """From small to large, each once.

    Raises:
        UsageError: there is none, or one that is negative or not finite.
    """
    found = tuple(sorted({float(one) for one in lambdas}))
    if not found:
        raise UsageError("no λ", wanted="one at least, such as 0,0.1,1,10")
    for one in found:
        if not (math.isfinite(one) and one >= 0):
            raise UsageError(f"lambda {one}", wanted="finite numbers, 0 or more")
    return tuple(one or 0.0 for one in found)  # and not −0


def holding_out(job: Job, folds: int, validation: float | None, dataset: Dataset | None) -> tuple[Job, str]:
    """The job with the fraction that is held out, and how in words.

    Raises:
        UsageError: a fraction beside folds, or one that holds nothing out.
    """
    if folds:
        if validation is not None:
            raise UsageError(f"--validation {validation:g} beside --cv {folds}", wanted="one of the two")
        roles.check_folds(folds)  # before data are read
        # any fraction: the rows that a file keeps for validation stay out, and the roles decide about the others
        return replace(job, validation=1.0 / folds), f"{folds}-fold cross-validation"
    if validation is not None and not 0 < validation < 1:
        raise UsageError(f"a validation share of {validation:g}", wanted="more than 0 and less than 1, such as 0.2")
    if validation is None:
        plainly = dataset is None and not (job.x or job.y) and job.split in (None, "train")
        kept = splits_of(job.data) if plainly else {}
        if "val" in kept and "train" in kept:
            return replace(job, validation=0.0), "the rows that the file keeps for validation"
        validation = HELD_OUT
    return replace(job, validation=validation), f"{validation:.3g} of the rows, chosen by a hash"


def to_train(job: Job) -> Job:
    """The job of the `train` line to go on with: on all rows, but where it is to end by early stopping, which needs
    rows held out, as many of them as here."""
    return job if job.patience is not None else replace(job, validation=0.0)


def plain(value: Any) -> Any:
    """What JSON can say: tuples as lists, numbers that are not finite as None."""
    if isinstance(value, dict):
        return {str(k).rstrip("_"): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


__all__ = ["HELD_OUT", "LAMBDAS", "Candidate", "Interrupted", "Sweep", "sweep"]
