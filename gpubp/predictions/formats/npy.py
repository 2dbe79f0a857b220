"""NumPy's own: the predictions as an array, or as records with the fields `prediction` and `probability`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from ..answers import Answers, Part
from . import writer


@writer("npy", suffixes=(".npy",), holds="fields", listing=lambda answers: answers.arrays)
def write(answers: Answers, parts: Iterator[Part], file: BinaryIO) -> None:
    """``np.load(FILE)`` is (m,) or (m, K); with probabilities ``np.load(FILE)["probability"]`` is (m, classes).

    Text has the width of the longest class: nothing is pickled.
    """
    kind, shape = np.dtype(answers.dtype), answers.shape
    if answers.p_names:
        kind = np.dtype([("prediction", kind, shape[1:]), ("probability", np.float32, (len(answers.p_names),))])
        shape = shape[:1]
    header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    npy.write_array_header_2_0(file, header)
    for part in parts:
        if part.probability is None:
            rows = np.ascontiguousarray(part.prediction, kind)
        else:
            rows = np.empty(len(part.prediction), kind)
            rows["prediction"], rows["probability"] = part.prediction, part.probability  # pyright: ignore
        file.write(rows.tobytes())
