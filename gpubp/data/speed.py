"""How fast the rows of X can be read, measured on the file itself as it lies now.

Pieces spread over the rows are read in turn as training reads them and by plain `pread` of the bytes that the file
keeps of the rows beside them, so that both meet the same disk and the same page cache, and neither reads what the
other has just brought in. What is in the page cache is asked of the kernel first.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hdf5.file import HdfFile
from .hdf5.stored import Stored
from .source import RowSource

_SECONDS, _MOST = 0.3, 64 << 20  # where measuring ends
_PIECE, _PROBE = 4 << 20, 1 << 18  # bytes of rows read at a time; of the first, lest a whole piece take for ever
_PLACES = 64  # where the page cache is asked about


@dataclass(frozen=True)
class Speed:
    """A measurement.

    Attributes:
        rate: bytes of rows per second, as training gets them.
        raw: bytes of the file per second by plain `pread` of the same rows' bytes; None where they have no place in
            the file that we know.
        share: bytes of the file for a byte of rows: below 1 where they are compressed.
        cached: which part of the places asked about was in the page cache before; None where the system cannot tell.
        bytes: of rows that were read.
        seconds: what that took.
    """

    rate: float
    raw: float | None
    share: float
    cached: float | None
    bytes: int
    seconds: float


def measure(file: HdfFile, stored: Stored, source: RowSource) -> Speed:
    """Read some rows as training does.

    Args:
        file: open.
        stored: the dataset behind `source`, from `HdfFile.dataset`; one without a place in the file leaves `raw` None.
        source: the rows.

    Raises:
        DataError: the rows cannot be read.
    """
    m, row = source.m, source.features * source.dtype.itemsize
    cached = _cached(file.fd, stored)
    rows = max(1, min(_PROBE // row, m))
    buffer = np.empty((max(1, min(_PIECE // row, m)), source.features), source.dtype)
    buffer.fill(0)  # memory that was never written to is slow the first time
    source.read(0, 1, buffer[:1])  # a process may have to be started first, once in a run
    began = time.perf_counter()
    source.read(0, rows, buffer[:rows])
    probe = time.perf_counter() - began
    if probe * _PIECE < _SECONDS * _PROBE:
        rows = len(buffer)
    slots = max(1, min(m // (2 * rows), _MOST // (rows * row)))
    scratch = memoryview(bytearray(_PIECE))
    done = raw_done = 0
    taken = raw_taken = 0.0
    for slot in range(slots):
        first = slot * m // slots
        middle = min(first + rows, m)
        parts = [(first, middle), (middle, min(middle + rows, m)) if middle < m else (first, middle)]
        ours, plain = parts if slot % 2 == 0 else parts[::-1]
        ranges = _ranges(stored, *plain)
        for way in ("ours", "plain") if slot % 2 == 0 else ("plain", "ours"):  # the kernel reads ahead for the second
            began = time.perf_counter()
            if way == "ours":
                source.read(*ours, buffer[: ours[1] - ours[0]])
                done += (ours[1] - ours[0]) * row
                taken += time.perf_counter() - began
            else:
                raw_done += sum(_pread(file.fd, offset, size, scratch) for offset, size in ranges)
                raw_taken += time.perf_counter() - began
        if taken + raw_taken > _SECONDS:
            break
    raw = raw_done / raw_taken if raw_done else None
    share = stored.size / stored.declared if stored.size and stored.declared else 1.0
    return Speed(done / taken, raw, share, cached, done, taken)


def _ranges(stored: Stored, start: int, stop: int) -> list[tuple[int, int]]:
    """Where the file keeps the bytes of some rows, as (offset, size)."""
    if stored.offset is not None:
        return [(stored.offset + start * stored.row_bytes, (stop - start) * stored.row_bytes)]
    if stored.chunks is None or not stored.chunk_shape:
        return []
    each = len(stored.chunks) // stored.grid()[0]  # chunks side by side
    first, last = start // stored.chunk_shape[0], (stop - 1) // stored.chunk_shape[0]
    table: NDArray[Any] = stored.chunks[first * each : (last + 1) * each]
    return [(int(offset), int(size)) for offset, size in table[:, :2]]


def _pread(fd: int, offset: int, size: int, scratch: memoryview) -> int:
    done = 0
    while done < size:
        got = os.preadv(fd, [scratch[: size - done]], offset + done)
        if got == 0:
            break
        done += got
    return done


def _cached(fd: int, stored: Stored) -> float | None:
    """Which part of a dataset's bytes lies in the page cache, judged by some places in it."""
    if not hasattr(os, "RWF_NOWAIT") or not stored.shape or 0 in stored.shape:
        return None
    m, found, asked = stored.shape[0], 0, 0
    for place in range(min(_PLACES, m)):
        row = (2 * place + 1) * m // (2 * min(_PLACES, m))
        ranges = _ranges(stored, row, row + 1)
        if not ranges:
            return None
        offset, size = ranges[place % len(ranges)]
        try:
            found += os.preadv(fd, [bytearray(1)], offset + size // 2, os.RWF_NOWAIT)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return None
            raise
        asked += 1
    return found / asked
