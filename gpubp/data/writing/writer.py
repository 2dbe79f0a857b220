"""Tables become an HDF5 file: read, narrowed, summed and written by several threads in one pass.

HDF5 makes the file with all its datasets and says where each will lie; the rows of a contiguous one are then written
there by `pwrite`, which h5py's lock does not hold up. Encoded chunks go through HDF5, in the order of rows, so that the
same rows give the same bytes. Object headers carry checksums of their own (HDF5 1.8 and later) and no times.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5f, h5g, h5p, h5s, h5t  # type: ignore[attr-defined]  (they are there)
from numpy.typing import NDArray

from ...errors import DataError
from ..in_order import in_order
from .checksums import SUFFIX, Sealed, checksums_of, content_of, digest_of, rows_of_block
from .layouts import Layout
from .narrow import exactly
from .tables import Column, Table, guessed, scanned
from .unfinished import Unfinished

_CHUNKED_TASK = 4  # chunks that one thread encodes at a time


@dataclass
class _Dataset:
    """One dataset to be written.

    Attributes:
        path: in the file.
        dtype: as it will be stored; a guess until every row has been seen.
        block_rows: rows under one checksum, and of one chunk.
    """

    path: str
    column: Column
    dtype: np.dtype[Any]
    noted: dict[str, str]
    sealed: Sealed | None
    block_rows: int = 0
    where: h5d.DatasetID | None = None
    checksums: NDArray[np.uint32] | None = None

    @property
    def row_bytes(self) -> int:
        return math.prod(self.column.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.column.shape[0] * self.row_bytes


class _TooNarrow(Exception):
    """A value does not fit the type that was guessed."""

    def __init__(self, dataset: _Dataset) -> None:
        self.dataset = dataset


def write(
    tables: list[Table],
    to: Unfinished,
    layout: Layout,
    attributes: Callable[[], dict[str, Any]],
    progress: Callable[[int, int], object] | None,
) -> list[Sealed]:
    """Write all tables.

    Args:
        to: the file to fill.
        attributes: gives, at the end, what is to be noted on the file.
        progress: called with (rows of X written, rows in all).

    Returns:
        What was written, in the order of the tables' columns.

    Raises:
        DataError: there is no room, or a source cannot be read.
        OSError, RuntimeError: the disk or HDF5 refuses.
    """
    datasets = []
    for table in tables:
        for one in table.columns:
            path = one.name if table.split is None else f"{table.split}/{one.name}"
            datasets.append(_Dataset(path, one.column, guessed(one.column), one.noted, one.sealed))
    while True:
        try:
            return _written(datasets, to, layout, attributes, progress)
        except _TooNarrow as found:  # rare: the rows that a guess looked at are not like the others
            found.dataset.dtype = scanned(found.dataset.column)


def _written(
    datasets: list[_Dataset],
    to: Unfinished,
    layout: Layout,
    attributes: Callable[[], dict[str, Any]],
    progress: Callable[[int, int], object] | None,
) -> list[Sealed]:
    total = sum(one.column.shape[0] for one in datasets if one.path.endswith("X"))
    done = 0
    os.ftruncate(to.fd, 0)
    if not layout.chunked:
        to.require_room(sum(one.nbytes for one in datasets))
    with _created(to, aligned=not layout.chunked) as file:
        for one in datasets:
            _create(file, one, layout)
        for one in datasets:
            with closing(_stream(one, to, layout)) as written:
                for rows in written:
                    if one.path.endswith("X"):
                        done += rows
                        if progress is not None:
                            progress(done, total)
        sealed = [_seal(file, one) for one in datasets]
        noted = attributes() | {"layout": layout.name, "content": content_of(sealed)}
        for name, value in (noted | {"digest": digest_of(sealed, noted)}).items():
            file.attrs[name] = value
        for one in datasets:
            one.where = None
    return sealed


def _created(to: Unfinished, *, aligned: bool) -> h5py.File:
    creation, access = h5p.create(h5p.FILE_CREATE), h5p.create(h5p.FILE_ACCESS)
    creation.set_obj_track_times(False)
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # the lock is ours
    if aligned:
        access.set_alignment(1 << 16, 4096)
    return h5py.File(h5f.create(os.fsencode(to.path), h5f.ACC_TRUNC, creation, access))


def _create(file: h5py.File, one: _Dataset, layout: Layout) -> None:
    """A dataset without values. What a contiguous one will hold has its place in the file from now on."""
    above, _, name = one.path.rpartition("/")
    if above and above not in file:
        properties = h5p.create(h5p.GROUP_CREATE)
        properties.set_obj_track_times(False)
        h5g.create(file.id, above.encode(), None, properties)
    group: Any = file[above] if above else file
    shape = one.column.shape
    one.block_rows = min(rows_of_block(one.row_bytes), shape[0])
    one.checksums = np.zeros(-(-shape[0] // one.block_rows), np.uint32)
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    if layout.chunked:
        properties.set_chunk((one.block_rows, *shape[1:]))
        layout.filters(properties, one.dtype, one.block_rows * one.row_bytes)
    else:
        properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    text = one.dtype.kind == "S"
    dtype = h5py.string_dtype("utf-8", one.dtype.itemsize) if text else one.dtype.newbyteorder("<")
    kind = h5t.py_create(dtype, logical=True)
    one.where = h5d.create(group.id, name.encode(), kind, h5s.create_simple(shape), properties)
    for key, value in one.noted.items():
        group[name].attrs[key] = value


def _stream(one: _Dataset, to: Unfinished, layout: Layout) -> Generator[int, None, None]:
    """Read, narrow, sum, encode and write the rows of a dataset; gives how many are written as they are."""
    m, rows = one.column.shape[0], one.block_rows
    assert one.where is not None and one.checksums is not None
    step = rows * max(1, _CHUNKED_TASK if layout.chunked else one.column.step // rows)
    if layout.chunked and one.column.step > step:
        step = rows * (one.column.step // rows)
    place = None if layout.chunked else one.where.get_offset()
    stopped = threading.Event()

    def work(start: int) -> tuple[int, list[int], list[bytes]]:
        stop = min(start + step, m)
        try:
            return piece(start, stop)
        finally:
            one.column.passed(start, stop)

    def piece(start: int, stop: int) -> tuple[int, list[int], list[bytes]]:
        values = exactly(one.column.read(start, stop), one.dtype)
        if values is None:
            raise _TooNarrow(one)
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        sums = checksums_of(values, rows)
        if place is not None:
            _pwrite(to.fd, values.reshape(-1).view(np.uint8).data, place + start * one.row_bytes)
            return stop, sums, []
        chunks = [values[at : at + rows] for at in range(0, stop - start, rows)]
        if len(chunks[-1]) < rows:  # HDF5 keeps the last one whole as well
            short = chunks[-1]
            chunks[-1] = np.zeros((rows, *short.shape[1:]), short.dtype)
            chunks[-1][: len(short)] = short
        return stop, sums, [layout.encode(chunk) for chunk in chunks if not stopped.is_set()]

    rest = (0,) * (len(one.column.shape) - 1)
    # Ctrl-C does not wait for all chunks that are begun
    with in_order(work, range(0, m, step), stopped=stopped) as results:
        for start, (stop, sums, chunks) in results:
            first = start // rows
            one.checksums[first : first + len(sums)] = sums
            for at, chunk in enumerate(chunks):
                to.require_room(len(chunk))
                one.where.write_direct_chunk((start + at * rows, *rest), chunk)
            yield stop - start


def _pwrite(fd: int, data: memoryview, at: int) -> None:
    while len(data):
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def _seal(file: h5py.File, one: _Dataset) -> Sealed:
    """The checksums, written beside the dataset."""
    assert one.checksums is not None
    beside = file.create_dataset(one.path + SUFFIX, data=one.checksums.astype("<u4"), track_times=False)
    beside.attrs["block_rows"] = one.block_rows
    found = Sealed(one.path, one.column.shape, one.dtype, one.block_rows, one.checksums, dict(one.noted))
    if one.sealed is not None and (row := found.differs(one.sealed)) is not None:
        where = f"{one.sealed.path} from row {row} on is not what its checksums say: it is damaged"
        raise DataError(where, wanted="a sound source", do="gpubp verify names all damaged rows")
    return found
