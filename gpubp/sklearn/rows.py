"""X as rows that gpubp reads: arrays and frames, sparse matrices by blocks, files and HDF5 datasets from the disk."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.place import Place
from ..data.source import ArrayRows, Extent, RowSource, row_dtype, shape_text
from ..errors import DataError
from ..prepare import as_array, as_weights


class SparseRows:
    """The rows of a CSR matrix, made dense block by block.

    Args:
        matrix: (m, features), SciPy's CSR.
    """

    slow = ""

    def __init__(self, matrix: Any) -> None:
        self.m, self.features = (int(n) for n in matrix.shape)
        self.dtype = row_dtype(matrix.dtype, "X")
        self._matrix = matrix

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        np.copyto(out, self._matrix[start:stop].toarray())

    def extent(self) -> Extent | None:
        return None

    def check(self) -> None:
        pass

    def where(self, row: int) -> str:
        return f"X row {row}"

    def describe(self) -> str:
        return f"X {shape_text((self.m, self.features), self.dtype)}, sparse"

    def close(self) -> None:
        pass


def is_stored(X: Any) -> bool:
    """Whether X is a file, several files, or a dataset of h5py's."""
    if isinstance(X, list | tuple):
        return len(X) > 0 and all(isinstance(one, str | os.PathLike) for one in X)
    return isinstance(X, str | os.PathLike) or _is_dataset(X)


def in_memory(X: Any, y: Any = None, weights: np.ndarray | None = None) -> Dataset:
    """Checked arrays as a data set: X dense or CSR, y as it will be encoded, weights (m,)."""
    source: RowSource = SparseRows(X) if hasattr(X, "toarray") else ArrayRows(X)
    return Dataset("", source, y, weights, "X", "y", None if weights is None else "sample_weight", None, None)


def stored(X: Any, y: Any = None, weights: Any = None, *, labelled: bool, split: str | None = None) -> Dataset:
    """Rows that stay on the disk.

    Args:
        X: a path, a pattern or several of them; or a dataset of h5py's, whose file is opened again: one that is being
            written to is refused.
        y, weights: names of datasets beside X, arrays, datasets of h5py's, or None: found by the usual names.
        labelled: whether y and weights are wanted at all.
        split: "train" or "test", taken where the file has such rows and X is no dataset.

    Raises:
        DataError: a file, a dataset or an array cannot be used.
    """
    from ..data.several import open_all, splits_of

    given = labelled and y is not None and not isinstance(y, str)
    weighed = labelled and weights is not None and not isinstance(weights, str)
    names: dict[str, Any] = {
        "y": "none" if given or not labelled else y,
        "weights": "none" if weighed or not labelled else weights,
    }
    if _is_dataset(X):
        names["x"] = X.name
        X = os.fsdecode(X.file.filename)
    elif split is not None and split in splits_of(X):
        names["split"] = split
    dataset = open_all(X, **names, y_required=labelled and not given)
    try:
        m = dataset.source.m
        if given:
            target = as_array(_read(y), "y")
            if target.ndim == 0 or len(target) != m:
                raise DataError(f"y of shape {target.shape} beside {m} rows of X", wanted="as many rows as X has")
            dataset = replace(dataset, target=target, y_place=Place("y"))
        if weighed:
            dataset = replace(dataset, weights=as_weights(_read(weights), m))
    except BaseException:
        dataset.close()
        raise
    return dataset


def _is_dataset(values: Any) -> bool:
    """Whether these are a dataset of h5py's; where nobody has imported it, they are not."""
    h5py = sys.modules.get("h5py")
    return h5py is not None and isinstance(values, h5py.Dataset)


def _read(values: Any) -> Any:
    """The values of a dataset, text as text; anything else as it is."""
    if not _is_dataset(values):
        return values
    return values.asstr()[...] if values.dtype.kind in "OS" else values[...]
