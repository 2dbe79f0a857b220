"""Weights that follow from a row's class (``--class-weight``); they multiply the row weights.

    balanced      w_c = Σw / (K · Σ_{t in c} w_t): every class counts the same. Without row weights this is
                  m / (K · m_c), scikit-learn's "balanced"
    LABEL=W,…     those; other classes keep 1

Sums go over the training rows alone; validation rows get their class's weight too, so that both costs measure the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from .targets import TargetSpec

BALANCED = "balanced"
_SHOWN = 6


def parse(text: str) -> str | dict[str, float]:
    """What --class-weight says: "balanced", or a weight for each of some labels.

    Raises:
        UsageError: neither.
    """
    if text == BALANCED:
        return text
    found: dict[str, float] = {}
    for part in text.split(","):
        label, equals, value = part.rpartition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if not equals or not label.strip():
            raise UsageError(f"class weights {text!r}", wanted="balanced, or LABEL=WEIGHT,LABEL=WEIGHT")
        if label.strip() in found:
            raise UsageError(f"class weights {text!r} with two for {label.strip()!r}", wanted="one for each label")
        found[label.strip()] = weight
    return checked(found)


def checked(weights: Mapping[Any, Any]) -> dict[str, float]:
    """Weights by label as text.

    Raises:
        UsageError: a weight that is negative, not finite or no number.
    """
    found: dict[str, float] = {}
    for label, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0 <= weight < math.inf:
            raise UsageError(f"the class weight {weight!r} for {label!r}", wanted="a number, finite and not negative")
        found[str(label)] = float(weight)
    if not found:
        raise UsageError("no class weight", wanted="balanced, or one label at least")
    return found


def class_weights(
    asked: str | Mapping[str, float], codes: NDArray[Any], spec: TargetSpec, counted: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """(K,) the weight of each class.

    Args:
        asked: "balanced", or weights by label as text.
        codes: (m,) the rows' classes as numbers.
        spec: the classes.
        counted: (m,) what each row counts for, 0 for rows that are not trained on; None for 1.

    Raises:
        UsageError: y has no classes.
        DataError: a label that is none of the classes; a class without a training row.
    """
    if spec.classes is None:
        raise UsageError(f"--class-weight with {spec.describe()}", wanted="classes", do="give rows weights: --weights")
    K = len(spec.classes)
    if isinstance(asked, str):
        sums = np.bincount(codes, counted, K).astype(np.float64)
        if (sums == 0).any():
            label = spec.classes[int(np.argmin(sums))]
            raise DataError(f"no training row is of the class {label!r}", wanted="one of each for balanced weights")
        return sums.sum() / (K * sums)
    found, known = np.ones(K), {str(label): at for at, label in enumerate(spec.classes)}
    for label, weight in asked.items():
        at = known.get(label, known.get(label.capitalize()) if isinstance(spec.classes[0], bool) else None)
        if at is None:
            raise DataError(f"a class weight for {label!r}, which y has not", wanted=f"labels of y: {spec.describe()}")
        found[at] = weight
    return found


def shown(weights: NDArray[np.float64], spec: TargetSpec) -> str:
    """Such as ``cat 0.717, dog 0.714, emu 4.88``; of many classes the first few."""
    texts = [f"{label} {weight:.3g}" for label, weight in zip(spec.classes or (), weights.tolist(), strict=True)]
    return ", ".join(texts) if len(texts) <= _SHOWN else f"{', '.join(texts[:_SHOWN])} …"
