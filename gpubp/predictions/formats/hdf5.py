"""HDF5: `prediction` and, for classifiers, `probability` with the classes as its attribute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import h5py
import numpy as np

from ..answers import Answers, Part
from . import writer

ABOUT = "predictions made by gpubp; one row for each row of the data"


@writer("hdf5", suffixes=(".h5", ".hdf5", ".he5"), holds="datasets", listing=lambda answers: answers.arrays)
def write(answers: Answers, parts: Iterator[Part], file: BinaryIO) -> None:
    """Text is UTF-8 of variable length, as h5py and PyTables read it."""
    text = answers.dtype.kind == "U"
    with h5py.File(file.name, "w", locking=False) as whole:
        whole.attrs["about"] = ABOUT
        prediction = whole.create_dataset("prediction", answers.shape, h5py.string_dtype() if text else answers.dtype)
        probability = None
        if answers.p_names:
            probability = whole.create_dataset("probability", (answers.rows, len(answers.p_names)), np.float32)
            if answers.targets.classes is not None:
                probability.attrs["classes"] = [str(c) for c in answers.targets.classes]
        at = 0
        for part in parts:
            where = slice(at, at := at + len(part.prediction))
            prediction[where] = part.prediction.astype(object) if text else part.prediction
            if probability is not None:
                probability[where] = part.probability
