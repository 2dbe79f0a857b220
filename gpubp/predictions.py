"""A model's answers for the rows of a file, written as they come."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from .backend import Backend
from .data.rows import Rows
from .errors import DataError
from .inference import Model, decide, outputs


def write_predictions(
    model: Model, rows: Rows, path: str | Path, *, backend: Backend, precision: str = "fp32", overwrite: bool = False
) -> list[str]:
    """Write `prediction` (m,) or (m, K) and, for classifiers, `probability` (m, classes) to an HDF5 file.

    The file gets its name only when it is whole.

    Returns:
        The names of the datasets.

    Raises:
        DataError: the file exists and `overwrite` is False, cannot be written, or rows that do not fit the model.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists", do="add --overwrite to replace it")
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    classifier = model.targets.kind != "real"
    try:
        with h5py.File(temporary, "x") as file:
            file.attrs["about"] = "predictions made by gpubp; one row for each row of the data"
            kind = _kind(model)
            shape = (rows.m, model.network.K) if model.targets.kind in ("multilabel", "real") else (rows.m,)
            prediction = file.create_dataset("prediction", shape, kind)
            probability = None
            if classifier:
                columns = 2 if model.targets.kind == "binary" else model.network.K
                probability = file.create_dataset("probability", (rows.m, columns), np.float32)
                if model.targets.classes is not None:
                    probability.attrs["classes"] = [str(c) for c in model.targets.classes]
            for chunk in outputs(model, rows, backend=backend, precision=precision):
                answer = decide(model.targets, chunk.h)
                where = slice(chunk.start, chunk.stop)
                prediction[where] = answer.astype(object) if answer.dtype.kind == "U" else answer
                if probability is not None:
                    h = np.concatenate([1 - chunk.h, chunk.h], axis=1) if model.targets.kind == "binary" else chunk.h
                    probability[where] = h
            names = list(file)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return names


def _kind(model: Model) -> np.dtype:
    """The type of the answers: strings as HDF5's variable-length UTF-8, classes and labels as they are."""
    if model.targets.kind == "real":
        return np.dtype(np.float64)
    kind = decide(model.targets, np.zeros((1, model.network.K))).dtype
    return h5py.string_dtype() if kind.kind == "U" else kind
