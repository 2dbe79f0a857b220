"""Data as a trained model sees them: the names it was told, its columns, its scaling, its classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .communicator import Communicator
from .data.dataset import Dataset
from .data.missing import rows_with_gaps
from .data.rows import Rows
from .data.select import select
from .data.several import Paths, open_all, splits_of
from .data.source import ArrayRows
from .data.targets import encode
from .data.views import Filled, Gapless, fill_gaps
from .errors import DataError
from .feed import refuse_non_finite
from .inference import Model
from .prepare import labels_of


def open_for(
    model: Model,
    data: Paths,
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    split: str | None = None,
    y_required: bool = True,
    allow: str | None = None,
) -> Dataset:
    """Data files as a model's user means them: test rows where there are any, the names that the training was told, and
    the columns that it selected.

    What the training was allowed (`Job.allow`) is not allowed here by that alone: a checkpoint may come from elsewhere.

    Raises:
        DataError: as `open_all`; or another number of features than the model has.
    """
    job = model.job
    x, y, weights = x or job.get("x"), y or job.get("y"), weights or job.get("weights")
    if split is None and x is None and "test" in splits_of(data):
        split = "test"
    dataset = open_all(data, x=x, y=y, weights=weights, split=split, y_required=y_required, allow=allow)
    try:
        dataset = select(dataset, model.selection, rows=False)
        features = model.network.sizes[0]
        if dataset.source.features != features:
            raise DataError(
                f"{dataset.path}: rows of {dataset.source.features} features",
                wanted=f"{features}, as the model was trained on",
            )
    except BaseException:
        dataset.close()
        raise
    return dataset


def first_rows(dataset: Dataset, count: int, *, start: int = 0, gaps: bool = False) -> Dataset:
    """The first rows of a data set, or those from `start`, in memory.

    Args:
        gaps: whether NaNs are let through, for a model that fills them.
    """
    source = dataset.source
    stop = min(start + count, source.m)
    X = np.empty((stop - start, source.features), source.dtype)
    source.read(start, stop, X)
    whole = X.copy() if gaps else X
    if gaps:
        fill_gaps(whole, np.zeros(source.features))
    refuse_non_finite(whole, start, source)
    part = [None if array is None else array[start:stop] for array in (dataset.target, dataset.weights)]
    return replace(dataset, source=ArrayRows(X), target=part[0], weights=part[1])


def rows_for(model: Model, dataset: Dataset, *, labelled: bool, communicator: Communicator | None = None) -> Rows:
    """Rows of another data set as a trained model sees them: its scaling, its classes, its means for what is missing.

    A model that was trained without rows with NaNs gives them the weight 0 where they have labels (`Rows.dropped` says
    how many there are), and refuses them where predictions are asked for.

    Args:
        communicator: the processes that share the rows: where all must be looked at for NaNs, each looks at its part.

    Raises:
        DataError: a label that the model has no class for; no y where one is needed.
    """
    labels = encode(labels_of(dataset), model.targets, where=dataset.y_place) if labelled else None
    source, weights, dropped = dataset.source, dataset.weights if labelled else None, 0
    if source.dtype.kind == "f" and model.fill is not None:
        if model.drops and not labelled:
            source = Gapless(source)
        else:
            gone = rows_with_gaps(source, ranks=communicator) if model.drops else None
            if gone is not None:
                weights, dropped = np.where(gone, 0.0, 1.0 if weights is None else weights), int(gone.sum())
                if not weights.any():
                    raise DataError(
                        f"{source.describe()}: every row with a weight has a missing value (NaN)",
                        wanted="whole rows: the model was trained with --missing drop",
                        do="train with --missing mean",
                    )
            source = Filled(source, model.fill)
    none = np.empty((0, source.features), source.dtype)
    return Rows(source, none, model.scaling, labels, weights, dropped=dropped)
