"""A data file as training sees it: rows X, targets y, weights, and what they are called.

`open_dataset` finds the datasets by their usual names (`names`), takes none that leads out of the file (`guard`),
and gives X as a source that is read in blocks, y and the weights as arrays. y comes as the user has it: numbers are
not yet turned into classes (`targets` does that), so that 1 … 10 can stay 1 … 10.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import guard, names
from .hdf5.file import HdfFile
from .hdf5.rows import HdfRows, read_numbers
from .hdf5.stored import Stored
from .memory import available_memory
from .source import RowSource, shape_text
from .targets import interpret

_TEXTS = 1 << 17  # texts read at a time
_COUNTED = 100  # classes that `describe_file` lists with their numbers of rows


@dataclass(frozen=True, eq=False)
class Dataset:
    """One set of rows of a file.

    Attributes:
        path: the file as the user named it.
        source: the m rows of X; `close` closes the file.
        target: y as stored, native byte order: (m,) or (m, K) numbers, or (m,) text (NumPy str); None without y.
        weights: (m,) float64, none negative, not all zero; None without weights.
        x_name, y_name, weights_name: the datasets' paths in the file.
        split: "train", "val" or "test"; None where all rows are one set.
        feature_names: one per column, where the file has them.
    """

    path: str
    source: RowSource
    target: NDArray[Any] | None
    weights: NDArray[np.float64] | None
    x_name: str
    y_name: str | None
    weights_name: str | None
    split: str | None
    feature_names: tuple[str, ...] | None

    def close(self) -> None:
        """Close the file."""
        self.source.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_dataset(
    path: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    split: str | None = None,
    y_required: bool = True,
) -> Dataset:
    """Open one set of rows of an HDF5 file.

    Args:
        path: the file.
        x, y, weights: datasets to take in place of those with the usual names; ``weights="none"`` takes no weights.
        split: "train", "val" or "test"; None takes the training rows, or all rows where there are no splits.
        y_required: whether a file without y is an error (for predictions it is not).

    Raises:
        DataError: the file, a dataset or a value in y or the weights cannot be used; one line says which and why.
    """
    shown = os.fspath(path)
    x, y, weights = (name if name is None else name.strip("/") for name in (x, y, weights))
    file = guard.open_file(path)
    try:
        for name in (x, y, weights):
            file.refuse_links(name)
        try:
            chosen = names.choose(
                list(file.entries), shown, x=x, y=y, weights=weights, split=split, y_required=y_required
            )
        except DataError as error:
            raise file.unseen(error) from None
        source = HdfRows(file, file.dataset(chosen.x))
        target = weighed = None
        if chosen.y is not None:
            target = _read_target(file, file.dataset(chosen.y), chosen, source)
        if chosen.weights is not None:
            weighed = _read_weights(file, file.dataset(chosen.weights), chosen, source)
        labels = _feature_names(file, chosen.x, source.features)
        file.rest()
    except BaseException:
        file.close()
        raise
    return Dataset(shown, source, target, weighed, chosen.x, chosen.y, chosen.weights, chosen.split, labels)


def splits(path: str | os.PathLike[str], *, x: str | None = None) -> tuple[str, ...]:
    """Which of "train", "val" and "test" the file has rows for, in this order; empty where all rows are one set.

    Raises:
        DataError: the file cannot be read.
    """
    with guard.open_file(path) as file:
        return names.splits(list(file.entries), x and x.strip("/"))


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a data file holds, in plain types that JSON can carry.

    Returns:
        `path`, `bytes`, `attributes` (text and numbers on the file itself), `datasets` (one record each: `name`,
        `shape`, `dtype`, `chunks`, `compression`, `role`, `split`, `trouble`), and `parts`: for each set of rows
        its `split`, `x`, `y`, `weights`, `rows`, `features`, and `target`, what y would be taken for with `classes`
        and `counts`; or `trouble`, the line that training would stop with.

    Raises:
        DataError: it is no HDF5 file, or damaged.
    """
    shown = os.fspath(path)
    with guard.open_file(path) as file:
        records = [_record(entry) for _, entry in sorted(file.entries.items())]
        attributes = file.attributes
        there = names.splits(list(file.entries))
    parts = [_describe_part(shown, split) for split in there or (None,)]
    size = Path(path).stat().st_size
    return {"path": shown, "bytes": size, "attributes": attributes, "datasets": records, "parts": parts}


def _read_target(file: HdfFile, values: Stored, chosen: names.Names, source: RowSource) -> NDArray[Any]:
    shown = file.shown
    what = f"{shown}: y {names.quoted(chosen.y or '')}"
    if len(values.shape) not in (1, 2):
        raise DataError(f"{what} has the shape {values.shape}", wanted="(rows,) or (rows, outputs)")
    if values.shape[0] != source.m:
        transposed = source.features == values.shape[0] or values.shape[0] == 1 < values.shape[-1] == source.m
        raise DataError(
            f"{shown}: X {names.quoted(chosen.x)} has {source.m} rows and y {names.quoted(chosen.y or '')}"
            f" has {values.shape[0]}",
            wanted="one y for every row of X",
            do="one of them looks transposed: store it with one example per row" if transposed else "",
        )
    if 0 in values.shape:
        raise DataError(f"{what} is empty, its shape is {values.shape}", wanted="at least one column")
    # In memory a text is a Python object of some 80 bytes, or four bytes for each of its characters.
    each = 80 if values.dtype.kind == "O" else values.dtype.itemsize * (5 if values.dtype.kind == "S" else 1)
    need, free = math.prod(values.shape) * each, available_memory()
    if need > free:
        raise DataError(f"{what} takes {need:,} bytes", wanted=f"at most the {free:,} that are free")
    target = _text(file, values, what) if values.text else read_numbers(file, values, what)
    return target[:, 0] if target.ndim == 2 and target.shape[1] == 1 else target


def _text(file: HdfFile, values: Stored, what: str) -> NDArray[np.str_]:
    """All of a dataset of text, piece by piece: NumPy keeps every text as long as the longest."""
    parts: list[NDArray[np.str_]] = []
    longest, free = 1, available_memory()
    for start in range(0, values.shape[0], _TEXTS):
        part = np.array(file.text(values, start, min(start + _TEXTS, values.shape[0])), dtype=np.object_)
        lengths = [len(text) for text in part.reshape(-1)]
        longest = max(longest, *lengths)
        if longest * 4 * math.prod(values.shape) > free:
            row = start + lengths.index(max(lengths)) // max(1, math.prod(values.shape[1:]))
            raise DataError(f"{what} row {row} is a text of {longest:,} characters", wanted="short class labels")
        parts.append(part.astype(np.str_))
    return np.concatenate(parts)


def _read_weights(file: HdfFile, values: Stored, chosen: names.Names, source: RowSource) -> NDArray[np.float64]:
    what = f"{file.shown}: weights {names.quoted(chosen.weights or '')}"
    if values.shape not in ((source.m,), (source.m, 1)):
        raise DataError(
            f"{what} has the shape {values.shape}",
            wanted=f"one weight for each of the {source.m} rows",
            do="say --weights NAME, or --weights none to train without",
        )
    found = read_numbers(file, values, what).reshape(-1).astype(np.float64)
    check_weights(found, what)
    return found


def check_weights(weights: NDArray[np.float64], what: str) -> None:
    """Raise DataError unless the row weights are finite, none negative and not all zero."""
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{what} row {row} is {weights[row]}", wanted="weights that are finite and not negative")
    if not weights.any():
        raise DataError(f"{what} are all zero", wanted="at least one positive weight")


def _feature_names(file: HdfFile, x_name: str, features: int) -> tuple[str, ...] | None:
    """`feature_names` as a dataset beside X, or an attribute of X or of the file; None if there are more or fewer."""
    beside = file.entries.get(f"{x_name.rpartition('/')[0]}/feature_names".lstrip("/"))
    found: Any = None
    if beside is not None and beside.text and not beside.trouble and beside.shape[:1] == (features,):
        found = file.text(beside, 0, features)
    else:
        found = file.entries[x_name].attributes.get("feature_names", file.attributes.get("feature_names"))
    if not isinstance(found, list) or len(found) != features or any(isinstance(one, list) for one in found):
        return None
    return tuple(map(str, found))


def _record(entry: Stored) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": entry.path,
        "role": names.role_of(entry.path),
        "split": names.split_of(entry.path),
        "trouble": f"{entry.trouble}; {entry.remedy}" if entry.trouble else None,
    }
    if entry.layout == "none":
        return record
    kind = "text" if entry.text else entry.odd or str(entry.dtype)
    filters = [one.name or f"filter {one.code}" for one in entry.filters]
    return record | {
        "shape": list(entry.shape),
        "dtype": kind,
        "layout": entry.layout,
        "chunks": entry.chunk_shape and list(entry.chunk_shape),
        "compression": ", ".join(filters) or None,
    }


def _describe_part(path: str, split: str | None) -> dict[str, Any]:
    try:
        with open_dataset(path, split=split, y_required=False) as data:
            part: dict[str, Any] = {
                "split": split,
                "x": data.x_name,
                "y": data.y_name,
                "weights": data.weights_name,
                "rows": data.source.m,
                "features": data.source.features,
                "dtype": str(data.source.dtype),
            }
            if data.target is not None:
                part["target"] = _describe_target(data.target, f"{path}: {names.quoted(data.y_name or '')}")
            return part
    except DataError as error:
        return {"split": split, "trouble": str(error)}


def _describe_target(target: NDArray[Any], where: str) -> dict[str, Any]:
    cost, spec = interpret(target, where=where)
    found: dict[str, Any] = {"kind": spec.kind, "outputs": spec.outputs, "cost": cost, "says": spec.describe()}
    found["stored"] = shape_text(target.shape, target.dtype)
    if spec.classes is not None:
        found["classes"] = list(spec.classes)
        if len(spec.classes) <= _COUNTED:
            found["counts"] = [int(np.count_nonzero(target == label)) for label in spec.classes]
    return found
