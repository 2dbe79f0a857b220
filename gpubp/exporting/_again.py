"""An export that gpubp reads itself, loaded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from ..inference import Model, decide
from ..theta_files import read


def answers(path: Path, model: Model, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and predictions of the model that the file holds.

    Raises:
        DataError: it holds no whole model, or one that differs in words or numbers that are not rounded.
    """
    from . import outputs_of

    again = read(path).model
    if again is None:
        raise DataError(f"{path} holds matrices alone", wanted="the description of the model beside them")
    same = (again.network, again.targets, again.drops, again.selection, again.lambda_) == (
        model.network, model.targets, model.drops, model.selection, model.lambda_,
    )  # fmt: skip
    pairs = [(getattr(one, "fill", None), one.scaling.mean, one.scaling.scale) for one in (again, model)]
    if not same or not all(_equal(a, b) for a, b in zip(*pairs, strict=True)):
        raise DataError(f"{path} holds another model", wanted="the same network, classes, scaling and selection")
    h = outputs_of(again, X, "fp64")
    return h, decide(again.targets, h)


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
