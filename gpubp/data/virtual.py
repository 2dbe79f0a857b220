"""Virtual datasets, read without HDF5 following them: the rows of other files, each opened with all guards.

A virtual dataset names files, and HDF5 would open whatever it names, filling with zeros what is missing. Here it is
taken only where the user allows a folder, only as whole rows put below each other, and each source is opened as a file
of its own, if its real path lies under the folder's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import guard
from .hdf5.file import HdfFile
from .hdf5.stored import Stored
from .names import quoted
from .source import RowSource, StackedRows
from .views import RowRange

COPY = "copy the values into one file, for instance with h5repack or h5py"


@dataclass(frozen=True)
class Part:
    """Rows `rows` of a dataset: of the file itself, or of another that it names."""

    file: HdfFile
    stored: Stored
    rows: range


def is_virtual(file: HdfFile, path: str | None) -> bool:
    """Whether the path stands for a virtual dataset, reached without any link that leads elsewhere."""
    return path is not None and path in file.entries and file.entries[path].layout == "virtual"


def parts(file: HdfFile, path: str, allow: str | None) -> tuple[Part, ...]:
    """A dataset as the parts it is made of: one, itself, if it is not virtual.

    Args:
        allow: the folder that the sources of virtual datasets may lie in; None to refuse those.

    Raises:
        DataError: it cannot be taken; a source is missing, lies elsewhere, or has not the rows it should have.
    """
    if not is_virtual(file, path) or allow is None:
        stored = file.dataset(path)
        return (Part(file, stored, range(stored.shape[0] if stored.shape else 0)),)
    entry, name = file.entries[path], f"{file.shown}: {quoted(path)}"
    if entry.odd:
        raise DataError(f"{name} is a virtual dataset of {entry.odd}", wanted="numbers or text", do=COPY)
    if not entry.pieces:
        raise DataError(
            f"{name} is a virtual dataset that is more than whole rows put below each other",
            wanted="rows that follow each other, each from one file",
            do=COPY,
        )
    opened: dict[str, HdfFile] = {}
    found: list[Part] = []
    try:
        for piece in entry.pieces:
            source = file
            if piece.file != ".":
                real = _allowed(file, piece.file, allow, name)
                if real not in opened:
                    opened[real] = guard.open_file(real)
                source = opened[real]
            if is_virtual(source, piece.dataset):
                other = f"{source.shown}: {quoted(piece.dataset)}"
                raise DataError(f"{name} takes rows from {other}, which is virtual itself", wanted="values", do=COPY)
            stored = source.dataset(piece.dataset)
            rows = range(piece.first, piece.first + piece.stop - piece.start)
            _refuse_other_rows(entry, stored, rows, name, source.shown)
            found.append(Part(source, stored, rows))
    except BaseException:
        for one in opened.values():
            one.close()
        raise
    return tuple(found)


def stack(found: tuple[Part, ...], make: Callable[[HdfFile, Stored], Any], dtype: Any = None) -> RowSource:
    """The rows of all parts, one after the other."""
    sources: dict[tuple[int, str], RowSource] = {}
    views: list[RowSource] = []
    for part in found:
        key = id(part.file), part.stored.path
        if key not in sources:
            sources[key] = make(part.file, part.stored)
        whole = sources[key]
        views.append(whole if len(part.rows) == whole.m else RowRange(whole, part.rows))
    return views[0] if len(views) == 1 else StackedRows(views, dtype)


def read_all(found: tuple[Part, ...], read: Callable[[HdfFile, Stored], NDArray[Any]], own: HdfFile) -> NDArray[Any]:
    """The values of all parts in memory; files other than `own` are closed."""
    whole: dict[tuple[int, str], NDArray[Any]] = {}
    try:
        for part in found:
            key = id(part.file), part.stored.path
            if key not in whole:
                whole[key] = read(part.file, part.stored)
        arrays = [whole[id(part.file), part.stored.path][part.rows.start : part.rows.stop] for part in found]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    finally:
        for part in found:
            if part.file is not own:
                part.file.close()


def _allowed(file: HdfFile, named: str, allow: str, name: str) -> str:
    """The real path of a source, which lies under the real path of the allowed folder."""
    path = named if os.path.isabs(named) else os.path.join(os.path.dirname(os.path.abspath(file.shown)), named)
    real, root = os.path.realpath(path), os.path.realpath(allow)
    if not os.path.isdir(root):
        raise DataError(f"{allow}, which --allow names, is no folder", wanted="a folder")
    if os.path.commonpath([real, root]) != root:
        raise DataError(
            f"{name} is a virtual dataset and takes rows from {quoted(real)}",
            wanted=f"files under {allow} alone",
            do="name the folder they may lie in with --allow DIR",
        )
    if not os.path.exists(real):
        raise DataError(f"{name} is a virtual dataset and its source {quoted(path)} is not there", wanted="all of them")
    return real


def _refuse_other_rows(entry: Stored, stored: Stored, rows: range, name: str, shown: str) -> None:
    source = f"{shown}: {quoted(stored.path)}"
    if stored.shape[1:] != entry.shape[1:] or not stored.shape or rows.stop > stored.shape[0]:
        raise DataError(
            f"{name} takes rows {rows.start} to {rows.stop - 1} of the shape {entry.shape[1:]} from {source},"
            f" which has the shape {stored.shape}",
            wanted="rows that are there",
        )
    same = stored.text == entry.text and (entry.text or np.can_cast(stored.dtype, entry.dtype, "safe"))
    if stored.odd or not same:
        raise DataError(
            f"{name} is of the type {entry.dtype} and {source} of {stored.odd or stored.dtype}",
            wanted="a type that holds the values of its sources",
            do=COPY,
        )
