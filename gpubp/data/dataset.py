"""A data file as training sees it: rows X, targets y, weights, and what they are called.

`open_dataset` finds the datasets by their usual names (`names`) or the fields of a table (`tables`), takes none that
leads out of the file (`guard`) unless its folder is allowed (`virtual`), and gives X as a source that is read in
blocks, y and the weights as arrays. y comes as the user has it: numbers are not yet turned into classes (`targets` does
that), so that 1 … 10 can stay 1 … 10.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import guard, names, tables, virtual
from .hdf5.file import HdfFile
from .hdf5.rows import HdfRows, read_numbers
from .hdf5.stored import Stored
from .memory import available_memory
from .place import Place, row_of
from .source import RowSource, row_dtype
from .tables import FieldRows, Named
from .virtual import Part

_TEXTS = 1 << 17  # texts read at a time


@dataclass(frozen=True, eq=False)
class Dataset:
    """One set of rows of a file, or of several.

    Attributes:
        path: the file as the user named it, or the first and how many more; "" for arrays.
        source: the m rows of X; `close` closes the file.
        target: y as stored, native byte order: (m,) or (m, K) numbers, or (m,) text (NumPy str); None without y.
        weights: (m,) float64, none negative, not all zero; None without weights.
        x_name, y_name, weights_name: the datasets' paths in the file.
        split: "train", "val" or "test"; None where all rows are one set.
        feature_names: one per column, where the file has them.
        y_place: what messages call y and its rows.
        column_names: what messages call the columns: the feature names, or the numbers they had before a selection.
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
    y_place: Place = field(default_factory=lambda: Place("y"))
    column_names: tuple[str, ...] | None = None

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
    allow: str | None = None,
) -> Dataset:
    """Open one set of rows of an HDF5 file.

    Args:
        path: the file.
        x, y, weights: datasets to take in place of those with the usual names, or fields of a compound one, such as
            ``jets[pt,eta]``; ``weights="none"`` takes no weights, ``y="none"`` no y where it is not required.
        split: "train", "val" or "test"; None takes the training rows, or all rows where there are no splits.
        y_required: whether a file without y is an error (for predictions it is not).
        allow: the folder in which the sources of virtual datasets may lie; None to refuse those.

    Raises:
        DataError: the file, a dataset or a value in y or the weights cannot be used; one line says which and why.
    """
    shown = os.fspath(path)
    file = guard.open_file(path)
    held = [file]

    def parts(path: str) -> tuple[Part, ...]:
        found = virtual.parts(file, path, allow)
        held.extend(part.file for part in found)
        return found

    try:
        asked = [Named.of(name and name.strip("/"), file.entries) for name in (x, y, weights)]
        for one in asked:
            if allow is None or not virtual.is_virtual(file, one.path):
                file.refuse_links(one.path)
        chosen = _choose(file, asked, split, y_required)
        of_x, of_y, of_w = asked
        found = parts(chosen.x)
        declared = file.entries[chosen.x]
        if declared.dtype.names and not of_x.fields:
            raise tables.name_the_fields(shown, declared)
        source = _rows(found, declared, of_x.fields)
        target = weighed = None
        if chosen.y is not None:
            target = _read_target(file, parts(chosen.y), chosen, of_y.fields, source)
        if chosen.weights is not None:
            weighed = _read_weights(file, parts(chosen.weights), chosen, of_w.fields, source)
        labels = _feature_names(file, chosen.x, source.features)
        if of_x.fields:
            labels = FieldRows(found[0].file, found[0].stored, of_x.fields).feature_names
        for part in found:
            part.file.rest()
        if all(part.file is not file for part in found):
            file.close()
        file.rest()
    except BaseException:
        for opened in held:
            opened.close()
        raise
    x_name, y_name, w_name = (
        None if base is None else str(Named(base, one.fields))
        for base, one in zip((chosen.x, chosen.y, chosen.weights), asked, strict=True)
    )
    place = Place(f"{shown}: {names.quoted(y_name or '')}")
    return Dataset(shown, source, target, weighed, x_name or "", y_name, w_name, chosen.split, labels, place, labels)


def splits(path: str | os.PathLike[str], *, x: str | None = None) -> tuple[str, ...]:
    """Which of "train", "val" and "test" the file has rows for, in this order; empty where all rows are one set.

    Raises:
        DataError: the file cannot be read.
    """
    with guard.open_file(path) as file:
        return names.splits(list(file.entries), Named.of(x and x.strip("/"), file.entries).path)


def _choose(file: HdfFile, asked: list[Named], split: str | None, y_required: bool) -> names.Names:
    """The datasets of the rows; where a table of records could have been meant, an error that lists its fields."""
    x, y, weights = asked
    try:
        return names.choose(
            list(file.entries), file.shown, x=x.path, y=y.path, weights=weights.path, split=split, y_required=y_required
        )
    except DataError as error:
        table = tables.offered(file.entries, x) if y.path is None else None
        if table is None:
            raise file.unseen(error) from None
        raise tables.name_the_fields(file.shown, table, x.fields) from None


def _rows(parts: tuple[Part, ...], declared: Stored, fields: tuple[str, ...]) -> RowSource:
    if fields:
        return virtual.stack(parts, lambda file, stored: FieldRows(file, stored, fields))
    several = len(parts) > 1
    return virtual.stack(parts, HdfRows, row_dtype(declared.dtype, parts[0].file.shown) if several else None)


def _values(parts: tuple[Part, ...], fields: tuple[str, ...], file: HdfFile, what: str) -> NDArray[Any]:
    """All values of a dataset, or of fields of it, as numbers or text."""

    def read(of: HdfFile, stored: Stored) -> NDArray[Any]:
        if fields:
            return tables.read_fields(of, stored, fields, what)
        return _text(of, stored, what) if stored.text else read_numbers(of, stored, what)

    return virtual.read_all(parts, read, file)


def _read_target(
    file: HdfFile, parts: tuple[Part, ...], chosen: names.Names, fields: tuple[str, ...], source: RowSource
) -> NDArray[Any]:
    shown, values = file.shown, file.entries[chosen.y or ""]
    name = names.quoted(str(Named(chosen.y, fields)))
    what = f"{shown}: y {name}"
    if len(values.shape) not in (1, 2):
        raise DataError(f"{what} has the shape {values.shape}", wanted="(rows,) or (rows, outputs)")
    if values.shape[0] != source.m:
        transposed = source.features == values.shape[0] or values.shape[0] == 1 < values.shape[-1] == source.m
        raise DataError(
            f"{shown}: X {names.quoted(chosen.x)} has {source.m} rows and y {name} has {values.shape[0]}",
            wanted="one y for every row of X",
            do="one of them looks transposed: store it with one example per row" if transposed else "",
        )
    if 0 in values.shape:
        raise DataError(f"{what} is empty, its shape is {values.shape}", wanted="at least one column")
    # In memory a text is a Python object of some 80 bytes, or four bytes for each of its characters.
    kinds = [values.dtype[field] for field in fields if field in (values.dtype.names or ())] or [values.dtype]
    each = sum(80 if one.kind == "O" else one.itemsize * (5 if one.base.kind == "S" else 1) for one in kinds)
    need, free = math.prod(values.shape) * each, available_memory()
    if need > free:
        raise DataError(f"{what} takes {need:,} bytes", wanted=f"at most the {free:,} that are free")
    target = _values(parts, fields, file, what)
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


def _read_weights(
    file: HdfFile, parts: tuple[Part, ...], chosen: names.Names, fields: tuple[str, ...], source: RowSource
) -> NDArray[np.float64]:
    what = f"{file.shown}: weights {names.quoted(str(Named(chosen.weights, fields)))}"
    shape = file.entries[chosen.weights or ""].shape
    if shape not in ((source.m,), (source.m, 1)) or len(fields) > 1:
        raise DataError(
            f"{what} has the shape {shape}",
            wanted=f"one weight for each of the {source.m} rows",
            do="say --weights NAME, or --weights none to train without",
        )
    found = _values(parts, fields, file, what)
    if found.dtype.kind == "U":
        raise DataError(f"{what} holds text", wanted="real numbers (bool, integers, or floats of at most 8 bytes)")
    if found.dtype.kind not in "buif" or found.size != source.m:
        raise DataError(f"{what} is no single number in a row", wanted="one weight for each row")
    found = found.reshape(-1).astype(np.float64)
    check_weights(found, what)
    return found


def check_weights(weights: NDArray[np.float64], what: str | Place) -> None:
    """Raise DataError unless the row weights are finite, none negative and not all zero."""
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{row_of(what, row)} is {weights[row]}", wanted="weights that are finite and not negative")
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
