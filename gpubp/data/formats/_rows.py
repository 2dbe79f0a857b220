"""Rows on their way from a file to an array: in a scratch file, in a type that widens when a value asks for it."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from . import Request, scratch_file

_PIECE = 4 << 20
_WHOLE = (np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64))  # int8 or uint8: which, the writer decides


class Rows:
    """Rows that are added block by block and become one array, mapped from a file that has no name.

    Signed integers are kept as narrow as they allow (16 bits at least), so that a table of small counts costs the disk
    little. Where a block needs a wider type than those before it, these are copied to that type.
    """

    def __init__(self, request: Request, what: str, *, exact: bool = False) -> None:
        """`exact` refuses integers that the float type beside them does not hold; `what` is for that message."""
        self.request, self.what, self.exact = request, what, exact
        self.dtype: np.dtype[Any] | None = None
        self.rows = 0
        self._negative = False
        self._shape: tuple[int, ...] = ()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def is_float(self) -> bool:
        return self.dtype is not None and self.dtype.kind == "f"

    def add(self, block: NDArray[Any]) -> None:
        """Append a block of shape (rows, …).

        Raises:
            DataError: an integer has no equal in the type that the array has to have.
        """
        if not block.size:
            return
        wanted = _narrowest(block)
        if self._file is None:
            self._file, self._shape, self.dtype = scratch_file(self.request), block.shape[1:], wanted
        assert self.dtype is not None
        both = np.result_type(self.dtype, wanted)
        self._negative = self._negative or bool(wanted.kind == "i" and block.min() < 0)
        if both.kind == "f" and {self.dtype.kind, wanted.kind} == {"i", "u"} and not self._negative:
            both = np.dtype(np.uint64)
        if both != self.dtype:
            self._widen(both)
        self._file.write(self._as(block, both).data)
        self.rows += len(block)

    def array(self) -> NDArray[Any] | None:
        """All rows, (m, …); None if there were none."""
        if self._file is None or self.dtype is None:
            return None
        self._file.flush()
        return np.memmap(self._file, self.dtype, "r", shape=(self.rows, *self._shape))

    def _as(self, block: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if self.exact:
            check_exact(block, dtype, self.what)
        return np.ascontiguousarray(block, dtype)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        old, self.dtype = self.array(), dtype
        assert old is not None and self._file is not None
        rows = max(1, _PIECE * self.rows // old.nbytes)
        with self._file:
            self._file = scratch_file(self.request)
            for start in range(0, self.rows, rows):
                self._file.write(self._as(old[start : start + rows], dtype).data)


def check_exact(block: NDArray[Any], dtype: np.dtype[Any], what: str) -> None:
    """Raise DataError if integers are to become floats and one may be too large to have an equal."""
    if dtype.kind == "f" and block.dtype.kind in "iu" and block.dtype.itemsize >= dtype.itemsize:
        limit = 2 ** (np.finfo(dtype).nmant + 1)
        wrong = (block >= limit) | (block <= -limit) if block.dtype.kind == "i" else block >= limit
        if wrong.any():
            raise DataError(
                f"{what} holds the whole number {block[wrong][0]} beside columns of {dtype}",
                wanted="numbers that one type holds exactly",
                do="leave that column out (--x a,b,3:10), or write it as floats",
            )


def _narrowest(block: NDArray[Any]) -> np.dtype[Any]:
    if block.dtype.kind not in "iu" or block.dtype.itemsize <= 2:
        return block.dtype.newbyteorder("=")
    low, high = int(block.min()), int(block.max())
    return next((one for one in _WHOLE if np.iinfo(one).min <= low and high <= np.iinfo(one).max), np.dtype(np.uint64))


class Words:
    """Text labels as numbers on their way, so that memory holds each distinct label once."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._codes)

    def coded(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The numbers of labels (rows,), in the order in which they first come."""
        distinct, where = np.unique(labels, return_inverse=True)
        codes = np.array([self._codes.setdefault(str(word), len(self._codes)) for word in distinct], np.int32)
        return codes[where.reshape(-1)]

    def decoded(self, codes: NDArray[Any], request: Request) -> NDArray[Any]:
        """The labels as text again (rows,), mapped from a scratch file."""
        words = np.array(list(self._codes))
        with scratch_file(request) as out:
            for start in range(0, len(codes), 1 << 16):
                out.write(words[codes[start : start + (1 << 16)]].data)
            out.flush()
            return np.memmap(out, words.dtype, "r", shape=(len(codes),))
