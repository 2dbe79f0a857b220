"""Everything that a report says is read and measured here, once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import for_forward
from ..choosing.next_step import train_line
from ..choosing.point import penalty
from ..data.missing import RULES
from ..data.several import Paths, open_all, splits_of
from ..data.split import validation_mask
from ..describe import describe
from ..errors import DataError, GpubpError
from ..pictures import Picture, guess, parse
from .chosen import Judged, chosen_by_user, chosen_of_training, training_dataset
from .material import Material
from .measures import measure
from .runs import Run, read_run
from .throughput import throughput
from .words import Trained, say


def gather(
    path: str | Path,
    data: Paths | None,
    names: dict[str, Any],
    *,
    backend: str,
    device: int,
    precision: str,
    image: str | None,
    limit: bool,
    program: str,
) -> Material:
    """See `gpubp.report.report`."""
    run = read_run(path)
    features = run.model.network.sizes[0]
    told = parse(image, features) if image is not None else None
    judged, quality, why_not = None, None, ""
    engine = for_forward(backend, device=device)
    try:
        judged = _judged(run, data, names)
        with judged.dataset:
            quality = measure(run.model, judged.rows, backend=engine, precision=precision)
    except (DataError, OSError) as error:
        if data is not None:
            raise
        judged, quality, why_not = None, None, str(error)
    trained = trained_on(run, names.get("allow"))
    picture = told if image is not None else _guessed(judged, trained, features)
    cost = _training_cost(run, trained)
    return Material(
        run, describe(run.path), trained, cost, judged, quality, why_not,
        throughput(run, trained.rows, trained.why_not, limit=limit), picture,
        say(run, trained, judged, quality, cost, program), _command(run, program), precision,
    )  # fmt: skip


def _judged(run: Run, data: Paths | None, names: dict[str, Any]) -> Judged:
    if data is not None:
        return chosen_by_user(run.model, data, **names)
    if any(names[name] for name in ("x", "y", "split")):
        if not run.job.files:
            raise DataError("the run was trained on arrays", do="name a file with such rows to judge it by")
        return chosen_by_user(run.model, run.job.files, **names)
    return chosen_of_training(run.model, run.job, **names)


def trained_on(run: Run, allow: str | None) -> Trained:
    """What is known of the rows of the training: their number needs the files, for no checkpoint has it."""
    job = run.job
    if not job.files:
        return Trained(why_not="the run was trained on arrays, whose number of rows is not kept")
    try:
        dataset, _ = training_dataset(job, allow)
        with dataset:
            m, weights, bytes_ = dataset.source.m, dataset.weights, dataset.source.dtype == np.uint8
        mask = validation_mask(m, job.validation, job.seed)
        held = 0
        if not job.validation and not (job.x or job.y) and dataset.split == "train":
            kept = splits_of(job.files).get("val", [])
            if kept:
                with open_all(kept, split="val", weights=job.weights, allow=allow) as held_out:
                    held = held_out.source.m
    except GpubpError as error:
        return Trained(why_not=str(error))
    training = m if mask is None else int(np.count_nonzero(~mask))
    rule = RULES.get(job.missing)
    known = job.class_weight is None and not (rule is not None and rule.drops)
    w = float(training) if weights is None else float(weights.sum() if mask is None else weights[~mask].sum())
    return Trained(m + held, training, w if known else None, bytes_=bytes_)


def _training_cost(run: Run, trained: Trained) -> float | None:
    """J of the Θ that is kept, without its λ term."""
    J, model = run.model.reached.get("J"), run.model
    if J is None or not math.isfinite(J):
        return None
    if not model.lambda_:
        return J
    if not trained.weight_sum:
        return None
    return J - penalty(model.network, model.Theta, model.lambda_, trained.weight_sum)


def _guessed(judged: Judged | None, trained: Trained, features: int) -> Picture | None:
    bytes_ = judged.rows.source.dtype == np.uint8 if judged else trained.bytes_
    return guess(features, bytes_=bool(bytes_))


def _command(run: Run, program: str) -> str:
    """The line that repeats the run into a folder of its own; where data were arrays, the call in Python."""
    job, out = run.job, run.path if run.path.is_dir() else None
    return train_line(run.asked, job.decrease or 0.0, out, program, suffix="-again")
