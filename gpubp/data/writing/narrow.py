"""The smallest type that holds every value exactly, found without reading everything twice.

Integers stay integers, floats floats of at least float32 (float16 stays float16: it is exact as it is, and is read as
it is). Integers become int8 before uint8, so that small counts are not taken for the bytes of images.

A few blocks of a table give a type that is small enough for them (`guess`); it is never larger than the right one.
Rows are then written in it, each block looked at on its way (`exactly`); a value that does not fit ends that, and only
then is the whole table scanned (`smallest_exact`) and written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INTEGERS = tuple(map(np.dtype, (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)))
_SAMPLES = 5  # blocks that a guess looks at
_SAMPLE = 1 << 18  # bytes of each


def narrows(stored: np.dtype[Any]) -> bool:
    """Whether a smaller type could hold all values of this one that there are."""
    return (stored.kind in "iu" and stored.itemsize > 1) or (stored.kind == "f" and stored.itemsize == 8)


def smallest_exact(values: NDArray[Any], rows: int | None = None) -> np.dtype[Any]:
    """The smallest type that holds every value of an array exactly; see the top of this file.

    Args:
        values: at least one, the first axis being rows.
        rows: how many are looked at at a time; None takes about 8 MiB.
    """
    step = rows or max(1, (8 << 20) * values.shape[0] // max(1, values.nbytes))
    return smallest_of(values.dtype, (values[at : at + step] for at in range(0, values.shape[0], step)))


def smallest_of(stored: np.dtype[Any], blocks: Iterable[NDArray[Any]]) -> np.dtype[Any]:
    """`smallest_exact` of values of type `stored` that come in blocks, none of them empty."""
    if not narrows(stored):
        return stored.newbyteorder("=")
    if stored.kind == "f":
        fits = all(exactly(block, np.dtype(np.float32)) is not None for block in blocks)
        return np.dtype(np.float32 if fits else np.float64)
    low, high = 0, 0
    for block in blocks:
        low, high = min(low, int(block.min())), max(high, int(block.max()))
    return next(dtype for dtype in _INTEGERS if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max)


def guess(stored: np.dtype[Any], m: int, row_bytes: int, read: Callable[[int, int], NDArray[Any]]) -> np.dtype[Any]:
    """The smallest type for some of the rows: never larger than that for all.

    Args:
        m, row_bytes: rows, and bytes of one of them.
        read: gives rows [start, stop).
    """
    if not narrows(stored):
        return stored.newbyteorder("=")
    step = max(1, min(m, _SAMPLE // max(1, row_bytes)))
    starts = sorted({(m - step) * k // (_SAMPLES - 1) for k in range(_SAMPLES)})
    return smallest_of(stored, (read(start, start + step) for start in starts))


def exactly(rows: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any] | None:
    """The rows in another type, C-contiguous; None if a value would change. NaN may lose its payload, no more."""
    if not narrows(rows.dtype) or dtype == rows.dtype:
        return np.ascontiguousarray(rows, dtype=dtype)
    if rows.dtype.kind == "f":
        wide = np.ascontiguousarray(rows, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = wide.astype(dtype)
        same = narrow == wide
        if same.all() or (same | np.isnan(wide)).all():
            return narrow
        return None
    limits = np.iinfo(dtype)
    if int(rows.min()) < limits.min or int(rows.max()) > limits.max:
        return None
    return np.ascontiguousarray(rows, dtype=dtype)
