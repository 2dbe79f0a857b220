"""NumPy's archive: ``numpy.load(FILE)`` gives Theta1, Theta2, … (Ng's matrices, the bias in column 0), mean, scale and
fill as far as the model has them, activation, cost and classes, and under ``gpubp`` the description as JSON, which is
what gpubp itself reads."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..data.targets import decode
from ..inference import Model
from ..theta_files.description import KEY, describe, vectors
from ._again import answers

__all__ = ["PRECISION", "SUFFIX", "TITLE", "answers", "pack"]

TITLE = "NumPy: Theta1, Theta2, …, mean, scale, fill, classes"
SUFFIX = ".npz"
PRECISION = "fp64"


def pack(model: Model, dtype: np.dtype[Any]) -> memoryview:
    """The bytes of the file; equal models give equal bytes."""
    arrays: dict[str, Any] = {f"Theta{l}": T.astype(dtype) for l, T in enumerate(model.matrices, start=1)}
    arrays |= vectors(model)
    arrays |= {"activation": model.network.activation, "cost": model.network.cost}
    if model.targets.classes is not None:
        arrays["classes"] = decode(np.arange(len(model.targets.classes)), model.targets)
    file = io.BytesIO()
    arrays[KEY] = describe(model, with_vectors=False)
    np.savez(file, **arrays)
    return file.getbuffer()
