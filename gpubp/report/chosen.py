"""Which labelled rows a model is judged on: those that it has not seen, where there are any.

Named data are taken as `gpubp evaluate` takes them. Otherwise, of the files of the training: the test rows, else the
rows that were held out for validation, else, and this is said aloud, the training rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..data.dataset import Dataset
from ..data.rows import Rows
from ..data.select import Selection, select
from ..data.several import Paths, files, open_all, splits_of
from ..data.split import validation_mask
from ..data.views import Picked
from ..errors import DataError
from ..inference import Model
from ..job import Job
from ..model_rows import open_for, rows_for

Kind = Literal["test", "validation", "training", "given"]


@dataclass(frozen=True)
class Judged:
    """The rows a model is judged on.

    Attributes:
        rows: they, as the model sees them.
        dataset: where they come from; `close` it.
        kind: what they were to the training; "given" where the user named them and nothing is known.
        split: the split of the file, or None.
        numbers: the place of each in the split, where they are a part of it.
        opened: what `gpubp explain` is told to find a row by its number: "" or an option.
        decided: whether early stopping looked at these rows.
        files: they and others lie in these.
    """

    rows: Rows
    dataset: Dataset
    kind: Kind
    split: str | None
    numbers: np.ndarray | None = None
    opened: str = ""
    decided: bool = False
    files: tuple[str, ...] = ()

    def number(self, row: int) -> int:
        """The place in its split of the row at this place here."""
        return row if self.numbers is None else int(self.numbers[row])

    @property
    def what(self) -> str:
        """They in words: "5,000 test rows of digits.h5"."""
        count = f"{self.rows.m - self.rows.dropped:,}"
        word = {"test": "test rows", "training": "training rows"}.get(self.kind, "rows")
        of = f" of {os.path.basename(self.dataset.path)}" if self.dataset.path else ""
        return f"{count} {word}{of}" + (" that were held out for validation" if self.kind == "validation" else "")


def chosen_by_user(model: Model, data: Paths, **names: Any) -> Judged:
    """Rows of data that the user named.

    Raises:
        DataError: as `gpubp.model_rows.open_for` and `rows_for`.
    """
    dataset = open_for(model, data, **names)
    try:
        rows = rows_for(model, dataset, labelled=True)
    except BaseException:
        dataset.close()
        raise
    kinds: dict[str | None, Kind] = {"test": "test", "val": "validation", "train": "training"}
    kind = kinds.get(dataset.split, "given")
    if kind != "test" and not _same(data, model.job.get("data")):
        kind = "given"
    elif kind == "given":
        kind = "training"
    opened = f"--split {names['split']}" if names.get("split") else ""
    decided = kind == "validation" and model.job.get("patience") is not None
    return Judged(rows, dataset, kind, dataset.split, None, opened, decided, _listed(data))


def chosen_of_training(model: Model, job: Job, **names: Any) -> Judged:
    """Rows of the files of the training.

    Raises:
        DataError: there are none: arrays, or files that are gone or have changed their shape.
    """
    if not job.files:
        raise DataError("the run was trained on arrays", do="name a file with such rows to judge it by")
    allow = names.get("allow")
    there = [] if job.x or job.y else list(splits_of(job.files))
    if "test" in there:
        return chosen_by_user(model, job.files, split="test", weights=names.get("weights"), allow=allow)
    if not job.validation and "val" in there and job.split in (None, "train"):
        return chosen_by_user(model, job.files, split="val", weights=names.get("weights"), allow=allow)
    dataset, numbers = training_dataset(job, allow)
    try:
        rows = rows_for(model, dataset, labelled=True)
        mask = validation_mask(rows.m, job.validation, job.seed)
        if mask is None:
            return Judged(rows, dataset, "training", dataset.split, numbers, files=job.files)
        numbers = np.flatnonzero(mask) if numbers is None else numbers[mask]
        return Judged(
            _part(rows, mask),
            dataset,
            "validation",
            dataset.split,
            numbers,
            decided=job.patience is not None,
            files=job.files,
        )
    except BaseException:
        dataset.close()
        raise


def training_dataset(job: Job, allow: str | None = None) -> tuple[Dataset, np.ndarray | None]:
    """The rows of the training, those held out by a fraction among them; and the place of each in its split, where
    --select took some of them.

    What the training was allowed is not allowed here by that alone: a checkpoint may come from elsewhere.

    Raises:
        DataError: they cannot be had.
    """
    dataset = open_all(job.files, x=job.x, y=job.y, weights=job.weights, split=job.split, allow=allow)
    try:
        selection = Selection.of(job.select)
        places = None if selection.rows is None else np.arange(dataset.source.m)[slice(*selection.rows)]
        return select(dataset, selection, rows=True), places
    except BaseException:
        dataset.close()
        raise


def _part(rows: Rows, mask: np.ndarray) -> Rows:
    picked = np.flatnonzero(mask)
    assert rows.labels is not None
    weights = None if rows.weights is None else rows.weights[mask]
    dropped = 0 if weights is None or not rows.dropped else int((weights == 0).sum())
    return replace(rows, source=Picked(rows.source, picked), labels=rows.labels[mask], weights=weights, dropped=dropped)


def _listed(data: Paths) -> tuple[str, ...]:
    given = [data] if isinstance(data, str | os.PathLike) else list(data)
    return tuple(os.fspath(one) for one in given)


def _same(data: Paths, trained: Any) -> bool:
    """Whether these are the files of the training."""
    if not trained:
        return False
    try:
        return [os.path.realpath(f) for f in files(data)] == [os.path.realpath(f) for f in files(trained)]
    except DataError:
        return False
