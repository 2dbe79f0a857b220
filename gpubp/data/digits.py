"""Numbers that float32 does not hold, found before a pass makes equal numbers or infinity of them.

Rows are cast to the type of the pass where they are used as they are stored. Standardised rows are not in danger: where
the scaling is folded into the first layer they lie near 0, and else they are standardised in float64.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from ..precision import precision as precision_of
from .missing import column_text
from .place import Place
from .scaling import Scaling, Statistics
from .source import RowSource
from .targets import TargetSpec

_LARGEST = float(np.finfo(np.float32).max)
_FAR = 1e4  # a mean so many deviations from 0 leaves float32 three digits of a deviation


def refuse_lost_features(
    source: RowSource, found: Statistics, scaling: Scaling, precision: str, column_names: tuple[str, ...] | None
) -> None:
    """X that is cast to float32 as it is, with numbers beyond its range or closer to each other than it can tell.

    Args:
        found: of the training rows.
        precision: of the passes.

    Raises:
        DataError: so it is; the message names the column.
    """
    exact = source.dtype in (np.float16, np.float32) or (source.dtype.kind in "ui" and source.dtype.itemsize <= 2)
    if exact or scaling.mean is not None or precision_of(precision).type == "float64":
        return  # standardised X is folded where its columns lie near 0, or standardised in float64
    largest = np.maximum(np.abs(found.minimum), np.abs(found.maximum))
    beyond, lost = largest > _LARGEST, (np.abs(found.mean) > _FAR * found.std) & (found.std > 0)
    if not (beyond | lost).any():
        return
    column = int(np.argmax(beyond if beyond.any() else lost))
    raise DataError(
        f"{source.describe()}: {column_text(column, column_names)} goes from {found.minimum[column]:.9g} to"
        f" {found.maximum[column]:.9g}",
        wanted="numbers within float32's range" if beyond.any() else "numbers that float32 can tell apart",
        do="add --precision fp64, or --scale standard",
    )


def refuse_lost_targets(labels: np.ndarray, spec: TargetSpec, precision: str, where: str | Place) -> None:
    """Targets far from 0 beside their spread (a Unix time, say), or beyond float32's range.

    Raises:
        DataError: float32 would make equal numbers, or infinity, of them.
    """
    if spec.kind != "real" or precision_of(precision).type == "float64":
        return
    if (largest := float(np.abs(labels).max())) > _LARGEST:
        do = "add --precision fp64, or scale y down"
        raise DataError(f"{where} goes to {largest:.3g}", wanted="numbers within float32's range", do=do)
    mean, spread = np.abs(labels.mean(axis=0, dtype=np.float64)), labels.std(axis=0, dtype=np.float64)
    if (mean > _FAR * spread).any() and (spread > 0).any():
        raise DataError(
            f"{where} has a mean of {mean.max():.3g} and a spread of {spread.min():.3g}",
            wanted="numbers that float32 can tell apart",
            do="add --precision fp64, or take the mean off y",
        )
