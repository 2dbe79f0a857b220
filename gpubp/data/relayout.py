"""HDF5 that becomes HDF5: other names, other layouts, other byte orders, and what MATLAB saves with ``-v7.3``.

Everything is read as training reads it (`dataset`), so what training would refuse is refused here with the same line.
MATLAB keeps its arrays transposed: what was X (rows × features) there lies in the file as features × rows. It is
unpacked into a scratch file and read across from there.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from . import guard, names
from .dataset import Dataset, check_weights, open_dataset, splits
from .formats import Part, Request, scratch_file
from .hdf5.file import HdfFile
from .hdf5.rows import HdfRows, read_numbers
from .hdf5.stored import Stored
from .source import row_dtype
from .writing.checksums import ON_FILE, SUFFIX, Sealed
from .writing.tables import (
    DROPPED,
    AcrossColumn,
    Column,
    NamedColumn,
    SourceColumn,
    Table,
    column_of,
    map_of,
    table_of,
    texts,
)

_MATLAB = b"MATLAB 7.3 MAT-file"
_NUMBERS = {"double", "single", "logical"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_PIECE = 8 << 20
_HISTORY = 1 << 15  # characters


def tables(source: Path, request: Request, layout: str, force: bool) -> tuple[str, dict[str, Any], list[Table]]:
    """What the file is called, the attributes that the result is to have of it, and its rows.

    Args:
        layout: the one that is wanted; a file of ours that has it is refused unless `force` is true.

    Raises:
        DataError: it cannot be used.
        UsageError: there is nothing to do, or an option means nothing here.
    """
    with open(source, "rb") as file:
        matlab = file.read(len(_MATLAB)) == _MATLAB
    title = "a MAT v7.3 file" if matlab else "an HDF5 file"
    request.refuse_but(("x", "y", "weights") if matlab else ("x", "y", "weights", "allow"), title)
    if matlab:
        return title, {}, _matlab(source, request)
    said = (request.x, request.y, request.weights)
    with guard.open_file(source) as opened:
        ours = opened.attributes.get("layout") if "digest" in opened.attributes else None
        if ours == layout and not force and said == (None, None, None):
            wanted = "train on it as it is, check it with gpubp verify, or say --force"
            raise UsageError(f"{source} is laid out so already, with checksums", do=wanted)
        attributes = _kept(opened.attributes)
    found: list[Table] = []
    try:
        for split in splits(source, x=request.x) or (None,):
            found.append(_table(source, split, request))
    except BaseException:
        for table in found:
            table.close()
        raise
    return title, attributes, found


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a file that are its author's; what an earlier conversion noted becomes `history`."""
    ours = ("digest", *ON_FILE) if "digest" in attributes else ("digest", "content", "layout")
    kept = {name: value for name, value in attributes.items() if name not in ours and name != "history"}
    if "digest" in attributes:
        earlier = json.loads(str(attributes.get("history", "[]")))
        earlier.append({name: attributes[name] for name in ON_FILE if name in attributes})
        while len(line := json.dumps(earlier)) > _HISTORY:
            del earlier[0]
        kept["history"] = line
    return kept


def _table(source: Path, split: str | None, request: Request) -> Table:
    required = request.wants_y and split in (None, "train")
    y = request.y if request.wants_y else None
    data = open_dataset(
        source, x=request.x, y=y, weights=request.weights, split=split, y_required=required, allow=request.allow
    )
    try:
        with guard.open_file(source) as file:
            columns = [_named(file, "X", _x_column(data, file), data.x_name)]
            if data.target is not None and data.y_name is not None and request.wants_y:
                columns.append(_named(file, "y", column_of(data.target), data.y_name))
            if data.weights is not None and data.weights_name is not None:
                columns.append(_named(file, "weights", column_of(data.weights), data.weights_name))
            columns += texts("feature_names", data.feature_names)
            columns += texts("class_names", _class_names(file, data))
    except BaseException:
        data.close()
        raise
    return Table(data.split, columns, data.source.check, data.close)


def _x_column(data: Dataset, file: HdfFile) -> Column:
    stored = file.entries.get(data.x_name)
    return SourceColumn(data.source, stored.chunk_shape[0] if stored and stored.chunk_shape else 1)


def _named(file: HdfFile, name: str, column: Column, stored_as: str) -> NamedColumn:
    stored, beside = file.entries.get(stored_as), file.entries.get(stored_as + SUFFIX)
    if stored is None:
        return NamedColumn(name, column, {"source_name": stored_as})
    sealed = None
    rows = beside.attributes.get("block_rows") if beside is not None else None
    if beside is not None and isinstance(rows, int) and "digest" in file.attributes:
        checksums = read_numbers(file, file.dataset(beside.path), f"{file.shown}: {names.quoted(beside.path)}")
        sealed = Sealed(f"{file.shown}: {stored_as}", stored.shape, stored.dtype, rows, checksums.astype(np.uint32), {})
    return NamedColumn(name, column, {"source_name": stored_as, "source_dtype": stored.dtype.str}, sealed)


def _class_names(file: HdfFile, data: Dataset) -> tuple[str, ...] | None:
    """`class_names` as a dataset beside X, or an attribute of y, of X or of the file."""
    beside = file.entries.get(f"{data.x_name.rpartition('/')[0]}/class_names".lstrip("/"))
    found: Any = None
    if beside is not None and beside.text and not beside.trouble and len(beside.shape) == 1:
        found = file.text(beside, 0, beside.shape[0])
    else:
        places = [file.entries[name].attributes for name in (data.y_name, data.x_name) if name in file.entries]
        found = next((one["class_names"] for one in (*places, file.attributes) if "class_names" in one), None)
    named = isinstance(found, list) and bool(found) and all(isinstance(one, str) for one in found)
    return tuple(found) if named else None


def _matlab(source: Path, request: Request) -> list[Table]:
    with guard.open_file(source) as file, ExitStack() as opened:
        there = [path for path in file.entries if not path.startswith("#")]
        sparse = {path.rpartition("/")[0] for path in there if path.endswith("/jc")}
        there = sorted({path for path in there if path.rpartition("/")[0] not in sparse} | sparse)
        found = []
        for split in names.splits(there, request.x) or (None,):
            chosen = names.choose(
                there,
                str(source),
                x=request.x,
                y=request.y if request.wants_y else None,
                weights=request.weights,
                split=split,
                y_required=request.wants_y and split in (None, "train"),
            )
            X, scratch = _across(file, chosen.x, sparse, request)
            opened.callback(scratch.close)
            y = _in_memory(file, chosen.y, sparse, request) if request.wants_y else None
            weights = _in_memory(file, chosen.weights, sparse, request)
            _compare(file, chosen.x, X, chosen.y, y)
            if weights is not None:
                weights = weights.reshape(-1)
                check_weights(weights.astype(np.float64), f"{source}: weights {names.quoted(chosen.weights or '')}")
            table = table_of(Part(chosen.split, X, None if y is None else _column(y, X.shape[0]), weights), str(source))
            for one, name in zip(table.columns, (chosen.x, chosen.y, chosen.weights), strict=False):
                one.noted["source_name"] = name or ""
            table.columns[0].column = AcrossColumn(scratch, X.dtype, X.shape)
            table.close = scratch.close
            found.append(table)
        opened.pop_all()  # from now on the tables close them
    return found


def _in_memory(file: HdfFile, name: str | None, sparse: set[str], request: Request) -> NDArray[Any] | None:
    if name is None:
        return None
    values, scratch = _across(file, name, sparse, request)
    with scratch:
        return np.array(values)


def _column(y: NDArray[Any], m: int) -> NDArray[Any]:
    """y as (m,) where it is one value a row: MATLAB has columns and rows, and no vectors."""
    return y.reshape(-1) if y.size == m else y


def _compare(file: HdfFile, x_name: str, X: NDArray[Any], y_name: str | None, y: NDArray[Any] | None) -> None:
    m = X.shape[0]
    if y is not None and y.size != m and y.shape[0] != m:
        across = X.shape[-1] in (y.size, y.shape[0])
        of_y = f"y {names.quoted(y_name or '')} {_size(y)}"
        raise DataError(
            f"{file.shown}: X {names.quoted(x_name)} is {_size(X)} in MATLAB and {of_y}",
            wanted="one row of each for every example",
            do="save it with one example a row: X = X.'" if across else "",
        )


def _size(values: NDArray[Any]) -> str:
    return " × ".join(map(str, values.shape))


def _across(file: HdfFile, name: str, sparse: set[str], request: Request) -> tuple[NDArray[Any], IO[bytes]]:
    """An array as it was in MATLAB, mapped from a scratch file; and that file.

    Raises:
        DataError: it is no full array of numbers.
    """
    what = f"{file.shown}: {names.quoted(name)}"
    if name in sparse:
        raise DataError(f"{what} is a sparse matrix", wanted="a full one", do="save full(X) in its place")
    entry = file.entries[name]
    kind = str(entry.attributes.get("MATLAB_class", "double"))
    if kind not in _NUMBERS or "MATLAB_object_decode" in entry.attributes:
        raise DataError(f"{what} is of MATLAB's class {names.quoted(kind)}", wanted="a full array of numbers")
    if entry.attributes.get("MATLAB_empty"):
        raise DataError(f"{what} is empty", wanted="at least one row and one column")
    stored = file.dataset(name)
    if stored.odd or stored.dtype.names == ("real", "imag"):
        raise DataError(f"{what} holds {stored.odd or 'complex numbers'}", wanted="real numbers")
    dtype = row_dtype(stored.dtype, what)
    values, scratch = _unpacked(file, stored, dtype, request)
    return values.transpose(), scratch


def _unpacked(file: HdfFile, stored: Stored, dtype: np.dtype[Any], request: Request) -> tuple[NDArray[Any], IO[bytes]]:
    """All values, in the order of the file, in a scratch file that has room for them."""
    if math.prod(stored.shape) == 0:
        raise DataError(f"{file.shown}: {names.quoted(stored.path)} is empty", wanted="at least one row and one column")
    rows = HdfRows(file, stored.as_table())
    scratch = scratch_file(request)
    try:
        os.posix_fallocate(scratch.fileno(), 0, math.prod(stored.shape) * dtype.itemsize)
        return _filled(rows, np.memmap(scratch, dtype, "r+", shape=stored.shape)), scratch
    except BaseException:
        scratch.close()
        raise


def _filled(rows: HdfRows, out: NDArray[Any]) -> NDArray[Any]:
    """All rows in a map of a file."""
    flat = out.reshape(rows.m, rows.features)
    step = max(1, _PIECE // max(1, rows.features * rows.dtype.itemsize))
    mapped, each = map_of(out), max(1, DROPPED // max(1, rows.features * rows.dtype.itemsize))
    for start in range(0, rows.m, step):
        rows.read(start, min(start + step, rows.m), flat[start : start + step])
        if mapped is not None and start // each != (start + step) // each:
            mapped.madvise(mmap.MADV_DONTNEED)  # the kernel has them, and writes them to the disk in time
    return out
