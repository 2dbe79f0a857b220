"""The Θ that a training begins with, out of a file, of a model, or as matrices; and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import UsageError
from ..inference import Model
from .reading import read


def begin_with(start: Any, options: Mapping[str, Any]) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The matrices, and the options of a training with what the start has where they say nothing.

    The hidden layers are those of the matrices; activation and cost those of the model where there is one. How x is
    scaled follows from the rows of the training, as always: where the model was used to another scaling, its Θ is a
    point to begin from like any other.

    Args:
        start: what `read` takes, a model, or Ng's matrices (s_{l+1}, s_l + 1), the bias in column 0.

    Raises:
        DataError, CheckpointError: a file that cannot be read.
        UsageError: hidden layers that are not those of the matrices; matrices that are none or do not chain.
    """
    if isinstance(start, str | os.PathLike):
        found = read(os.fspath(start))
        Theta, model, where = found.Theta, found.model, os.fspath(start)
    elif isinstance(start, Model):
        Theta, model, where = start.matrices, start, "the model"
    else:
        Theta, model, where = _given(start), None, "start"
    sizes = [matrix.shape[0] for matrix in Theta]
    said = dict(options)
    hidden = said.setdefault("hidden", tuple(sizes[:-1]))
    hidden = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if hidden != tuple(sizes[:-1]):
        raise UsageError(
            f"hidden {_shown(hidden)} with the Θ of {where}, whose hidden layers are {_shown(sizes[:-1])}",
            wanted="the same", do="leave hidden out",
        )  # fmt: skip
    if model is not None:
        said.setdefault("activation", model.network.activation)
        said.setdefault("cost", model.network.cost)
    return Theta, said


def _shown(sizes: Any) -> str:
    return ",".join(map(str, sizes)) or "none"


def _given(start: Any) -> list[np.ndarray]:
    wanted = "a file, a model, or Ng's matrices Θ^(1), Θ^(2), …, the bias in column 0"
    try:
        Theta = [np.array(matrix, np.float64) for matrix in start]
    except (TypeError, ValueError):
        raise UsageError(f"start that is a {type(start).__name__}", wanted=wanted) from None
    shapes = [matrix.shape for matrix in Theta]
    chained = all(right[1:] == (left[0] + 1,) for left, right in pairwise(shapes) if left)
    if not Theta or any(len(shape) != 2 or 0 in shape for shape in shapes) or not chained:
        raise UsageError(f"start of shapes {shapes}", wanted=wanted)
    return Theta
