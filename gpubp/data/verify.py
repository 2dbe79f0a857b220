"""`gpubp verify`: reads every row of a file and says which are damaged.

With the checksums that `convert` wrote (`checksums`) every flipped bit is found, and the rows it lies in are named.
Without them it is said what could be checked: that every row can be read, with whatever checksums HDF5 has of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import guard
from .hdf5.file import HdfFile
from .hdf5.rows import HdfRows, read_numbers
from .hdf5.stored import Stored
from .in_order import in_order
from .source import row_dtype
from .writing.checksums import ON_DATASET, SUFFIX, Sealed, checksums_of, content_of, digest_of, rows_of_block

_PIECE = 8 << 20  # bytes read at a time
_NAMED = 20  # runs of damaged rows that are named, of each dataset
_DEATHS = 20  # times that the HDF5 library may crash over a file before no more of it is read


@dataclass
class _Checked:
    """One dataset and what was found."""

    stored: Stored
    block_rows: int
    expected: NDArray[np.uint32] | None
    found: NDArray[np.uint32]
    bad: NDArray[np.bool_]
    why: str = ""
    noted: dict[str, Any] = field(default_factory=dict)

    def runs(self) -> list[tuple[int, int]]:
        """Rows [start, stop) of damaged blocks that lie together."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.bad, [False]]).astype(np.int8)))
        m = self.stored.shape[0] if self.stored.shape else 1
        return [
            (int(a) * self.block_rows, min(int(b) * self.block_rows, m))
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]


def verify(path: str | os.PathLike[str], *, progress: Callable[[int, int], object] | None = None) -> dict[str, Any]:
    """Read and check every row of an HDF5 file.

    Args:
        progress: called with (bytes read, bytes in all).

    Returns:
        `path`, `bytes` (of the file), `read` (bytes of rows), `checksums` (whether it has any), `sound`, `content` (the
        SHA-256 of its rows, None without checksums), `troubles` (lines), `unchecked` (datasets that could not be looked
        at, and why), and `datasets`, one record each: `name`, `rows`, `blocks`, `damaged` (blocks), `damaged_rows`
        ([first, last] of up to 20 runs).

    Raises:
        DataError: the file cannot be opened, or is no HDF5 file.
    """
    with guard.open_file(path) as file:
        return _verified(file, progress)


def _verified(file: HdfFile, progress: Callable[[int, int], object] | None) -> dict[str, Any]:
    troubles: list[str] = []
    unchecked: list[str] = []
    sealed_file = "digest" in file.attributes or any(name.endswith(SUFFIX) for name in file.entries)
    checked: list[_Checked] = []
    for name, entry in sorted(file.entries.items()):
        if name.endswith(SUFFIX):
            continue
        if why := _unreadable(entry):
            (troubles if sealed_file else unchecked).append(f"{name} {why}")
            continue
        checked.append(_expected(file, entry, sealed_file, troubles))
    total = sum(math.prod(one.stored.shape) * one.stored.dtype.itemsize for one in checked)
    done = 0
    for one in checked:
        with closing(_check(file, one)) as read:
            for nbytes in read:
                done += nbytes
                if progress is not None:
                    progress(done, total)
    file.check()
    content = None
    if sealed_file:
        content = _judge(file, checked, troubles)
    for one in checked:
        if one.bad.any():
            troubles.append(_words(one))
    return {
        "path": file.shown,
        "bytes": os.fstat(file.fd).st_size,
        "read": done,
        "checksums": any(one.expected is not None for one in checked),
        "sound": not troubles,
        "content": content,
        "troubles": troubles,
        "unchecked": unchecked,
        "datasets": [_record(one) for one in checked],
    }


def _unreadable(entry: Stored) -> str:
    """Why there is nothing to check in an entry, as the predicate of a sentence; empty if there is."""
    if entry.trouble:
        return entry.trouble
    if entry.odd:
        return f"holds {entry.odd}"
    if entry.text and entry.dtype.kind == "O":
        return "holds text of any length"
    if not entry.shape or 0 in entry.shape:
        return "holds no rows"
    return ""


def _expected(file: HdfFile, entry: Stored, sealed: bool, troubles: list[str]) -> _Checked:
    """The checksums that lie beside a dataset, if they do and make sense."""
    m = entry.shape[0]
    rows, expected = rows_of_block(entry.row_bytes), None
    beside = file.entries.get(entry.path + SUFFIX)
    if beside is not None:
        said = beside.attributes.get("block_rows")
        try:
            if not isinstance(said, int) or said < 1 or beside.shape != (-(-m // said),) or beside.dtype.kind != "u":
                raise DataError("they do not belong to it")
            values = read_numbers(file, file.dataset(beside.path), beside.path)
            rows, expected = said, values.astype(np.uint32)
        except DataError as error:
            troubles.append(f"the checksums of {entry.path} are damaged: {error}")
    elif sealed:
        troubles.append(f"{entry.path} has no checksums, though the file has")
    blocks = -(-m // rows)
    noted = {name: entry.attributes[name] for name in ON_DATASET if name in entry.attributes}
    return _Checked(entry, rows, expected, np.zeros(blocks, np.uint32), np.zeros(blocks, np.bool_), "", noted)


def _check(file: HdfFile, one: _Checked) -> Generator[int, None, None]:
    """Read a dataset block by block; gives bytes as they are done."""
    m, rows = one.stored.shape[0], one.block_rows
    read = _reader(file, one)
    step = rows * max(1, _PIECE // max(1, rows * one.stored.row_bytes))

    def work(start: int) -> tuple[int, list[int | None]]:
        stop = min(start + step, m)
        try:
            return stop, [*checksums_of(read(start, stop), rows)]
        except DataError as error:
            one.why = one.why or str(error)
        sums: list[int | None] = []
        for at in range(start, stop, rows):  # which of them is it?
            try:
                sums += checksums_of(read(at, min(at + rows, stop)), rows)
            except DataError:
                sums.append(None)
        return stop, sums

    with in_order(work, range(0, m, step)) as results:
        for start, (stop, sums) in results:
            for block, found in enumerate(sums, start // rows):
                one.bad[block] = found is None or (one.expected is not None and found != one.expected[block])
                one.found[block] = found or 0
            yield (stop - start) * one.stored.row_bytes


def _reader(file: HdfFile, one: _Checked) -> Callable[[int, int], NDArray[Any]]:
    """Gives rows as they are stored: by the fast way, or, where damage keeps it from being taken, through HDF5."""
    entry = one.stored
    if not entry.text:
        try:
            rows = HdfRows(file, file.dataset(entry.path).as_table())
            swap = np.dtype(rows.dtype).newbyteorder("<")

            def fast(start: int, stop: int) -> NDArray[Any]:
                out = np.empty((stop - start, rows.features), rows.dtype)
                rows.read(start, stop, out)
                return out.astype(swap, copy=False)

            return fast
        except DataError as error:
            one.why = str(error)
            row_dtype(entry.dtype, entry.path)
    deaths = 0

    def slow(start: int, stop: int) -> NDArray[Any]:
        nonlocal deaths
        if deaths > _DEATHS:
            raise DataError(f"{file.shown}: {entry.path} is not read further", wanted="a sound file")
        try:
            data = file.read(entry, start, stop)
        except OSError as error:
            raise DataError(f"{file.shown}: {entry.path} cannot be read: {error}", wanted="a sound file") from None
        except DataError:
            deaths += 1
            file.rest()  # the next question is for another process
            raise
        return np.frombuffer(data, np.uint8).reshape(stop - start, -1)

    return slow


def _judge(file: HdfFile, checked: list[_Checked], troubles: list[str]) -> str:
    """What the seals say: of rows and checksums, which is the one that changed; and whether the notes did."""
    said = file.attributes.get("content")
    found = content_of(_sealed(one, one.found) for one in checked)
    listed = content_of(_sealed(one, one.found if one.expected is None else one.expected) for one in checked)
    if any(one.bad.any() for one in checked):
        if found == said:
            for one in checked:
                if one.bad.any():
                    troubles.append(f"the checksums of {one.stored.path} are damaged; its rows are sound")
                    one.bad[:] = False
        elif listed != said:
            troubles.append("the checksums or the description of the file are damaged as well")
    elif found != said and not troubles:
        troubles.append("the description of the file is damaged: a name, a shape, a type or a list of checksums")
    if digest_of((_sealed(one, one.found) for one in checked), file.attributes) != file.attributes.get("digest"):
        troubles.append("what is noted about the file's origin is damaged")
    return found


def _sealed(one: _Checked, checksums: NDArray[np.uint32]) -> Sealed:
    stored = one.stored
    return Sealed(stored.path, stored.shape, stored.dtype, one.block_rows, checksums, one.noted)


def _words(one: _Checked) -> str:
    runs = one.runs()
    rows = ", ".join(f"{a} to {b - 1}" if b - a > 1 else f"{a}" for a, b in runs[:_NAMED])
    more = f" and {len(runs) - _NAMED} more stretches" if len(runs) > _NAMED else ""
    return f"{one.stored.path} rows {rows}{more} are damaged"


def _record(one: _Checked) -> dict[str, Any]:
    return {
        "name": one.stored.path,
        "rows": one.stored.shape[0],
        "blocks": len(one.bad),
        "checksums": one.expected is not None,
        "damaged": int(np.count_nonzero(one.bad)),
        "damaged_rows": [[a, b - 1] for a, b in one.runs()[:_NAMED]],
    }
