"""A model's answers for the rows of a file, written as they come."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from .backend import Backend
from .checkpoint import is_checkpoint
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
    _refuse_target(path, overwrite, need=rows.m * (model.network.K + 1) * 8)
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    classifier = model.targets.kind != "real"
    try:
        with h5py.File(temporary, "x") as file:
            file.attrs["about"] = "predictions made by gpubp; one row for each row of the data"
            kind = _kind(model)
            shape = decide(model.targets, np.zeros((1, model.network.K))).shape
            prediction = file.create_dataset("prediction", (rows.m, *shape[1:]), kind)
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
    except (OSError, RuntimeError) as error:  # h5py has RuntimeErrors for a disk that fills up
        raise DataError(f"{path} could not be written: {' '.join(str(error).split())}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return names


def _refuse_target(path: Path, overwrite: bool, need: int) -> None:
    """Before any work: predictions replace nothing but an earlier file, and a disk that is too small is no surprise."""
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent}", do="make it first")
    if path.exists() or path.is_symlink():
        if not path.is_file() or is_checkpoint(path):
            what = "a checkpoint" if path.is_file() else "no ordinary file"
            raise DataError(f"{path} is {what}", wanted="a file that predictions may replace")
        if not overwrite:
            raise DataError(f"{path} exists", do="add --overwrite to replace it")
    free = shutil.disk_usage(path.parent).free
    if need + (64 << 10) > free:  # libhdf5 does not survive a disk that fills up
        raise DataError(
            f"{path.parent} has {free:,} bytes free", wanted=f"about {need + (64 << 10):,} for the predictions"
        )


def _kind(model: Model) -> np.dtype:
    """The type of the answers: strings as HDF5's variable-length UTF-8, classes and labels as they are."""
    if model.targets.kind == "real":
        return np.dtype(np.float64)
    kind = decide(model.targets, np.zeros((1, model.network.K))).dtype
    return h5py.string_dtype() if kind.kind == "U" else kind
