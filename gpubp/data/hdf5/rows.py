"""The rows of one dataset of an HDF5 file, by the fastest way that gives the very bytes HDF5 gives.

Ways are tried in order (`ways`); one that is chosen must first read the first and the last row as HDF5 read them. The
bytes are those of the file: HDF5 is never asked to convert, which it does forty times slower than it reads (0.02 GB/s
for big-endian float64); bytes are swapped in place afterwards.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..names import quoted
from ..source import Extent, columns_of, row_dtype, shape_text
from .file import HdfFile
from .stored import Stored
from .ways import Way, choose


class HdfRows:
    """m rows × features of a dataset. See `gpubp.data.source.RowSource`.

    Args:
        file: open; the source that is closed first closes it.
        stored: from `file.dataset`: rows × features, or rows × any shape.

    Attributes:
        way: how rows are read.

    Raises:
        DataError: the dataset is no table of real numbers; a way reads other values than HDF5 does.
    """

    def __init__(self, file: HdfFile, stored: Stored) -> None:
        self._file, self._name = file, f"{file.shown}: {quoted(stored.path)}"
        if stored.odd or stored.text:
            wanted = "real numbers (bool, integers, or floats of at most 8 bytes)"
            raise DataError(f"{self._name} holds {stored.odd or 'text'}", wanted=wanted)
        self.features = columns_of(stored.shape, self._name)
        self.m = stored.shape[0]
        self.dtype = row_dtype(stored.dtype, self._name)
        self._swapped = not stored.dtype.isnative
        self.way: Way = choose(file, stored, self._name)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        assert out.flags.c_contiguous and out.dtype == self.dtype  # a copy would be filled
        try:
            if start < stop:
                self.way.read(start, stop, out.data.cast("B"))
        except (OSError, EOFError) as error:
            raise DataError(
                f"{self._name}: rows {start} to {stop - 1} cannot be read: {' '.join(str(error).split())}",
                wanted="a file that stays whole and in place",
                do="check the disk and the file",
            ) from None
        if self._swapped:
            out.byteswap(inplace=True)

    @property
    def slow(self) -> str:
        return self.way.slow

    def where(self, row: int) -> str:
        return f"{self._name} row {row}"

    def describe(self) -> str:
        return f"{self._name} {shape_text((self.m, self.features), self.dtype)}"

    def extent(self) -> Extent | None:
        offset = getattr(self.way, "offset", None)
        return None if offset is None or self._swapped else Extent(self._file.fd, offset)

    def check(self) -> None:
        """Raise DataError if the file changed since it was opened."""
        self._file.check()

    def close(self) -> None:
        self._file.close()


def read_numbers(file: HdfFile, stored: Stored, what: str) -> NDArray[Any]:
    """A whole dataset in memory, in native byte order; bool stays bool.

    Args:
        what: the dataset as messages call it.

    Raises:
        DataError: it holds no real numbers, or cannot be read.
    """
    if stored.odd:
        raise DataError(f"{what} holds {stored.odd}", wanted="real numbers")
    is_bool = stored.dtype.kind == "b"
    dtype = np.dtype(np.bool_) if is_bool else row_dtype(stored.dtype, what)
    out = np.empty(stored.shape, np.uint8 if is_bool else dtype)
    rows = HdfRows(file, stored.as_table())
    step = max(1, (8 << 20) // max(1, stored.row_bytes))
    flat = out.reshape(stored.shape[0] if stored.shape else 1, math.prod(stored.shape[1:]))
    for start in range(0, len(flat), step):
        rows.read(start, min(start + step, len(flat)), flat[start : start + step])
    return out.view(dtype)
