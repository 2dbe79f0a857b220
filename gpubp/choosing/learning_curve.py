"""A learning curve: the same network trained on more and more rows, the cost on them and on rows held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..communicator import current
from ..data.dataset import Dataset
from ..errors import DataError, UsageError
from ..job import Job
from ..prepare import prepare
from ..training import Callback, StopRequest
from . import roles, verdict
from .next_step import train_line
from .point import Asked, Point, trained
from .record import Record
from .sweep import Told, candidate, holding_out, plain, to_train

LEAST = 10  # rows of the smallest part


@dataclass(frozen=True)
class Part:
    """What training on so many rows reached; means over the repeats.

    Attributes:
        rows: how many it was trained on.
        cost, validation: without the λ term, on those and on the rows held out.
        cost_se: the standard error of `cost` over repeats; NaN for one.
        validation_se: the standard error of `validation`: over repeats, or over the rows held out.
        score, constant, passes, seconds, sound, points: as in `sweep.Candidate`.
    """

    rows: int
    cost: float
    cost_se: float
    validation: float
    validation_se: float
    score: float | None
    constant: float
    passes: float
    seconds: float
    sound: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class LearningCurve:
    """What a learning curve shows.

    Attributes:
        parts: from few rows to many.
        verdict: what the numbers mean, in words.
        next: the `gpubp train` line to go on with.
        validation: how rows were held out.
        passes, seconds: of all trainings; a pass is one over the rows of the part and those held out.
        measure: what the score is.
    """

    parts: tuple[Part, ...]
    verdict: verdict.Verdict
    next: str
    validation: str
    passes: float
    seconds: float
    measure: str

    def asdict(self) -> dict[str, Any]:
        """For JSON: numbers that it does not have become None."""
        return plain(asdict(self))


def learning_curve(
    job: Job,
    points: int = 8,
    *,
    least: int | None = None,
    repeats: int = 1,
    out: str | Path | None = None,
    dataset: Dataset | None = None,
    validation: float | None = None,
    decrease: float = 1e-3,
    warm: bool = False,
    callbacks: Sequence[Callback] = (),
    stop: StopRequest | None = None,
    told: Told | None = None,
    scanned: Callable[[int, int], None] | None = None,
    program: str = "gpubp",
) -> LearningCurve:
    """Train on nested parts of the rows, each about the same factor larger than the one before.

    Args:
        job: the network, λ and all else. Its `iterations` are the most for each training.
        points: how many parts.
        least: rows of the smallest; None for a hundredth of all, but no fewer than ten.
        repeats: how many times, each with other parts and another initial Θ; means are shown.
        out, dataset, validation, decrease, callbacks, stop, told, scanned, program: as in `sweep.sweep`.
        warm: whether each training begins with the Θ of the smaller part before it.

    Raises:
        Interrupted: someone asked to stop; with `out`, what is finished is kept.
        GpubpError: anything wrong with what was asked, the data or the folder.
    """
    for what, count in (("points", points), ("repeats", repeats)):
        if count < (2 if what == "points" else 1):
            raise UsageError(f"{count} {what}", wanted="2 or more" if what == "points" else "1 or more")
    if least is not None and least < 1:
        raise UsageError(f"{least} rows in the smallest part", wanted="1 or more")
    job, how = holding_out(job, 0, validation, dataset)
    asked = Asked(decrease, stop or StopRequest(), callbacks)
    plan = {
        "kind": "learning curve", "points": points, "least": least, "repeats": repeats, "decrease": decrease,
        "warm": warm, "job": asdict(job),
    }  # fmt: skip
    ranks = current()
    ranks.listen(lambda: asked.stop.by or "")
    with Record(out, plan, ranks) as record:
        with closing(prepare(job, dataset, scanned=scanned, communicator=ranks)) as whole:
            if whole.rows.validation is None:
                raise UsageError("no rows held out", wanted="a --validation above 0")
            record.begin(whole.fingerprint, whole.dataset.path or "the arrays")
            measure = "R²" if whole.targets.kind == "real" else "accuracy"
            most = int(np.count_nonzero(whole.rows.validation == 0))
        counts = roles.sizes(most, points, max(LEAST, most // 100) if least is None else least)
        found: dict[int, list[Point]] = {count: [] for count in counts}
        for repeat in range(repeats):
            before: tuple[str, np.ndarray] | None = None
            mine = replace(job, seed=job.seed + repeat)
            for count in counts:
                # the scaling is that of the rows trained on, so each part is looked at anew
                of = roles.part(count, job.validation, job.seed, repeat)
                with closing(prepare(mine, dataset, roles=of, scanned=scanned, communicator=ranks)) as ready:
                    name = f"rows{count}_repeat{repeat}"
                    done = record.load(name, ready.network.P)
                    if done is None:
                        done = trained(ready, asked, fold=repeat, warm=before if warm else None)
                        record.save(name, *done)
                    before = f"{count} rows", done[1]
                    found[count].append(done[0])
                    if told:
                        told(done[0], sum(map(len, found.values())), len(counts) * repeats)
        result = _judged(tuple(map(_part, found.values())), how, measure, job, decrease, out, program)
        record.finish(result.asdict())
    return result


def _part(points: list[Point]) -> Part:
    means = candidate(points)
    several = len(points) > 1
    return Part(
        rows=points[0].rows, cost=means.cost, validation=means.validation, validation_se=means.validation_se,
        cost_se=float(np.std([p.cost for p in points], ddof=1)) / math.sqrt(len(points)) if several else math.nan,
        score=means.score, constant=means.constant, passes=means.passes, seconds=means.seconds, sound=means.sound,
        points=means.points,
    )  # fmt: skip


def _judged(
    parts: tuple[Part, ...], how: str, measure: str, job: Job, decrease: float, out: str | Path | None, program: str
) -> LearningCurve:
    sound = [one for one in parts if one.sound]
    if len(sound) < 2:
        raise DataError(
            f"{len(sound)} of {len(parts)} trainings gave finite costs: {parts[0].points[0].reason}",
            do="scale the data, or take another optimizer or activation",
        )
    return LearningCurve(
        parts, verdict.of_learning_curve(sound), train_line(to_train(job), decrease, out, program), how,
        sum(one.passes for one in parts), sum(one.seconds for one in parts), measure,
    )  # fmt: skip
