"""Rows from a file into the block that uses them, without Python: what `gpubp.data.direct` does, called by address.

A block that was just read lies in the core's cache when it is used, so that rows from a file the system has in memory
cost little more than rows of our own. Only the bytes matter: errors end the pass, and Python finds the words.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from .intrinsics import call_for, read

WILL_NEED: int = getattr(os, "POSIX_FADV_WILLNEED", 0)
EINTR = errno.EINTR
_WORD, _INT = np.int64(0), np.int32(0)


@cache
def addresses() -> tuple[int, int, int]:
    """Of pread, of posix_fadvise (0 where there is none), and of the function that says where a thread's errno lies."""
    library: Any = ctypes.CDLL(None)

    def of(name: str) -> int:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0

    advise = of("posix_fadvise") if WILL_NEED else 0
    return of("pread"), advise, of("__errno_location" if sys.platform == "linux" else "__error")


@njit(nogil=True, cache=True, error_model="numpy")
def fetch(table, parts, step, depth, jumped, row_bytes, start, stop, to, pread, advise, error):  # type: ignore[no-untyped-def]
    """Bring rows start … stop − 1 to an address; whether they all came.

    Args:
        table, parts: the address of `direct.Direct.table`, and its number of rows.
        step, depth: `direct.Direct.ahead`.
        jumped: whether these rows do not follow the ones read last, so that nobody has asked for what comes next.
        pread, advise, error: see `addresses`.
    """
    for part in range(parts):
        entry = table + 32 * part
        first, end = read(entry, _WORD), read(entry + 8, _WORD)
        low, high = max(start, first), min(stop, end)
        if low >= high:
            continue
        fd, offset = read(entry + 16, _WORD), read(entry + 24, _WORD)
        if fd < 0:
            return False
        place, left = to + (low - start) * row_bytes, (high - low) * row_bytes
        at, behind = offset + (low - first) * row_bytes, offset + (end - first) * row_bytes
        if step and advise:
            ahead = at if jumped or low == first else (at // step + depth) * step
            last = min(((at + left) // step + depth) * step, behind)
            if ahead < last:
                call_for(advise, (fd, ahead, last - ahead, WILL_NEED))
        while left > 0:
            count = call_for(pread, (fd, place, left, at))
            if count < 0 and read(call_for(error, ()), _INT) == EINTR:
                continue
            if count <= 0:
                return False
            place, left, at = place + count, left - count, at + count
    return True
