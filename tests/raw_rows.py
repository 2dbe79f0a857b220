"""A source whose rows are a plain file: what tests of reading past a source need of one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gpubp.data.source import Extent
from gpubp.data.stamp import Stamp
from gpubp.errors import DataError


class RawRows:
    """X as bytes behind a header of odd length. `asked` counts the calls of `read`."""

    HEADER = 13

    def __init__(self, path: Path, X: np.ndarray) -> None:
        path.write_bytes(b"x" * self.HEADER + X.tobytes())
        self.path, self.dtype, (self.m, self.features) = path, X.dtype, X.shape
        self.fd = os.open(path, os.O_RDONLY)
        self._stamp = Stamp(self.fd, path)
        self.asked = 0

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        self.asked += 1
        row = self.features * self.dtype.itemsize
        if os.preadv(self.fd, [out.data], self.HEADER + start * row) < (stop - start) * row:
            raise DataError(f"{self.path}: rows {start} to {stop - 1} are not there")

    def extent(self) -> Extent | None:
        return Extent(self.fd, self.HEADER)

    def check(self) -> None:
        self._stamp.check()

    def where(self, row: int) -> str:
        return f"{self.path} row {row}"

    def describe(self) -> str:
        return f"{self.path} {self.m} × {self.features}"

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def later(path: Path, seconds: int = 5) -> None:
    """Have the file's time be another one, as a write has it that does not come in the same instant."""
    state = os.stat(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + seconds * 10**9))
