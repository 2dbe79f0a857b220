"""`gpubp convert`: any format we read becomes one HDF5 file that training reads at the speed of the disk.

What is written: X (rows × features) and y, for each split in a group of its own; contiguous, native byte order, in
the smallest type that holds every value exactly. Integers become int8 before uint8, so that small counts are not
taken for the bytes of images. Rows pass in blocks. The file is made under another name in the folder of the result,
brought to the disk, and only then named: under the final name there is a whole file or none.

A new format is one function in `formats`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from .formats import Part, Request, formats, recognise
from .guard import is_hdf5, regular_file
from .source import columns_of, row_dtype

_BLOCK = 8 << 20  # bytes looked at or written at a time
_INTEGERS = tuple(map(np.dtype, (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)))


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    weights: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    header: bool | None = None,
    overwrite: bool = False,
    version: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Write the rows of `src` to the HDF5 file `dst`.

    Args:
        src: a file in one of the `formats`.
        dst: the file to make.
        x, y, weights: names of arrays or columns in place of the usual ones; ``y="none"`` takes no labels.
        labels: the file with the labels, where they are kept apart.
        header: whether a text file begins with column names; None finds out.
        overwrite: whether `dst` may be replaced.
        version: gpubp's, to be noted in the file; None takes that of the running one.
        progress: called with (rows written, rows in all).

    Returns:
        `source`, `target`, `format`, `bytes`, and for each of `parts` its `split`, `rows`, `features`, `x_dtype`,
        `y_shape`, `y_dtype` (None without y): JSON can carry it.

    Raises:
        DataError: the source cannot be read, or the result cannot be written.
        UsageError: `dst` exists and may not be replaced, or is the source itself.
    """
    source, target = regular_file(src), Path(dst)
    if target.exists() and target.samefile(source):
        raise UsageError(f"{source} would be converted to itself", do="name another file to write")
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists", wanted="a new name", do="say --overwrite to replace it")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", do="make it first")
    found = recognise(source)
    if is_hdf5(source):
        raise UsageError(f"{source} is an HDF5 file already", do="train on it as it is")
    if found is None:
        titles = ", ".join(one.title for one in formats())
        raise DataError(f"{source} is in no format that is known", wanted=titles)
    apart = None if labels is None else regular_file(labels)
    try:
        request = Request(target.parent, x, y, weights, apart, header)
        request.refuse_but(found.takes, found.title)
        parts = found.read(source, request)
    except OSError as error:  # the source's own troubles are told by its reader: this is the scratch file
        room = f"room and permission in {target.parent}, for scratch files too"
        raise DataError(f"{source} cannot be converted: {error}", wanted=room) from None
    if version is None:
        from .. import __version__ as version
    provenance = {"source": source.name, "converted_by": f"gpubp {version}"}
    records = _write(parts, target, source, provenance, overwrite, progress)
    size = target.stat().st_size
    return {"source": str(source), "target": str(target), "format": found.title, "bytes": size, "parts": records}


def smallest_exact(values: NDArray[Any]) -> np.dtype[Any]:
    """The smallest type that holds every value exactly: integers stay integers, floats floats (float32 or wider)."""
    stored = values.dtype
    if stored.kind in "iu" and stored.itemsize > 1:
        low = min(int(block.min()) for _, block in _blocks(values))
        high = max(int(block.max()) for _, block in _blocks(values))
        return next(dtype for dtype in _INTEGERS if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max)
    if stored.kind == "f" and stored.itemsize == 8:
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = all(_equal(block, block.astype(np.float32)) for _, block in _blocks(values))
        return np.dtype(np.float32 if narrow else np.float64)
    return stored.newbyteorder("=")


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    same = a == b
    return bool(same.all()) or bool((same | (np.isnan(a) & np.isnan(b))).all())


def _blocks(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    rows = max(1, _BLOCK * values.shape[0] // max(1, values.nbytes))
    for start in range(0, values.shape[0], rows):
        yield start, values[start : start + rows]


def _write(
    parts: list[Part],
    target: Path,
    source: Path,
    provenance: dict[str, str],
    overwrite: bool,
    progress: Callable[[int, int], object] | None,
) -> list[dict[str, Any]]:
    """All parts, under another name first; returns their records."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    total = sum(part.X.shape[0] if part.X.ndim else 0 for part in parts)
    done = 0
    try:
        with h5py.File(unfinished, "w") as file:
            file.attrs.update(provenance)
            records = []
            for part in parts:
                group = file if part.split is None else file.create_group(part.split)
                records.append(_checked(part, source))
                for written in _write_part(group, part, records[-1]):
                    if progress is not None:
                        progress(done + written, total)
                done += part.X.shape[0]
        _to_disk(unfinished)
        if target.exists() and not overwrite:  # it appeared meanwhile
            raise DataError(f"{target} exists", wanted="a new name", do="say --overwrite to replace it")
        os.replace(unfinished, target)
        _to_disk(target.parent)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{target} cannot be written: {reason}", wanted="a folder with room and permission") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return records


def _checked(part: Part, source: Path) -> dict[str, Any]:
    """The record of a part, if it is a table of numbers and what belongs to it has as many rows."""
    what = f"{source}" if part.split is None else f"{source} ({part.split})"
    features = columns_of(part.X.shape, f"{what}: X")
    row_dtype(part.X.dtype, f"{what}: X")
    m = part.X.shape[0]
    for name, values in (("y", part.y), ("weights", part.weights)):
        if values is not None and (values.ndim not in (1, 2) or values.shape[0] != m):
            shape = values.shape
            raise DataError(f"{what}: X has {m} rows and {name} has the shape {shape}", wanted=f"one {name} a row")
        if values is not None and values.dtype.kind not in "SU":
            row_dtype(values.dtype, f"{what}: {name}")
    return {
        "split": part.split,
        "rows": m,
        "features": features,
        "x_dtype": str(smallest_exact(part.X)),
        "y_shape": None if part.y is None else list(part.y.shape),
        "y_dtype": None if part.y is None else "text" if part.y.dtype.kind in "SU" else str(smallest_exact(part.y)),
    }


def _write_part(group: h5py.Group, part: Part, record: dict[str, Any]) -> Iterator[int]:
    """X in blocks (giving the rows written so far), then what belongs to it."""
    m, d = record["rows"], record["features"]
    values = group.create_dataset("X", (m, d), record["x_dtype"], track_times=False)
    for start, block in _blocks(part.X):
        rows = np.ascontiguousarray(block.reshape(block.shape[0], d), dtype=values.dtype)
        values.write_direct(rows, dest_sel=np.s_[start : start + rows.shape[0]])
        yield start + rows.shape[0]
    for name, column in (("y", part.y), ("weights", part.weights)):
        if column is not None and column.dtype.kind in "SU":
            _write_text(group, name, column)
        elif column is not None:
            group.create_dataset(name, data=column.astype(smallest_exact(column)), track_times=False)
    if part.feature_names is not None:
        _write_text(group, "feature_names", np.array(part.feature_names, dtype=np.str_))


def _write_text(group: h5py.Group, name: str, column: NDArray[Any]) -> None:
    encoded = np.char.encode(column, "utf-8") if column.dtype.kind == "U" else column
    dtype = h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize))
    group.create_dataset(name, data=encoded.astype(dtype), dtype=dtype, track_times=False)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
