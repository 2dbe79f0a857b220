"""HDF5's own filters: deflate, shuffle, the fletcher32 checksum; and LZF, which h5py brings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from . import Bytes, Unavailable


@cache
def kernels() -> Any:
    """The compiled loops, or None where there is no numba."""
    from ....backend.compiled import missing

    if missing():
        return None
    from ....backend.compiled.build import kept_on_disk

    with kept_on_disk():
        from . import kernels
    return kernels


def compiled(what: str) -> Any:
    """The compiled loops.

    Raises:
        Unavailable: there is no numba.
    """
    found = kernels()
    if found is None:
        raise Unavailable(f"numba, which compiles the decoder of {what}, is not installed (pip install 'gpubp[cpu]')")
    return found


class Deflate:
    """gzip. By Intel's isal where it is installed, which is two to three times as fast."""

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        self._zlib: Any
        try:
            self._zlib = importlib.import_module("isal.isal_zlib")
        except ImportError:
            self._zlib = importlib.import_module("zlib")
        self._error = self._zlib.error

    def decode(self, data: Bytes, out: Bytes) -> None:
        stream = self._zlib.decompressobj()
        try:
            values = stream.decompress(data, out.size + 1)  # one more: to see the end, with its checksum
        except self._error as error:
            raise ValueError(str(error)) from None
        if len(values) != out.size or not stream.eof:
            raise ValueError("it holds more or less than a chunk")
        out[:] = np.frombuffer(values, np.uint8)


class Shuffle:
    """All first bytes of the values, then all second bytes, …"""

    adds: int | None = 0

    def __init__(self, options: Sequence[int]) -> None:
        if not options or options[0] < 1:
            raise Unavailable("a shuffle of values without a size")
        self._item = options[0]
        self._kernels = kernels()

    def decode(self, data: Bytes, out: Bytes) -> None:
        if data.size != out.size:
            raise ValueError("it holds more or less than a chunk")
        item, count = self._item, out.size // self._item
        if item == 1 or count < 2:
            out[:] = data
            return
        whole = item * count
        if self._kernels is not None:
            self._kernels.unshuffle(data[:whole], out[:whole], item)
        else:
            values, planes = out[:whole].reshape(count, item), data[:whole].reshape(item, count)
            for byte in range(item):
                values[:, byte] = planes[byte]
        out[whole:] = data[whole:]


class Fletcher32:
    """A checksum behind the values, as in H5checksum.c: sums of 16-bit big-endian words modulo 65535."""

    adds: int | None = 4

    def __init__(self, options: Sequence[int]) -> None:
        self._kernels = kernels()

    def decode(self, data: Bytes, out: Bytes) -> None:
        if data.size != out.size + 4:
            raise ValueError("it holds more or less than a chunk")
        out[:] = data[:-4]
        stored = int.from_bytes(data[-4:].tobytes(), "little")
        one, two = self._kernels.fletcher(out) if self._kernels is not None else fletcher(out)
        found = int(two) << 16 | int(one)
        # HDF5 before 1.6.3 wrote the bytes of each half in the other order on little-endian machines
        turned = (found & 0x00FF00FF) << 8 | (found & 0xFF00FF00) >> 8
        if stored not in (found, turned):
            raise ValueError("its checksum does not agree with its bytes")


def fletcher(data: Bytes) -> tuple[int, int]:
    """Both sums; each is 0 only where all bytes are."""
    one = two = 0
    size = 1 << 15
    for start in range(0, data.size, 2 * size):
        piece = data[start : start + 2 * size]
        if piece.size % 2:
            piece = np.append(piece, np.uint8(0))
        words = piece.view(">u2").astype(np.uint64)
        back = np.arange(words.size, 0, -1, dtype=np.uint64)
        two = (two + words.size * one + int(words @ back)) % 65535
        one = (one + int(words.sum())) % 65535
    if one == two == 0 and not data.any():
        return 0, 0
    return one or 65535, two or 65535


class Lzf:
    """LibLZF."""

    adds: int | None = None

    def __init__(self, options: Sequence[int]) -> None:
        self._kernels = compiled("LZF")

    def decode(self, data: Bytes, out: Bytes) -> None:
        if self._kernels.unlzf(data, out) != out.size:
            raise ValueError("it is damaged")
